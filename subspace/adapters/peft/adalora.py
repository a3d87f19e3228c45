"""PEFT's AdaLoRA: ``B @ diag(E) @ A`` with the ranks kept, scaled by the rank at the start.

Layout as peft 0.21.2 writes it, ``tuners/adalora/``: ``<path>.lora_A`` (r, d_in), ``<path>.lora_B``
(d_out, r) and ``<path>.lora_E`` (r, 1), cut to what ``rank_pattern`` keeps. The scale is
``lora_alpha / (init_r + 1e-5)``: cutting leaves it as it was, and rsLoRA and alpha patterns are not
looked at. An alpha that is not positive counts as the rank. Files of older versions store the
divisor as ``<path>.ranknum``. The method: arXiv:2303.10512.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from subspace.adapters.build import UpdateSpec, build_adapter
from subspace.adapters.layout import Layout
from subspace.adapters.method import Method
from subspace.adapters.peft.config import read_config, read_rank
from subspace.adapters.peft.methods import (
    PREFIX,
    group_modules,
    match_method,
    require_config,
    set_rest_aside,
)
from subspace.adapters.set_aside import SetAsideReason
from subspace.adapters.source import read_factor_shape, read_number, require_factors, some
from subspace.errors import FormatError
from subspace.tensorfiles import short

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from subspace.adapters.adapter import Adapter
    from subspace.adapters.build import Factors
    from subspace.adapters.source import AdapterSource

NAME = "PEFT AdaLoRA"
EXPECTS = "NAME.lora_A, NAME.lora_B and NAME.lora_E, adapter_config.json beside"
TENSOR_SUFFIXES = (".lora_E", ".ranknum")
READS = "with the ranks that were kept and the scale of the rank at the start"
REFERENCE = "files and merge of `peft`"
TESTS = ("tests/test_peft_adalora_adapters.py",)
_FACTORS = ("lora_A", "lora_B", "lora_E")
_SLOTS = frozenset({*_FACTORS, "ranknum"})
_FIELDS = frozenset({
    "target_r", "init_r", "tinit", "tfinal", "deltaT", "beta1", "beta2", "orth_reg_weight",
    "total_step",
})  # fmt: skip
_TINY = 1e-5


def matches(source: AdapterSource) -> str | None:
    """Say why these are PEFT's AdaLoRA: the config's ``peft_type``, else names of tensors."""
    return match_method(source, {"ADALORA"}, {"lora_E", "ranknum"})


def read(source: AdapterSource) -> Adapter:
    """Make an `Adapter` of a PEFT folder with AdaLoRA, from headers alone.

    Raises
    ------
    MissingFileError
        There is no config, which holds alpha.
    FormatError
        A factor without its partner, shapes that do not fit, a config that makes no sense.
    """
    config = require_config(source, why="lora_alpha and so the scale")
    patterns = config.get("rank_pattern") or {}
    plain = {**config, "rank_pattern": {}, "alpha_pattern": {}}
    lora = read_config(plain, source.where, also=_FIELDS)
    started = read_rank(config.get("init_r", 12), "init_r", source.where)
    kept = _read_kept(patterns, source.where)
    planned, cut = [], []
    aside: dict[str, SetAsideReason] = {}
    modules = group_modules(source, _SLOTS)
    for module, slots in modules.slots.items():
        require_factors(source, module, slots, *_FACTORS)
        if 0 in source.tensors.headers[slots["lora_E"]].shape:
            cut.append(module)
            aside |= dict.fromkeys(slots.values(), SetAsideReason.NO_RANK_LEFT)
            continue
        (rank, d_in), (d_out, width), column = (
            read_factor_shape(source, slots[slot]) for slot in _FACTORS
        )
        if width != rank or column != (rank, 1):
            raise FormatError(
                f"{source.text(slots['lora_A'])}, {slots['lora_B']!r} {(d_out, width)} and "
                f"{slots['lora_E']!r} {column} do not multiply"
            )
        _check(source, slots["lora_A"], rank, kept.get(modules.targets[module]), started)
        numbers = [slots["ranknum"]] if "ranknum" in slots else []
        divisor = read_number(source, numbers[0]) if numbers else float(started)
        if divisor <= 0:
            raise FormatError(f"{source.text(numbers[0])} holds {divisor}, no rank")
        alpha = lora.alpha if lora.alpha > 0 else float(rank)
        planned.append(
            UpdateSpec(
                module=module,
                shape=(d_out, d_in),
                rank=rank,
                scale=alpha / (divisor + _TINY),
                tensors=tuple(slots[slot] for slot in _FACTORS),
                factors=_factors(slots),
                numbers=tuple(numbers),
                multiplied=2,
            )
        )
    notes = list(lora.notes)
    if cut:
        notes.append(f"{some(cut)}: AdaLoRA left no rank")
    if lora.rslora or config.get("alpha_pattern"):
        notes.append("use_rslora and alpha_pattern are in the config; AdaLoRA does not use them")
    used = {name for update in planned for name in (*update.tensors, *update.numbers)} | set(aside)
    return build_adapter(
        source,
        planned,
        format=NAME,
        method=Method.ADALORA,
        set_aside={**set_rest_aside(source, lora, used), **modules.others, **aside},
        notes=notes,
        base_model=lora.base_model,
        layout=Layout(config=MappingProxyType(dict(config))),
    )


def _read_kept(patterns: object, where: str) -> dict[str, tuple[int, int]]:
    """Read which ranks were kept: module -> how many, and of how many."""
    ranks = {}
    if not isinstance(patterns, dict):
        raise FormatError(f"{where}: rank_pattern = {short(patterns)} is no mapping")
    for name, mask in patterns.items():
        if not isinstance(mask, list) or not all(isinstance(kept, bool) for kept in mask):
            raise FormatError(
                f"{where}: rank_pattern[{short(name)}] = {short(mask)} is no list of true and false"
            )
        module = name.removeprefix(PREFIX).partition(".lora_E")[0]
        ranks[module] = (sum(mask), len(mask))
    return ranks


def _check(
    source: AdapterSource, name: str, rank: int, kept: tuple[int, int] | None, started: int
) -> None:
    """Refuse a rank that the config tells nothing of: its scale would be a guess."""
    if kept is not None and kept[1] != started:
        raise FormatError(
            f"{source.where}: init_r = {started}, but rank_pattern lists {kept[1]} ranks for "
            f"{name!r}: which of them the scale is divided by is unknown"
        )
    allowed = {started, kept[0]} if kept is not None else {started}
    if rank not in allowed:
        listed = "no rank_pattern for it" if kept is None else f"a rank_pattern of {kept[0]}"
        raise FormatError(
            f"{source.text(name)} has rank {rank}; the config has init_r = {started} and {listed}"
        )


def _factors(slots: Mapping[str, str]) -> Factors:
    a, b, e = (slots[slot] for slot in _FACTORS)

    def factors(tensors: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        return tensors[b].double(), tensors[a].double() * tensors[e].double()

    return factors
