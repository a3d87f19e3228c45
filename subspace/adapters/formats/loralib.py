"""loralib's LoRA: bare parameters in a state dict, and no alpha.

Layout as loralib 0.1.2 writes it, ``loralib/layers.py``: ``<path>.lora_A`` (r, d_in) and
``<path>.lora_B`` (d_out, r) without ``.weight``, update ``lora_alpha / r * lora_B @ lora_A``; an
embedding stores (r, vocabulary) and (dim, r), which is the same map. alpha is a constructor's
argument that no file holds, so it is asked for.

``MergedLinear`` has g of several blocks of a fused weight adapted (``enable_lora``) and stores A
(g * r, d_in) and B (g * d_block, r), block after block. Each is a module here, ``<path>.0``,
``<path>.1``, … in the order of the enabled blocks: which of the weight's they are is not stored.

``ConvLoRA`` of a k x k kernel stores A (r * k, d_in * k) and B (d_out * k, r * k) and views the
product as the weight: k consecutive rows are one output. That is ``B.view(d_out, -1) @ kron(I_k,
A)``, of rank r * k**2. The same shapes are a linear layer's, and alpha / r is another number there:
k is read off the base's weight, so a whole state dict is needed.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from subspace.adapters.build import UpdateSpec, build_adapter
from subspace.adapters.factors.plain import require_alpha
from subspace.adapters.formats.diffusers import COMFY
from subspace.adapters.rotary import has_heads, read_base_config, read_heads
from subspace.adapters.set_aside import SetAsideReason
from subspace.adapters.source import group_by_module, read_factor_shape, require_factors, some
from subspace.errors import FormatError
from subspace.modules.words import TOOL_WRAPPERS, list_words
from subspace.tensorfiles import read_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import torch

    from subspace.adapters.adapter import Adapter
    from subspace.adapters.source import AdapterSource

NAME = "loralib"
EXPECTS = "NAME.lora_A (r, d_in) and NAME.lora_B (d_out, r), without .weight"
TENSOR_SUFFIXES = (".lora_A", ".lora_B")
READS = (
    "linear layers, embeddings, MergedLinear block by block, convolutions where their weight is "
    "beside; litgpt's fused projections where a config beside tells their sizes; alpha is asked "
    "for; a state dict inside a training checkpoint"
)
REFERENCE = "files and merge of `loralib`"
TESTS = ("tests/test_loralib_adapters.py",)
_SLOTS = {"lora_A": "lora_A", "lora_B": "lora_B"}
# What wraps a whole model: DistributedDataParallel, torch.compile and the like, ComfyUI.
_WRAPPERS = ("module.", *(f"{word}." for word in TOOL_WRAPPERS), COMFY)
# Words of a fused query, key and value; GPT-2's c_attn has equal ones in every program.
_UNEQUAL = frozenset({*list_words("fused"), "attn"} - {"c_attn"})
_LITGPT = ("model_config.yaml", "lit_config.json")
_LONGEST_CONFIG = 1_000_000
_FIELD = re.compile(r"^(n_head|n_query_groups|head_size|n_embd):\s*([0-9]{1,7})\s*$", re.MULTILINE)
_MOST_BLOCKS = 1024  # of one fused weight: each becomes a module, on a header's word
_LARGEST = 2**28  # entries of a convolution's laid-out A, which repeats the stored one


def matches(source: AdapterSource) -> str | None:
    """Say why these are loralib's: the tensors' names alone."""
    if source.config is not None and "peft_type" in source.config:
        return None
    example = next((name for name in source.tensors if _parse(name) is not None), None)
    return None if example is None else f"tensor {example!r} ends in .lora_A or .lora_B, no .weight"


def read(source: AdapterSource) -> Adapter:
    """Make an `Adapter` of a loralib state dict, from headers alone.

    Raises
    ------
    FormatError
        No alpha was given, a factor is without its partner, shapes do not fit, or what may be a
        convolution has no weight beside that tells its kernel.
    """
    comfy = source.alpha is None and any(name.startswith(COMFY) for name in source.tensors)
    alpha = None if comfy else require_alpha(source, "loralib")
    planned: list[UpdateSpec] = []
    blocks: list[str] = []
    parts: list[str] = []
    whole = False
    for module, slots in group_by_module(source, _parse).items():
        require_factors(source, module, slots, "lora_A", "lora_B")
        base = _find_base(source, slots["lora_A"])
        whole = whole or base is not None
        updates = list(_specify(source, module, slots, base, alpha))
        planned.extend(updates)
        if len(updates) > 1:
            blocks.append(module)
        elif base is not None and updates[0].shape not in (_map(base), _map(base)[::-1]):
            parts.append(module)
    notes = []
    if comfy:
        notes.append("no alpha is stored; the scale is 1, as ComfyUI has it for such names")
    if blocks:
        notes.append(
            f"{some(blocks)}: a MergedLinear, one update for each enabled block of equal size, in "
            "order; which rows of the base's weight they are is not stored"
        )
    if parts:
        notes.append(
            f"{some(parts)}: a MergedLinear with one enabled block; which rows of the base's "
            "weight it is, is not stored"
        )
    return build_adapter(
        source, planned, format=NAME, set_aside=_set_aside(source, whole=whole), notes=notes
    )


def _parse(name: str) -> tuple[str, str] | None:
    module, _, slot = name.rpartition(".")
    for wrapper in _WRAPPERS:
        module = module.removeprefix(wrapper)
    return (module, slot) if module and slot in _SLOTS else None


def _find_base(source: AdapterSource, a: str) -> tuple[int, ...] | None:
    """Return the shape of the layer's own weight, where the file is a whole state dict."""
    stored = a.removesuffix("lora_A")
    for leaf in ("conv.weight", "weight"):
        header = source.tensors.headers.get(stored + leaf)
        if header is not None:
            return header.shape
    return None


