"""diffusers' LoRA, in the naming of today and in those of before.

Layout as diffusers 0.42.1 writes it (``loaders/lora_base.py``, ``loaders/peft.py``) and, of the old
ones, as it reads it (``utils/state_dict_utils.py``). A name begins with the pipeline's part,
``unet.``, ``transformer.``, ``text_encoder.``, …, or with nothing where one model was saved alone:

- ``<path>.lora_A.weight`` and ``.lora_B.weight`` as PEFT's, with an adapter's name before
  ``weight`` where the state dict of a live model was saved (DiffSynth-Studio);
- ``….attn1.processor.to_q_lora.down.weight`` and ``.up.weight``: ``processor`` is not of the path,
  ``to_out`` is ``to_out.0``, and in a text encoder ``to_q`` is ``q_proj`` and so on;
- ``<path>.lora.down.weight``, and in a text encoder ``<path>.lora_linear_layer.down.weight``.

alpha is in ``<path>.alpha``; else in the JSON under ``lora_adapter_metadata`` in the file's
metadata, PEFT's config with the part before each field; else it is r. Files that name the whole
model ``diffusion_model.``, as ComfyUI does, and Black Forest Labs' own of Flux are of this layout.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

from subspace.adapters.build import UpdateSpec, build_adapter
from subspace.adapters.factors.kernels import read_pair
from subspace.adapters.method import Method
from subspace.adapters.peft.config import read_config
from subspace.adapters.peft.patterns import apply_patterns
from subspace.adapters.set_aside import SetAsideReason
from subspace.adapters.source import group_by_module, read_number, require_factors, some
from subspace.errors import FormatError
from subspace.modules.words import NAMINGS, PIPELINE, words_of
from subspace.tensorfiles import short
from subspace.tensorfiles.untrusted import parse_json_object

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from subspace.adapters.adapter import Adapter
    from subspace.adapters.peft.config import LoraConfig
    from subspace.adapters.source import AdapterSource
    from subspace.modules.words import Role

NAME = "diffusers"
EXPECTS = "unet.NAME.lora_A.weight and its like, or NAME.processor.to_q_lora.down.weight"
TENSOR_SUFFIXES = (
    ".lora_A.weight",
    ".lora_B.weight",
    "lora.down.",
    "lora.up.",
    ".lora_linear_layer.",
)
READS = (
    "LoRA of a pipeline's parts in all of its namings, today's and before, ComfyUI's and Black "
    "Forest Labs' files; alpha from tensors, from the file's metadata, or r; DoRA by its BA part"
)
REFERENCE = "files of `diffusers`, older namings by renaming; what its models apply"
TESTS = ("tests/test_diffusers_adapters.py",)

_METADATA = "lora_adapter_metadata"
_PART = re.compile(rf"({'|'.join(PIPELINE)})(_[0-9]+)?\.")
_SLOTS = {
    ".lora_A.weight": "A",
    ".lora_B.weight": "B",
    ".lora_linear_layer.down.weight": "A",
    ".lora_linear_layer.up.weight": "B",
    ".lora.down.weight": "A",
    ".lora.up.weight": "B",
    "_lora.down.weight": "A",
    "_lora.up.weight": "B",
    ".lora_magnitude_vector": "magnitude",
    ".lora_magnitude_vector.weight": "magnitude",
    ".dora_scale": "magnitude",
    ".lora_B.bias": "bias",
    ".alpha": "alpha",
}
_NEW = (".lora_A.weight", ".lora_B.weight")
_NAMED = re.compile(r"(?P<end>\.lora_[AB])\.(?P<adapter>[^.]+)(?P<leaf>\.(?:weight|bias))\Z")
# Rows of blocks that models of images and videos have: a file of theirs needs no part in front.
_ROWS = re.compile(
    r"(?:base_model\.model\.)?(?:(?:single_|double_|joint_|down_|up_)?blocks"
    r"|(?:single_)?transformer_blocks|mid_block|noise_refiner|context_refiner)\."
)
_FLUX = re.compile(r"(?:base_model\.model\.)?(?:single|double)_blocks\.[0-9]+\.")
_DIFFS = {
    ".diff": SetAsideReason.FULL_UPDATE,
    ".diff_b": SetAsideReason.BIAS_UPDATE,
}
_WORDS = "bundle_emb."
COMFY = "diffusion_model."
"""ComfyUI's name of the whole model, which is no part of the model's own paths."""
_FACTOR = re.compile(
    "|".join(
        [rf"{re.escape(end)}\Z" for end, slot in _SLOTS.items() if slot in "AB"]
        + [r"\.lora_[AB]\.[^.]+\.weight\Z"]
    )
)
_ATTENTION: tuple[Role, ...] = ("query", "key", "value", "output")
_OF_TEXT = {
    words_of(NAMINGS["diffusers"], role)[0]: words_of(NAMINGS["bart"], role)[0]
    for role in _ATTENTION
}
_REASONS = {
    "magnitude": SetAsideReason.MAGNITUDE,
    "bias": SetAsideReason.UPDATE_BIAS,
}
_NO_ALPHA = "no alpha is stored; r is taken, as diffusers does, so the scale is 1"


def matches(source: AdapterSource) -> str | None:
    """Say why these are diffusers': the file's metadata, else the tensors' names."""
    if source.config is not None and "peft_type" in source.config:
        return None
    example = [name for name in source.tensors if _FACTOR.search(name)]
    if not example:
        return None
    if _METADATA in source.tensors.metadata:
        return f"the file's metadata has {_METADATA}"
    old = next((n for n in example if not n.endswith(_NEW) and not _NAMED.search(n)), None)
    if old is not None:
        return f"tensor {old!r} is named as diffusers named a factor"
    # PEFT's own files have neither.
    part = next((name for name in example if _PART.match(name) or _is_whole(name)), None)
    if part is not None:
        return f"tensor {part!r} begins with a pipeline's part"
    own = next((name for name in example if _FLUX.match(name)), None)
    if own is not None:
        return f"tensor {own!r} is of Flux's own blocks"
    live = next((name for name in example if _ROWS.match(name) and _NAMED.search(name)), None)
    if live is not None:
        return f"tensor {live!r} is of a live model of blocks"
    alphas = ((name, f"{name.removesuffix(_NEW[0])}.alpha") for name in example)
    beside = next((both for both in alphas if both[1] in source.tensors), None)
    return None if beside is None else f"tensor {beside[1]!r} is an alpha beside {beside[0]!r}"


