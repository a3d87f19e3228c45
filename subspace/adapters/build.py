"""From what a format has understood to an `Adapter`; every tensor of the file is accounted for."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from subspace.adapters.adapter import Adapter, LowRankUpdate, UpdateInfo
from subspace.adapters.factors import magnitude
from subspace.adapters.factors.kronecker import Kronecker
from subspace.adapters.layout import Layout
from subspace.adapters.method import Method
from subspace.adapters.set_aside import SetAside, SetAsideReason
from subspace.adapters.source import some
from subspace.errors import FormatError
from subspace.modules.order import model_order
from subspace.tensorfiles import FLOAT8, QUANTISED, open_tensors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import torch

    from subspace.adapters.source import AdapterSource
    from subspace.tensorfiles import TensorFile, TensorHeader

    Factors = Callable[[Mapping[str, torch.Tensor]], tuple[torch.Tensor, torch.Tensor] | Kronecker]


_UNIT_ROUNDOFF = {
    "float64": 2.0**-53,
    "float32": 2.0**-24,
    "float16": 2.0**-11,
    "bfloat16": 2.0**-8,
    **FLOAT8,
}


@dataclass(frozen=True, kw_only=True)
class UpdateSpec:
    """One module's update as the headers tell it, and how its factors are made of tensors.

    Attributes
    ----------
    module
        The base model's path.
    shape
        (d_out, d_in) of the map.
    rank
        Of the factors: the width of B.
    scale
        What B @ A is multiplied by.
    tensors
        Names of all tensors that it is made of.
    factors
        From tensor name -> tensor to B (d_out, r) and A (r, d_in), or to the two blocks of a
        Kronecker product of them.
    kind
        ``"linear"``, ``"embedding"``, ``"conv2d"``, ``"expert"``, ….
    numbers
        Names of tensors that the scale is made of.
    multiplied
        How many stored numbers are multiplied in an entry of B or of A, each of them rounded.
    flat
        Whether this may be a convolution whose kernel lies among the inputs.
    kernel, groups
        Of a convolution: d_in is its inputs times prod(kernel).
    magnitude
        Name of DoRA's magnitude, or none.
    rows
        Puts the rows of B, and of the magnitude, in the base's order.
    """

    module: str
    shape: tuple[int, int]
    rank: int
    scale: float
    tensors: tuple[str, ...]
    factors: Factors = field(repr=False)
    kind: str = "linear"
    numbers: tuple[str, ...] = ()
    multiplied: int = 1
    flat: bool = False
    kernel: tuple[int, ...] = ()
    groups: int = 1
    magnitude: str = ""
    rows: Callable[[torch.Tensor], torch.Tensor] = field(default=lambda rows: rows, repr=False)


def build_adapter(
    source: AdapterSource,
    planned: Iterable[UpdateSpec],
    *,
    format: str,
    method: Method = Method.LORA,
    set_aside: Mapping[str, SetAsideReason | SetAside] | None = None,
    notes: Iterable[str] = (),
    reordered: Iterable[str] = (),
    prefix: str = "",
    sources: Mapping[str, str] | None = None,
    base_model: str | None = None,
    layout: Layout | None = None,
    metadata: Mapping[str, object] | None = None,
) -> Adapter:
    """Make an `Adapter` whose tensors are read when a module is asked for.

    Parameters
    ----------
    source
        The files.
    planned
        Its updates, in any order.
    format
        Its name, as `inspect` shows it.
    method
        What the updates are.
    set_aside
        Of each tensor that is known to be no part of an update, the reason.
    notes
        What a reader of the numbers ought to know.
    reordered
        Modules whose rows are in the writer's own rotary order.
    prefix
        What stands before every path and is no part of it.
    sources
        Of a module that is made on another one of the base's, that one's name.
    base_model
        What the files say that the base is.
    layout
        How the files lay it out, for who writes it again.
    metadata
        What else the files say, for a person.

    Raises
    ------
    FormatError
        Two updates are of one module, or a magnitude that fits neither side of its own.
    """
    updates: dict[str, UpdateSpec] = {}
    for update in sorted(planned, key=lambda update: model_order(update.module)):
        other = updates.setdefault(update.module, update)
        if other is not update:
            raise FormatError(
                f"{source.weights}: {other.tensors[0]!r} and {update.tensors[0]!r} are both of "
                f"module {update.module!r}"
            )
    tensors = source.tensors
    uses = Counter(name for update in updates.values() for name in update.tensors)
    used = {*uses, *(name for update in updates.values() for name in update.numbers)}
    reasons = dict(set_aside or {})
    for update in updates.values():
        if update.magnitude:
            reasons[update.magnitude] = magnitude.set_magnitude_aside(update, source)
    aside = tuple(
        _set_aside(name, header, reasons.get(name))
        for name, header in tensors.headers.items()
        if name not in used
    )

    def read(module: str) -> LowRankUpdate:
        update = updates[module]
        made = update.factors(_can_compute(update, tensors))
        # Whoever puts the rows of B in another order leaves no product of blocks.
        stored, A = made.multiplied() if isinstance(made, Kronecker) else made
        B = update.rows(stored)
        if (B.shape[0], A.shape[1]) != update.shape or not B.shape[1] == len(A) == update.rank:
            raise AssertionError(f"{module}: planned {update}, made {B.shape} @ {A.shape}")
        return LowRankUpdate(
            module,
            A,
            B,
            update.scale,
            source=f"{source.weights} ({some(update.tensors, 4)})",
            rounding=_measure_rounding(update, source),
            magnitude=magnitude.read_magnitude(update, tensors),
            blocks=(made.first, made.second)
            if isinstance(made, Kronecker) and B is stored
            else None,
        )

    return Adapter(
        name=source.name,
        path=source.path,
        format=format,
        method=method,
        updates=MappingProxyType(
            {module: _make_info(update, source, uses) for module, update in updates.items()}
        ),
        base_model=base_model,
        weights=source.weights,
        layout=layout or Layout(),
        metadata=MappingProxyType(dict(metadata or {})),
        set_aside=aside,
        notes=tuple(dict.fromkeys(notes)),
        initial=MappingProxyType(open_tensors(source.initial)) if source.initial else {},
        reordered=frozenset(reordered),
        prefix=prefix,
        sources=MappingProxyType(dict(sources or {})),
        _read=read,
        _read_tensor=tensors.__getitem__,
    )


def _can_compute(update: UpdateSpec, tensors: TensorFile) -> Mapping[str, torch.Tensor]:
    """Give an update's tensors as torch computes with them: float32 holds every float8."""
    if FLOAT8.keys().isdisjoint(tensors.headers[name].dtype for name in update.tensors):
        return tensors
    return {
        name: tensors[name].float() if tensors.headers[name].dtype in FLOAT8 else tensors[name]
        for name in update.tensors
    }


