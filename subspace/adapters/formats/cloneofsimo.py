"""cloneofsimo/lora: numbered pairs of a pipeline's models, without the modules' paths.

Layout as cloneofsimo/lora (``lora_diffusion/lora.py``) writes it. In safetensors
(``save_safeloras_with_embeds``) ``<model>:<n>:up`` (d_out, r) and ``<model>:<n>:down`` (r, d_in),
with kernels for convolutions; the metadata has under ``<model>`` the classes whose layers were
adapted, as JSON, under ``<model>:<n>:rank`` the rank, and under a learned word ``<embed>``. In
torch files (``save_lora_weight``) a list of up, down, up, down, …, of the UNet, or of the text
encoder where the file is called ``….text_encoder.pt``.

n counts layers in the order in which the writer walks the model, so a module here is ``unet.<n>``.
The update is up @ down: what a scale there was is in the first.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from typing import TYPE_CHECKING

from subspace.adapters.build import UpdateSpec, build_adapter
from subspace.adapters.factors.kernels import read_pair
from subspace.adapters.set_aside import SetAsideReason
from subspace.adapters.source import group_by_module, require_factors, some
from subspace.tensorfiles import TORCH_SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from subspace.adapters.adapter import Adapter
    from subspace.adapters.source import AdapterSource

NAME = "cloneofsimo/lora"
EXPECTS = "MODEL:0:up (d_out, r) and MODEL:0:down (r, d_in), or a torch list of up, down, up, down"
TENSOR_SUFFIXES = (":up", ":down")
READS = (
    "LoRA of linear layers and convolutions by their number, in safetensors and in torch lists; "
    "learned words set aside"
)
REFERENCE = "files and merge by the documented rule"
TESTS = ("tests/test_cloneofsimo_adapters.py",)

_PAIR = re.compile(r"([^:]{1,100}):([0-9]{1,6}):(up|down)")
_EMBED = "<embed>"


def matches(source: AdapterSource) -> str | None:
    """Say why these are cloneofsimo's: the tensors' names, or a torch list's numbers."""
    if source.config is not None:
        return None
    example = next((name for name in source.tensors if _PAIR.fullmatch(name)), None)
    if example is not None:
        return f"tensor {example!r} is of a numbered pair"
    count = len(source.tensors)
    if source.weights.suffix not in TORCH_SUFFIXES or not count or count % 2:
        return None
    numbered = all(name == str(n) for n, name in enumerate(source.tensors))
    return f"a list of {count} tensors" if numbered else None


def read(source: AdapterSource) -> Adapter:
    """Make an `Adapter` of a file of cloneofsimo/lora, from headers alone.

    Raises
    ------
    FormatError
        A pair without one of its two, or shapes that do not multiply.
    """
    tensors, metadata = source.tensors, source.tensors.metadata
    listed = "0" in tensors and "1" in tensors
    model = "text_encoder" if source.weights.name.endswith(".text_encoder.pt") else "unet"
    modules = group_by_module(source, (lambda name: _listed(name, model)) if listed else _parse)
    planned = []
    others: list[str] = []
    for module, slots in modules.items():
        require_factors(source, module, slots, "up", "down")
        pair = read_pair(source, slots["down"], slots["up"])
        stored_rank = metadata.get(":".join((*module.rpartition(".")[::2], "rank")))
        if stored_rank is not None and stored_rank != str(pair.rank):
            others.append(f"{module} ({stored_rank[:20]}, stored {pair.rank})")
        planned.append(
            UpdateSpec(
                module=module,
                shape=pair.shape,
                rank=pair.rank,
                scale=1.0,
                tensors=pair.tensors,
                factors=pair.factors,
                kind=pair.kind,
                kernel=pair.kernel,
            )
        )
    classes = _classes(metadata, modules)
    return build_adapter(
        source,
        planned,
        format=NAME,
        set_aside={
            name: SetAsideReason.LEARNED_WORD for name in tensors if metadata.get(name) == _EMBED
        },
        notes=_notes(modules, classes, others),
        metadata={"targets": classes},
    )


def _parse(name: str) -> tuple[str, str] | None:
    """Take a tensor's name apart.

    >>> _parse("unet:10:down")
    ('unet.10', 'down')
    """
    match = _PAIR.fullmatch(name)
    return (f"{match[1]}.{int(match[2])}", match[3]) if match else None


def _listed(name: str, model: str) -> tuple[str, str]:
    n, second = divmod(int(name), 2)
    return f"{model}.{n}", "down" if second else "up"


def _classes(metadata: Mapping[str, str], modules: Iterable[str]) -> dict[str, list[str]]:
    """Return of each model the classes whose layers were adapted, where the metadata tells."""
    out = {}
    for model in dict.fromkeys(module.rpartition(".")[0] for module in modules):
        try:
            classes = json.loads(metadata.get(model, "null"))
        except (ValueError, RecursionError):
            continue
        if isinstance(classes, list) and all(isinstance(name, str) for name in classes):
            out[model] = sorted(classes)
    return out


def _notes(
    modules: Iterable[str], classes: Mapping[str, list[str]], others: Iterable[str]
) -> list[str]:
    counts: dict[str, list[int]] = defaultdict(list)
    for module in modules:
        model, _, n = module.rpartition(".")
        counts[model].append(int(n))
    what = "; ".join(
        f"{model}: {len(count)} layers"
        + (f" of {some(classes[model], 5)}" if model in classes else "")
        for model, count in counts.items()
    )
    notes = [
        f"the file has no module paths, only numbers in the writer's order ({what}): compare with "
        "a file of the same classes alone"
    ]
    gaps = [model for model, count in counts.items() if max(count) >= len(count)]
    if gaps:
        notes.append(f"{some(gaps)}: numbers are missing between the first and the last")
    if others := list(others):
        notes.append(
            f"the metadata's rank is not the tensors', which the writer loads: {some(others)}"
        )
    return notes
