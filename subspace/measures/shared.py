"""Which modules several adapters share, and whether these can be compared."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from subspace.adapters.rotary import WAY_OUT, list_reordered
from subspace.errors import FormatError, ShapeError, UnknownModuleError
from subspace.spectra import equal_chunks

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from subspace.adapters import Adapter
    from subspace.results import (
        ModuleAmplification,
        ModuleInterference,
        ModuleProfile,
        ModuleRank,
        ModuleSimilarity,
        Side,
    )

    Row = TypeVar(
        "Row", ModuleAmplification, ModuleInterference, ModuleProfile, ModuleRank, ModuleSimilarity
    )

_MAP = "; where two names mean one module, say so: --rename OLD=NEW (subspace.align)"


def find_shared(adapters: Sequence[Adapter], modules: str | None) -> list[str]:
    """Return the modules that all adapters have, in the first one's order.

    Raises
    ------
    UnknownModuleError
        There is none, or none of an adapter matches the pattern `modules`.
    """
    chosen = [x.select(modules) for x in adapters]
    names = [name for name in chosen[0] if all(name in x for x in chosen[1:])]
    if not names:
        have = _have([x.name for x in chosen], chosen)
        many = "two" if len(adapters) == 2 else str(len(adapters))
        raise UnknownModuleError(f"the {many} adapters have no module in common: {have}{_MAP}")
    return names


def find_holders(adapters: Sequence[Adapter], labels: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Return for every module the places of the adapters that have it.

    Raises
    ------
    UnknownModuleError
        No two share any.
    """
    names = dict.fromkeys(itertools.chain(*adapters))
    holders = {name: tuple(n for n, x in enumerate(adapters) if name in x) for name in names}
    if all(len(places) < 2 for places in holders.values()):
        have = _have(labels, adapters)
        raise UnknownModuleError(f"no two adapters have a module in common: {have}{_MAP}")
    return holders


def _have(labels: Sequence[str], adapters: Sequence[Adapter]) -> str:
    """Say of each adapter which modules it has."""
    clauses = []
    for name, adapter in zip(labels, adapters, strict=True):
        few = ", ".join(list(adapter)[:3]) or "no update at all"
        more = f" and {len(adapter) - 3} more" if len(adapter) > 3 else ""
        clauses.append(f"{name!r} has {few}{more}")
    return "; ".join(clauses)


def mark_unknown(rows: Iterable[Row], adapters: Sequence[Adapter]) -> list[Row]:
    """Note in the rows of modules that hold a tensor that is not understood which one it is."""
    marked = []
    for row in rows:
        infos = [x.updates[row.module] for x in adapters if row.module in x]
        tensors = dict.fromkeys(info.unknown for info in infos if info.unknown)
        notes: list[str] = [
            f"{name} is not understood: the update may be another one" for name in tensors
        ]
        marked.append(replace(row, note="; ".join(filter(None, [*notes, row.note]))))
    return marked


def chunk_alike(
    holders: Mapping[str, tuple[int, ...]], adapters: Sequence[Adapter]
) -> list[list[str]]:
    """Group the modules that the same adapters have in equal shapes."""

    def shape(name: str) -> tuple[int, ...]:
        infos = [adapters[n].updates[name] for n in holders[name]]
        return (*infos[0].shape, *(info.rank for info in infos))

    chunks: list[list[str]] = []
    for places in dict.fromkeys(holders.values()):
        chunks += equal_chunks((name for name in holders if holders[name] == places), shape)
    return chunks


def check_shapes(adapters: Sequence[Adapter], name: str, side: Side | None = None) -> None:
    """Refuse a module whose dimensions differ.

    Raises
    ------
    ShapeError
        With both shapes and both adapters.
    """
    first = adapters[0]
    (out_a, in_a) = first.updates[name].shape
    for x in adapters[1:]:
        (out_b, in_b) = x.updates[name].shape
        if (out_a, in_a) != (out_b, in_b):
            raise ShapeError(
                f"cannot compare {f'side {side} of ' if side else ''}{name!r}: it is "
                f"{out_a} x {in_a} in {first.name!r} and {out_b} x {in_b} in {x.name!r}; "
                "both must adapt the same base model (--modules PATTERN chooses those that fit)"
            )
    _check_rows(adapters, name, side)


def _check_rows(adapters: Sequence[Adapter], name: str, side: Side | None) -> None:
    """Refuse what compares rows of B in two orders."""
    if side not in (None, "B", "out"):
        return
    orders = [x.format if list_reordered(x, (name,)) else "" for x in adapters]
    if len(set(orders)) > 1:
        other = next(x for x, order in zip(adapters, orders, strict=True) if order)
        raise FormatError(
            f"cannot compare {f'side {side} of ' if side else ''}{name!r}: its rows are in the "
            f"rotary order of {other.format} in {other.name!r} and in another elsewhere; {WAY_OUT}"
            + (", or compare on side in" if side else "")
        )