def read(source: AdapterSource) -> Adapter:
    """Make an `Adapter` of a file of diffusers, from headers and alphas alone.

    Raises
    ------
    FormatError
        A factor without its partner, shapes that do not multiply, metadata that makes no sense, or
        an alpha that is no number.
    """
    modules: dict[str, dict[str, str]] = {}
    aside = {name: SetAsideReason.NORM for name in source.tensors if _is_norm(name)}
    aside |= {
        name: _DIFFS[f".{name.rpartition('.')[2]}"]
        for name in source.tensors
        if name.endswith(tuple(_DIFFS))
    }
    aside |= {
        name: SetAsideReason.LEARNED_WORD for name in source.tensors if name.startswith(_WORDS)
    }
    copies: list[str] = []
    grouped = group_by_module(source, _parse, copies)
    aside |= dict.fromkeys(copies, SetAsideReason.COPY)
    for module, slots in grouped.items():
        aside |= {name: _REASONS[slot] for slot, name in slots.items() if slot in _REASONS}
        factors = {slot: name for slot, name in slots.items() if slot in "AB"}
        if factors:
            require_factors(source, module, factors, "A", "B")
            modules[module] = slots
    pairs = {module: read_pair(source, slots["A"], slots["B"]) for module, slots in modules.items()}
    ranks = {module: pair.rank for module, pair in pairs.items()}
    scales, configs, notes = _scales(source, modules, ranks)
    planned = [
        UpdateSpec(
            module=module,
            shape=pair.shape,
            rank=pair.rank,
            scale=scales[module],
            tensors=pair.tensors,
            factors=pair.factors,
            kind=pair.kind,
            numbers=tuple(n for slot, n in modules[module].items() if slot == "alpha"),
            kernel=pair.kernel,
            magnitude=modules[module].get("magnitude", ""),
        )
        for module, pair in pairs.items()
    ]
    if any(_is_doubled(name) for name in source.tensors):
        notes.append("unet.unet. and its like are read as one part, which the file names twice")
    dora = SetAsideReason.MAGNITUDE in aside.values() or any(c.dora for c in configs)
    rslora = any(config.rslora for config in configs)
    base = next((config.base_model for config in configs if config.base_model), None)
    return build_adapter(
        source,
        planned,
        format=NAME,
        method=Method.of_lora(rslora=rslora, dora=dora),
        set_aside=aside,
        notes=notes,
        prefix=COMFY if any(name.startswith(COMFY) for name in source.tensors) else "",
        base_model=base,
    )


def _parse(name: str) -> tuple[str, str] | None:
    """Take a tensor's name apart, into the module's path of today.

    >>> _parse("unet.mid_block.attn1.processor.to_out_lora.down.weight")
    ('unet.mid_block.attn1.to_out.0', 'A')
    >>> _parse("mid_block.attn1.processor.to_q_lora.up.weight")
    ('unet.mid_block.attn1.to_q', 'B')
    >>> _parse("text_encoder.layers.0.self_attn.to_v_lora.up.weight")
    ('text_encoder.layers.0.self_attn.v_proj', 'B')
    >>> _parse("transformer.blocks.0.attn.to_k.lora_A.weight")
    ('transformer.blocks.0.attn.to_k', 'A')
    """
    name = _NAMED.sub(r"\g<end>\g<leaf>", name)
    end = next((end for end in _SLOTS if name.endswith(end)), None)
    if end is None:
        return None
    path = name.removesuffix(end).removeprefix(COMFY).removeprefix("base_model.model.")
    parts = path.split(".")
    if _is_doubled(path):
        del parts[0]
    if end == ".alpha" and parts[-1] in {"lora", "lora_linear_layer"}:
        parts = parts[:-1]
    joined = end.startswith("_lora") or (end == ".alpha" and parts[-1].endswith("_lora"))
    processor = "processor" in parts
    parts = [part for part in parts if part != "processor"]
    if not parts or not path:
        return None
    if joined:
        parts[-1] = parts[-1].removesuffix("_lora")
    if (joined or processor) and parts[-1] == "to_out":
        parts.append("0")
    if joined and parts[0].startswith("text_encoder"):
        parts = [*parts[:-2], "out_proj"] if parts[-2:] == ["to_out", "0"] else parts
        parts[-1] = _OF_TEXT.get(parts[-1], parts[-1])
    if processor and not _PART.match(path):
        parts.insert(0, "unet")  # save_attn_procs, the only writer of it, was the UNet's
    return ".".join(parts), _SLOTS[end]