def _set_aside(
    name: str, header: TensorHeader, reason: SetAsideReason | SetAside | None
) -> SetAside:
    if isinstance(reason, SetAside):
        return reason
    return SetAside.of(name, header, reason or SetAsideReason.NOT_UNDERSTOOD)


def _make_info(update: UpdateSpec, source: AdapterSource, uses: Mapping[str, int]) -> UpdateInfo:
    headers = source.tensors.headers
    dtypes = (headers[name].dtype for name in update.tensors)
    # What several modules share, such as VeRA's projections, is of none of them.
    own = [math.prod(headers[name].shape) for name in update.tensors if uses[name] == 1]
    return UpdateInfo(
        name=update.module,
        shape=update.shape,
        rank=update.rank,
        scale=update.scale,
        dtype="/".join(dict.fromkeys(dtypes)),
        kind=update.kind,
        kernel=update.kernel,
        groups=update.groups,
        stored=sum(own) if update.multiplied > 1 and own else None,
        flat=update.flat,
    )


def _measure_rounding(update: UpdateSpec, source: AdapterSource) -> float:
    """Bound what storing rounded off a product, or quantising a factor, relative to its norm."""
    dtypes = {source.tensors.headers[name].dtype for name in update.tensors}
    if not dtypes.isdisjoint(QUANTISED):
        return update.multiplied * max(QUANTISED.get(dtype, 0.0) for dtype in dtypes)
    if update.multiplied == 1 and FLOAT8.keys().isdisjoint(dtypes):
        return 0.0
    return update.multiplied * max(_UNIT_ROUNDOFF[dtype] for dtype in dtypes)