def _map(base: tuple[int, ...]) -> tuple[int, int]:
    return base[0], math.prod(base[1:])


def _set_aside(source: AdapterSource, *, whole: bool) -> dict[str, SetAsideReason]:
    reasons = {}
    for name in source.tensors:
        if _parse(name) is not None:
            continue
        if whole:
            reasons[name] = SetAsideReason.STATE_DICT
        elif name.endswith(".bias"):
            reasons[name] = SetAsideReason.BIAS_BESIDE
    return reasons


def _specify(
    source: AdapterSource,
    module: str,
    slots: Mapping[str, str],
    base: tuple[int, ...] | None,
    given: float | None,
) -> Iterator[UpdateSpec]:
    a, b = slots["lora_A"], slots["lora_B"]
    (rows, d_in), (d_out, rank) = read_factor_shape(source, a), read_factor_shape(source, b)
    alpha = float(rank) if given is None else given
    both = f"{source.text(a)} and {b!r} {(d_out, rank)}"
    if base is not None and len(base) > 2:
        yield _specify_convolution(both, module, (a, b), ((rows, d_in), (d_out, rank)), base, alpha)
        return
    if base is None and rank > 1 and "conv" in module.lower():
        raise FormatError(
            f"{both}: by its name a convolution, whose kernel, and so its scale, only the weight "
            "tells; give the whole state dict, or say that it is a linear layer with load(…, "
            'pattern="A={module*}.lora_A, B={module*}.lora_B", alpha=…)'
        )
    groups = rows // rank
    if rows % rank:
        raise FormatError(f"{both} have different ranks, {rows} and {rank}")
    if groups > _MOST_BLOCKS:
        raise FormatError(f"{both}: {groups} blocks, more than {_MOST_BLOCKS}, are no layer's")
    sizes = _part_sizes(source, module, both, (d_out, d_in, groups), sizes_known=base is not None)
    if base is not None and not any(
        d_in == base[1 - side] and base[side] % sizes[0] == 0 and base[side] >= d_out
        for side in (0, 1)  # fan_in_fan_out stores the transpose
    ):
        raise FormatError(f"{both} are not the factors of a weight {base}, which is beside")
    start = 0
    for group, height in enumerate(sizes):
        name = module if groups == 1 else f"{module}.{group}"
        block = slice(start, start := start + height)
        yield UpdateSpec(
            module=name,
            shape=(height, d_in),
            rank=rank,
            scale=alpha / rank,
            tensors=(a, b),
            factors=lambda tensors, block=block, group=group: (  # type: ignore[misc]
                tensors[b][block],
                tensors[a][group * rank : (group + 1) * rank],
            ),
        )