def _is_whole(name: str) -> bool:
    return name.startswith((COMFY, "text_encoders."))


def _is_doubled(name: str) -> bool:
    """Say whether a name has its pipeline's part twice (huggingface/diffusers#5991)."""
    first, second, *_ = f"{name}..".split(".")
    return first == second and first in PIPELINE


def _is_norm(name: str) -> bool:
    module, _, leaf = name.rpartition(".")
    return leaf in {"weight", "bias", "scale"} and "norm" in module.rpartition(".")[2]


def _scales(
    source: AdapterSource, modules: Mapping[str, Mapping[str, str]], ranks: Mapping[str, int]
) -> tuple[dict[str, float], list[LoraConfig], list[str]]:
    """Return each module's scale, the configs of the parts that have one, and notes."""
    parts: dict[str, list[str]] = defaultdict(list)
    for module in modules:
        match = _PART.match(module)
        parts[match.group()[:-1] if match else ""].append(module)
    text = source.tensors.metadata.get(_METADATA)
    where = f"{source.weights}: {_METADATA}"
    stored = parse_json_object(text.encode(), where) if text is not None else {}
    scales: dict[str, float] = {}
    configs: list[LoraConfig] = []
    notes: list[str] = []
    for part, names in parts.items():
        fields = _of_part(stored, part, alone=len(parts) == 1)
        alphas = {name: modules[name]["alpha"] for name in names if "alpha" in modules[name]}
        if fields:
            if fields.get("peft_type", "LORA") != "LORA":
                raise FormatError(
                    f"{where}: peft_type {short(fields['peft_type'])} beside factors of LORA"
                )
            config = read_config({**fields, "peft_type": "LORA"}, where)
            found_alphas, _, unsure = apply_patterns(
                {name: name.removeprefix(f"{part}.") for name in names}, config
            )
            configs.append(config)
            notes += [*config.notes, *unsure]
            for name in names:
                r = math.sqrt(ranks[name]) if config.rslora else ranks[name]
                scales[name] = found_alphas[name] / r
            own = {name: read_number(source, t) / ranks[name] for name, t in alphas.items()}
            differ = [n for n, scale in own.items() if not math.isclose(scale, scales[n])]
            if differ:
                notes.append(
                    f"{some(differ)}: alpha is stored in tensors and in the file's metadata, and "
                    f"differs ({own[differ[0]]:g} and {scales[differ[0]]:g} is the scale of the "
                    "first); the tensors' is taken, as ComfyUI and diffusers do"
                )
            scales |= own
        else:
            found_scales, more = _from_tensors(source, names, alphas, ranks)
            scales |= found_scales
            notes += more
    return scales, configs, notes


def _of_part(stored: Mapping[str, Any], part: str, *, alone: bool) -> dict[str, Any]:
    prefix = f"{part}."
    own = {key.removeprefix(prefix): v for key, v in stored.items() if key.startswith(prefix)}
    # A model that saves itself (save_lora_adapter) puts no part before a name or a field.
    return own or (dict(stored) if alone and "lora_alpha" in stored else {})


def _from_tensors(
    source: AdapterSource, names: Iterable[str], alphas: Mapping[str, str], ranks: Mapping[str, int]
) -> tuple[dict[str, float], list[str]]:
    """Give the modules of one part their scale where it has no config."""
    values = {name: read_number(source, tensor) for name, tensor in alphas.items()}
    without = [name for name in names if name not in values]
    notes = []
    rest: float | None = source.alpha
    if values and without and not any(_PART.match(name) for name in names):
        # ComfyUI's lora.py, and diffusers' conversions of such files.
        rest = None
        notes.append(f"{some(without)}: no alpha is stored, so the scale is 1, as ComfyUI has it")
    elif values and without:
        # get_peft_kwargs: the config's own alpha is the most frequent one.
        rest = Counter(values.values()).most_common()[0][0]
        notes.append(
            f"{some(without)}: no alpha is stored; that of most modules, {rest:g}, is taken"
        )
    elif without and rest is None:
        notes.append(f"{some(without)}: {_NO_ALPHA}")
    zero = [name for name, alpha in values.items() if alpha == 0]
    if zero:
        notes.append(f"{some(zero)}: alpha is 0, so diffusers applies no update")
    scales = {name: alpha / ranks[name] for name, alpha in values.items()}
    return scales | {n: 1.0 if rest is None else rest / ranks[n] for n in without}, notes
