"""PEFT's LoRA: from tensor names, shapes and config to modules, factors and scales.

Layout as peft 0.21.2 writes it: ``base_model.model.<path>.lora_A.weight`` (r, d_in) and
``.lora_B.weight`` (d_out, r); a live state dict has the adapter's name before ``weight``. The
scale is ``lora_alpha / r``, or ``lora_alpha / sqrt(r)`` with ``use_rslora`` (arXiv:2312.03732).
``fan_in_fan_out`` says how the base weight is stored, not what the update maps: B @ A is y = B A x
either way. Experts' parameters (``target_parameters``) are `peft_experts`'.
"""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from subspace.adapters.build import UpdateSpec, build_adapter
from subspace.adapters.find import CONFIG
from subspace.adapters.formats.diffusers import COMFY
from subspace.adapters.layout import Layout
from subspace.adapters.method import Method
from subspace.adapters.peft.config import LoraConfig, read_config
from subspace.adapters.peft.experts import specify_parameters, specify_stacked
from subspace.adapters.peft.keys import Key, Pair, pair_factors, parse_name, set_aside
from subspace.adapters.peft.layers import name_base_layers
from subspace.adapters.peft.merged import specify_merged
from subspace.adapters.peft.methods import choose_adapter, require_config
from subspace.adapters.peft.patterns import apply_patterns
from subspace.adapters.peft.refused import check_peft_type
from subspace.adapters.set_aside import SetAside, SetAsideReason
from subspace.adapters.source import some
from subspace.errors import FormatError
from subspace.tensorfiles import open_tensors

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import torch

    from subspace.adapters.adapter import Adapter
    from subspace.adapters.build import Factors
    from subspace.adapters.source import AdapterSource
    from subspace.tensorfiles import TensorFile

NAME = "PEFT"
EXPECTS = (
    "NAME.lora_A.weight (r, d_in) and NAME.lora_B.weight (d_out, r), adapter_config.json beside"
)
TENSOR_SUFFIXES = (".lora_A", ".lora_B", ".lora_embedding_A", ".lora_embedding_B")
READS = (
    "LoRA with rsLoRA, rank and alpha patterns, `fan_in_fan_out`, embeddings, convolutions of 1 "
    "to 3 dimensions, experts (`target_parameters`, Tinker's stacks), `enable_lora` of 0.1 and "
    "0.2, named and sharded adapters, by the rules of the release that wrote the config; DoRA by "
    "its BA part; heads, biases, trained tokens set aside"
)
REFERENCE = "files and merge of `peft`"
TESTS = (
    "tests/test_peft_adapters.py",
    "tests/test_peft_experts_adapters.py",
    "tests/test_peft_base_adapters.py",
    "tests/test_dora.py",
)
_KINDS = {2: "linear", 3: "conv1d", 4: "conv2d", 5: "conv3d"}


def matches(source: AdapterSource) -> str | None:
    """Say why these are PEFT's: the config's ``peft_type``, else the tensors' names.

    Raises
    ------
    FormatError
        A ``peft_type`` that is not read: said before the weights are opened.
    """
    if source.config is not None and "peft_type" in source.config:
        check_peft_type(source.config, source.where)
        lora = source.config["peft_type"] == "LORA"
        return f"{source.where} has peft_type LORA" if lora else None
    factors = {"A", "B", "embedding_A", "embedding_B"}
    example = next((name for name in source.tensors if parse_name(name).slot in factors), None)
    return None if example is None else f"tensor {example!r} is named as PEFT names a factor"


