"""PEFT's VeRA: two frozen random projections shared by all layers, scaled by each layer's vectors.

Layout as peft 0.21.2 writes it, ``tuners/vera/``: ``<path>.vera_lambda_b`` (d_out,) and
``<path>.vera_lambda_d`` (r,); ``base_model.vera_A`` (r, widest d_in) and ``base_model.vera_B``
(widest d_out, r) if ``save_projection``. A layer uses the first d_in columns and d_out rows:
``(lambda_b * vera_B[:d_out]) @ (lambda_d * vera_A[:, :d_in])``; there is no alpha. The method:
arXiv:2310.11454.

A layer's d_in is not stored: see `peft_vera_widths`. Projections that were not saved are drawn
again (`peft_vera_drawn`) where every layer's d_in follows from the others, and so their shape.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from subspace.adapters.build import UpdateSpec, build_adapter
from subspace.adapters.layout import Layout
from subspace.adapters.method import Method
from subspace.adapters.peft.config import read_config
from subspace.adapters.peft.methods import (
    group_modules,
    match_method,
    require_config,
    set_rest_aside,
    split_name,
)
from subspace.adapters.peft.vera.draw import NOTE, draw_projections, require_seed
from subspace.adapters.peft.vera.widths import infer_widths
from subspace.adapters.set_aside import SetAsideReason
from subspace.adapters.source import read_factor_shape, require_factors, some
from subspace.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch

    from subspace.adapters.adapter import Adapter
    from subspace.adapters.build import Factors
    from subspace.adapters.source import AdapterSource

    _Both = Callable[[Mapping[str, torch.Tensor]], tuple[torch.Tensor, torch.Tensor]]

NAME = "PEFT VeRA"
EXPECTS = "NAME.vera_lambda_b and NAME.vera_lambda_d, base_model.vera_A and base_model.vera_B"
TENSOR_SUFFIXES = (".vera_lambda_", ".vera_A", ".vera_B")
READS = (
    "with its saved projections or those of its seed, where each layer's d_in follows from names "
    "and other layers"
)
REFERENCE = "files and merge of `peft`"
TESTS = ("tests/test_peft_vera_adapters.py",)
_LAMBDAS = ("vera_lambda_b", "vera_lambda_d")
_PROJECTIONS = ("vera_A", "vera_B")
_FIELDS = frozenset({
    "projection_prng_key", "save_projection", "vera_dropout", "d_initial", "init_weights",
})  # fmt: skip
_CONVERT = "load it in PEFT and write it as LoRA, which is exact: peft.save_as_lora(FOLDER, model, "


def matches(source: AdapterSource) -> str | None:
    """Say why these are PEFT's VeRA: the config's ``peft_type``, else names of tensors."""
    return match_method(source, {"VERA"}, _LAMBDAS)


def read(source: AdapterSource) -> Adapter:
    """Make an `Adapter` of a PEFT folder with VeRA, from headers alone.

    Raises
    ------
    MissingFileError
        There is no config.
    FormatError
        A layer whose d_in is unknown, a vector without its partner, shapes that do not fit, one of
        the two projections alone.
    """
    config = require_config(source, why="what was trained")
    lora = read_config(config, source.where, alpha=None, also=_FIELDS)
    modules = group_modules(source, _LAMBDAS)
    projections, shared = _find_shared(source)
    if projections:
        rank, columns = read_factor_shape(source, projections["vera_A"])
        rows, width = read_factor_shape(source, projections["vera_B"])
        if width != rank:
            raise FormatError(
                f"{source.text(projections['vera_A'])} and {source.text(projections['vera_B'])} "
                f"have different ranks, {rank} and {width}"
            )
        d_ins, both = _find_widths(source, modules.slots, columns), _find_stored(projections)
    else:
        d_ins = _find_widths(source, modules.slots, None)
        rank, columns, rows = _drawn_shape(source, modules.slots, d_ins)
        seed = require_seed(config, source, (rank, columns, rows))

        def both(_: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
            return draw_projections(seed, rank, columns, rows)

    planned = []
    for module, d_in in d_ins.items():
        slots = modules.slots[module]
        (d_out,), (given,) = (read_factor_shape(source, slots[slot], (1,)) for slot in _LAMBDAS)
        if given != rank or d_out > rows:
            raise FormatError(
                f"{source.text(slots['vera_lambda_b'])} and {slots['vera_lambda_d']!r} ({given},) "
                f"do not fit the projections, {rank} x {columns} and {rows} x {rank}"
            )
        tensors = (*(slots[slot] for slot in _LAMBDAS), *projections.values())
        factors = _factors(slots, both, d_in)
        planned.append(
            UpdateSpec(
                module=module,
                shape=(d_out, d_in),
                rank=rank,
                scale=1.0,
                tensors=tensors,
                factors=factors,
                multiplied=2,
            )
        )
    notes = [
        *lora.notes,
        "VeRA's projections are random and frozen: adapters of one projection_prng_key share their "
        "directions before any training",
        "a layer's d_in is not stored; it is taken from the layers' names and the others' d_out",
        *([] if projections else [NOTE]),
    ]
    used = {name for update in planned for name in update.tensors} | set(shared)
    return build_adapter(
        source,
        planned,
        format=NAME,
        method=Method.VERA,
        set_aside={**set_rest_aside(source, lora, used), **modules.others, **shared},
        notes=notes,
        base_model=lora.base_model,
        layout=Layout(config=MappingProxyType(dict(config))),
    )


def _find_shared(source: AdapterSource) -> tuple[dict[str, str], dict[str, SetAsideReason]]:
    """Find the two projections, or neither; the copies that a live state dict holds are aside.

    Raises
    ------
    FormatError
        One of them is missing.
    """
    shared: dict[str, str] = {}
    aside: dict[str, SetAsideReason] = {}
    for name in source.tensors:
        key = split_name(name, _PROJECTIONS)
        if key is None:
            continue
        if key.module or key.slot in shared:
            aside[name] = SetAsideReason.PROJECTION_COPY
        else:
            shared[key.slot] = name
    missing = [slot for slot in _PROJECTIONS if slot not in shared]
    if shared and missing:
        raise FormatError(
            f"{source.weights}: of VeRA's two projections {missing[0]} is not in it; the file is "
            "incomplete"
        )
    return {slot: shared[slot] for slot in _PROJECTIONS if shared}, aside


def _find_widths(
    source: AdapterSource, modules: Mapping[str, Mapping[str, str]], widest: int | None
) -> dict[str, int]:
    """Give each module's d_in.

    Raises
    ------
    FormatError
        A vector without its partner, or a layer whose d_in does not follow.
    """
    d_outs = {}
    for module, slots in modules.items():
        require_factors(source, module, slots, *_LAMBDAS)
        (d_outs[module],) = read_factor_shape(source, slots["vera_lambda_b"], (1,))
    widths = infer_widths(d_outs, widest)
    unknown = [module for module in modules if module not in widths]
    if unknown:
        raise FormatError(
            f"{source.weights}: VeRA does not store a layer's d_in, and that of {some(unknown)} "
            f"does not follow from the others; {_CONVERT}rank={_read_rank(source, modules)})"
        )
    return widths


def _read_rank(source: AdapterSource, modules: Mapping[str, Mapping[str, str]]) -> int:
    return max(
        read_factor_shape(source, slots["vera_lambda_d"], (1,))[0] for slots in modules.values()
    )


def _drawn_shape(
    source: AdapterSource, modules: Mapping[str, Mapping[str, str]], d_ins: Mapping[str, int]
) -> tuple[int, int, int]:
    """Return r, the widest d_in and the widest d_out of what is adapted."""
    d_outs = (
        read_factor_shape(source, slots["vera_lambda_b"], (1,))[0] for slots in modules.values()
    )
    return _read_rank(source, modules), max(d_ins.values()), max(d_outs)


def _find_stored(projections: Mapping[str, str]) -> _Both:
    return lambda tensors: (
        tensors[projections["vera_A"]].double(),
        tensors[projections["vera_B"]].double(),
    )


def _factors(slots: Mapping[str, str], both: _Both, d_in: int) -> Factors:
    def factors(tensors: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        b, d = (tensors[slots[slot]].double() for slot in _LAMBDAS)
        A, B = both(tensors)
        return b[:, None] * B[: len(b)].double(), d[:, None] * A[:, :d_in].double()

    return factors