def _part_sizes(
    source: AdapterSource,
    module: str,
    both: str,
    sizes: tuple[int, int, int],
    *,
    sizes_known: bool,
) -> list[int]:
    """Return the rows of each block of a fused layer.

    loralib's MergedLinear has equal ones. litgpt's (``litgpt/lora.py``, ``LoRAQKVLinear``) are as
    the query, the key and the value are, and fewer heads may share a key (grouped-query attention).

    Raises
    ------
    FormatError
        They may differ, and nothing beside tells them.
    """
    d_out, d_in, groups = sizes
    equal = [d_out // groups] * groups
    fused = module.rpartition(".")[2] in _UNEQUAL
    if groups == 1 or not fused or sizes_known or d_out == groups * d_in:
        if d_out % groups:
            raise FormatError(f"{both}: {d_out} rows are not {groups} blocks of one size")
        return equal
    heads = _read_heads(source)
    if heads is not None:
        query, key = heads
        # Of two blocks one may be left out: query with key or value, or key with value.
        candidates = {2: ([query, key], [key, key]), 3: ([query, key, key],)}.get(groups, ())
        fitting = [rows for rows in candidates if sum(rows) == d_out]
        if fitting:
            return fitting[0]
    raise FormatError(
        f"{both}: {groups} blocks of a fused projection, whose rows need not be of one size "
        "(grouped-query attention), and "
        + ("nothing beside tells them" if heads is None else "the config beside is another model's")
        + f": put litgpt's {_LITGPT[0]} or {_LITGPT[1]}, or the base's config.json, beside the file"
    )


def _read_fields(path: Path) -> dict[str, int]:
    """Read the whole numbers of litgpt's config, JSON or one field a line; none if it is not there.

    Raises
    ------
    FormatError
        It is no sound JSON.
    """
    if not path.is_file() or path.stat().st_size > _LONGEST_CONFIG:
        return {}
    if path.suffix == ".json":
        return {key: n for key, n in read_json(path).items() if type(n) is int and n > 0}
    return {key: int(n) for key, n in _FIELD.findall(path.read_text(errors="replace"))}


def _read_heads(source: AdapterSource) -> tuple[int, int] | None:
    """Return the rows of all queries and of all keys, as a config beside tells them."""
    folder = source.weights.parent
    beside = read_base_config(source)
    if beside is not None and has_heads(beside[1]):
        heads = read_heads(*beside)
        return None if heads.rows is None else (heads.query * heads.rows, heads.key * heads.rows)
    for name in _LITGPT:
        fields = _read_fields(folder / name)
        query, width = fields.get("n_head", 0), fields.get("n_embd", 0)
        if not query:
            continue
        head = fields.get("head_size") or width // query
        if head:
            return head * query, head * (fields.get("n_query_groups") or query)
    return None


def _specify_convolution(
    both: str,
    module: str,
    names: tuple[str, str],
    shapes: tuple[tuple[int, int], tuple[int, int]],
    base: tuple[int, ...],
    alpha: float,
) -> UpdateSpec:
    a, b = names
    (rows, wide), (tall, width) = shapes
    d_out, d_in, kernel = base[0], math.prod(base[1:]), base[-1]
    if 0 in base or rows != width or tall * wide != d_out * d_in or rows % kernel:
        raise FormatError(f"{both} are not the factors of a weight {base}, which is beside")
    if d_in % wide:
        raise FormatError(
            f"{both}: a convolution {base} in groups, of whose factors loralib's view is no "
            "product; what is read: one group"
        )
    times = d_in // wide
    if times * times * rows * wide > _LARGEST:
        raise FormatError(f"{both}: a kernel of {kernel} is too large to lay out")

    def factors(tensors: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        import torch

        A = tensors[a]
        laid_out = torch.kron(torch.eye(times, dtype=A.dtype), A.contiguous())
        return tensors[b].reshape(d_out, -1), laid_out  # (d_out, k r k), (k r k, d_in)

    rank = rows // kernel
    kind = f"conv{len(base) - 2}d"
    return UpdateSpec(
        module=module,
        shape=(d_out, d_in),
        rank=times * rows,
        scale=alpha / rank,
        tensors=(a, b),
        factors=factors,
        kind=kind,
        kernel=base[2:],
    )