def read(source: AdapterSource) -> Adapter:
    """Make an `Adapter` of a PEFT folder, from headers alone.

    Raises
    ------
    MissingFileError
        There is no config, which holds alpha, and the user gave none.
    FormatError
        A factor without its partner, shapes that do not fit, a config that makes no sense.
    """
    asked = source.alpha if source.config is None or _is_zero(source.config) else None
    config = dict(_check_config(source) if source.config is not None or asked is None else {})
    if asked is not None:
        config |= {"peft_type": "LORA", "lora_alpha": asked}
    elif _is_zero(config):
        raise FormatError(
            f"{source.where}: lora_alpha is 0, so that PEFT applies nothing of what was trained, "
            "and with what alpha that was is not stored (verl's merged checkpoints are so): give "
            "it with load(…, alpha=16) or --alpha 16, or mend the config"
        )
    lora = read_config(config, source.where)
    tensors = source.tensors
    keys = [parse_name(name) for name in tensors]
    chosen = choose_adapter(source, (key.adapter for key in keys))
    mine = [key for key in keys if key.adapter in (None, chosen)]
    others = [key for key in keys if key.adapter not in (None, chosen)]
    if source.config is None:
        _refuse_stacks(source, mine)
    experts, stacks, expert_aside, expert_notes = specify_parameters(source, mine, lora)
    stacked, empty = specify_stacked(source, mine, lora)
    merged = specify_merged(source, mine, lora, config.get("enable_lora"))
    experts = [*experts, *stacked, *merged]
    expert_aside |= empty
    taken = {name for update in experts for name in update.tensors} | set(expert_aside)
    pairs, rest = pair_factors((key for key in mine if key.name not in taken), lora, tensors)
    magnitudes = {key.module: key.name for key in rest if key.slot == "magnitude"}
    linear, notes = _planned(source, pairs, lora, magnitudes)
    if asked is not None and source.config is not None:
        notes.append(
            f"{source.where}: lora_alpha is 0; the alpha {asked:g} that was given is taken instead"
        )
    elif asked is not None:
        notes.append(
            f"no {CONFIG} beside: the scale is alpha / r with the alpha {asked:g} that was given, "
            "for every module; it would be another with rsLoRA or an alpha_pattern"
        )
    planned, layer_notes, sources = name_base_layers(source, [*linear, *experts], config)
    _check_initial(source, planned)
    dora = lora.dora or bool(magnitudes)
    aside: dict[str, SetAsideReason | SetAside] = {
        **{key.name: set_aside(key, lora, tensors) for key in rest},
        **expert_aside,
        **{key.name: _of_another(key, tensors) for key in others},
    }
    return build_adapter(
        source,
        planned,
        format=NAME,
        method=Method.of_lora(rslora=lora.rslora, dora=dora),
        set_aside=aside,
        notes=(*lora.notes, *notes, *expert_notes, *layer_notes),
        prefix=_find_prefix(key.name for key in mine if key.slot in {"A", "B"}),
        base_model=lora.base_model,
        sources=sources,
        layout=Layout(
            stored_transposed=lora.fan_in_fan_out,
            config=MappingProxyType(config if source.config is not None else {}),
            asked_alpha=asked,
            base_changed=lora.base_changed,
            stacks=MappingProxyType(stacks),
        ),
    )


def _is_zero(config: Mapping[str, Any]) -> bool:
    """Say whether a config's scale is 0 for every module."""
    alpha = config.get("lora_alpha")
    return type(alpha) in (int, float) and alpha == 0 and not config.get("alpha_pattern")


def _find_prefix(factors: Iterable[str]) -> str:
    """Return all up to ComfyUI's name of the whole model, where it stands before every path."""
    fronts = {name[: name.find(COMFY) + len(COMFY)] if COMFY in name else "" for name in factors}
    return fronts.pop() if len(fronts) == 1 else ""


def _check_config(source: AdapterSource) -> Mapping[str, Any]:
    return require_config(
        source,
        why="lora_alpha and so the scale",
        or_else="give the alpha with load(…, alpha=16) or --alpha 16",
    )


def _refuse_stacks(source: AdapterSource, keys: Iterable[Key]) -> None:
    """Refuse factors of experts, which only a config tells from a layer's of a larger rank."""
    factors = [key for key in keys if key.slot in {"A", "B"}]
    stacks = [k.name for k in factors if k.module.endswith("experts") or ".base_layer." in k.name]
    if stacks:
        raise FormatError(
            f"{source.weights}: {some(stacks)}: by the name factors of experts, whose number only "
            f"{CONFIG} tells (target_parameters, r); copy it from where the weights came from"
        )


def _of_another(key: Key, tensors: TensorFile) -> SetAside:
    return SetAside.of(
        key.name,
        tensors.headers[key.name],
        SetAsideReason.OTHER_ADAPTER,
        detail=f", {key.adapter!r}",
        module=key.module,
    )


def _planned(
    source: AdapterSource,
    pairs: Mapping[str, Pair],
    lora: LoraConfig,
    magnitudes: Mapping[str, str],
) -> tuple[list[UpdateSpec], list[str]]:
    """Plan an update for each pair of factors; what is odd about them becomes a note."""
    targets = {module: pair.target for module, pair in pairs.items()}
    alphas, ranks, notes = apply_patterns(targets, lora)
    planned = [
        _update(source.tensors, module, pair, alphas[module], lora, magnitudes.get(module, ""))
        for module, pair in pairs.items()
    ]
    disagree = [
        f"{update.module} ({ranks[update.module][0]}, stored {update.rank})"
        for update in planned
        if update.rank not in ranks[update.module] and ranks[update.module] != [None]
    ]
    if disagree:
        notes.append(
            "the config's rank is not that of the tensors, whose rank the scale uses: "
            + some(disagree)
        )
    grouped = [module for module, pair in pairs.items() if pair.groups > 1]
    if grouped:
        notes.append(
            f"{some(grouped)}: a convolution in groups, of which PEFT's A reads all inputs, so "
            "the update is wider than the base weight"
        )
    return planned, notes


def _update(
    tensors: TensorFile, module: str, pair: Pair, alpha: float, lora: LoraConfig, magnitude: str
) -> UpdateSpec:
    a, b = tensors.headers[pair.a].shape, tensors.headers[pair.b].shape
    return UpdateSpec(
        module=module,
        shape=(b[0], math.prod(a[1:])),
        rank=a[0],
        scale=alpha / math.sqrt(a[0]) if lora.rslora else alpha / a[0],
        tensors=(pair.a, pair.b, *([pair.diagonal] if pair.diagonal is not None else [])),
        factors=_factors(pair),
        kind="embedding" if pair.embedding else _KINDS[len(a)],
        kernel=a[2:],
        groups=pair.groups,
        magnitude=magnitude,
    )


def _factors(pair: Pair) -> Factors:
    def factors(tensors: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        a, b = tensors[pair.a], tensors[pair.b]
        a = a.reshape(a.shape[0], -1)  # (r, d_in); a view of what the file holds
        b = b.reshape(b.shape[0], -1)  # (d_out, r / groups)
        if pair.groups > 1:
            b = _ungroup(b, pair.groups)
        if pair.diagonal is not None:  # KaSA, arXiv:2412.06071: B diag(d) A
            b = b * tensors[pair.diagonal].to(b.dtype)
        return b, a

    return factors


def _ungroup(b: torch.Tensor, groups: int) -> torch.Tensor:
    """Lay out B of a grouped convolution, (d_out, r / groups), as block-diagonal (d_out, r)."""
    full = b.new_zeros(b.shape[0], b.shape[1] * groups)
    height, width = b.shape[0] // groups, b.shape[1]
    for group in range(groups):
        rows = slice(group * height, (group + 1) * height)
        full[rows, group * width : (group + 1) * width] = b[rows]
    return full


def _check_initial(source: AdapterSource, planned: Iterable[UpdateSpec]) -> None:
    if source.initial is None:
        return
    initial = open_tensors(source.initial)
    updates = {update.module: update for update in planned}
    for module, header in initial.headers.items():
        update = updates.get(module)
        if update is None:
            raise FormatError(
                f"{initial.path}: tensor {module!r} belongs to no module that is read"
            )
        if header.shape != (update.rank, update.shape[1]):
            raise FormatError(
                f"{initial.path}: tensor {module!r} is {header.shape}, "
                f"A is {(update.rank, update.shape[1])}; it is not of this adapter"
            )
