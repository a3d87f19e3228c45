"""What several adapters have in common, what they are called, and where their A began."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import torch

from subspace.adapters import Adapter, LowRankUpdate
from subspace.adapters.rotary import WAY_OUT, other_rows
from subspace.errors import ArgumentError, FormatError, ShapeError, UnknownModuleError
from subspace.spectra import equal_chunks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from subspace.results import Side
    from subspace.spectra import Solved

    Starts = Mapping[str, list[torch.Tensor]]  # of each module the initial A of every adapter


_MAP = "; where two names mean one module, say so: --rename OLD=NEW (subspace.align)"
SAME_START = 0.9  # excess over chance of phi(r, r) from which two initial A are one start


def shared(adapters: Sequence[Adapter], modules: str | None) -> list[str]:
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


def _have(called: Sequence[str], adapters: Sequence[Adapter]) -> str:
    """Say of each adapter which modules it has."""
    said = []
    for name, adapter in zip(called, adapters, strict=True):
        few = ", ".join(list(adapter)[:3]) or "no update at all"
        more = f" and {len(adapter) - 3} more" if len(adapter) > 3 else ""
        said.append(f"{name!r} has {few}{more}")
    return "; ".join(said)


def labels(adapters: Sequence[Adapter]) -> tuple[str, ...]:
    """Name adapters; folders of one name are told apart by the folders that hold them."""
    named = [x.name for x in adapters]
    paths = [None if x.path is None else x.path.absolute() for x in adapters]
    above = [[] if path is None else list(path.parts[:-1]) for path in paths]
    while True:
        alike = [
            [m for m, other in enumerate(named) if other == name and paths[m] is not None]
            for name in named
        ]
        short = {n for same in alike if len({paths[m] for m in same}) > 1 for n in same if above[n]}
        if not short:
            return tuple(named)
        for n in short:
            named[n] = f"{above[n].pop()}/{named[n]}"


def distinct_labels(adapters: Sequence[Adapter]) -> tuple[str, ...]:
    """Name adapters; the same one twice, or two in memory, are told apart by a number."""
    named = labels(adapters)
    return tuple(
        name if named[:n].count(name) == 0 else f"{name} ({named[:n].count(name) + 1})"
        for n, name in enumerate(named)
    )


def holders(adapters: Sequence[Adapter], called: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Return for every module which adapters have it.

    Raises
    ------
    UnknownModuleError
        No two share any.
    """
    names = dict.fromkeys(itertools.chain(*adapters))
    found = {name: tuple(n for n, x in enumerate(adapters) if name in x) for name in names}
    if all(len(held) < 2 for held in found.values()):
        have = _have(called, adapters)
        raise UnknownModuleError(
            f"no two adapters have a module in common, so nothing of them meets: {have}{_MAP}"
        )
    return found


def chunks(held_by: Mapping[str, tuple[int, ...]], adapters: Sequence[Adapter]) -> list[list[str]]:
    """Group the modules of the same adapters and shapes."""

    def shape(name: str) -> tuple[int, ...]:
        infos = [adapters[n].updates[name] for n in held_by[name]]
        return (*infos[0].shape, *(info.rank for info in infos))

    found: list[list[str]] = []
    for held in dict.fromkeys(held_by.values()):
        found += equal_chunks((name for name in held_by if held_by[name] == held), shape)
    return found


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
                "both must adapt the same base model"
            )
    _check_rows(adapters, name, side)


def _check_rows(adapters: Sequence[Adapter], name: str, side: Side | None) -> None:
    """Refuse what compares rows of B in two orders."""
    if side not in (None, "B", "out"):
        return
    orders = [x.format if other_rows(x, (name,)) else "" for x in adapters]
    if len(set(orders)) > 1:
        other = next(x for x, order in zip(adapters, orders, strict=True) if order)
        raise FormatError(
            f"cannot compare {f'side {side} of ' if side else ''}{name!r}: its rows are in the "
            f"rotary order of {other.format} in {other.name!r} and in another elsewhere; {WAY_OUT}"
            + (", or compare on side in" if side else "")
        )


def starts(adapters: Sequence[Adapter], names: Sequence[str]) -> Starts | None:
    """Return the initial A of every module and adapter; None unless all are stored."""
    if any(name not in x.initial for x in adapters for name in names):
        return None
    return {name: [x.initial[name] for x in adapters] for name in names}


def require_starts(adapters: Sequence[Adapter], names: Sequence[str], side: Side) -> Starts | None:
    """Return `starts`, which the side delta-A cannot do without.

    Raises
    ------
    ArgumentError
        The side is delta-A, and an adapter does not hold the initial A of every module.
    """
    found = starts(adapters, names)
    if side == "delta-A" and found is None:
        missing = next(x for x in adapters if any(n not in x.initial for n in names))
        raise ArgumentError(
            f"side delta-A needs the initial A of every module, and adapter {missing.name!r} does "
            "not hold it: `subspace train` stores it as initial_A.safetensors; choose another side"
        )
    return found


def start(name: str, A0: torch.Tensor, adapter: str) -> LowRankUpdate:
    """Return an initial A as an update, to compare its side A.

    A B of ones stands where the real B was zero before training.
    """
    return LowRankUpdate(name, A0, torch.ones(1, len(A0)), 1.0, source=f"initial A of {adapter}")


def same_start(initial: Solved, a: int, b: int) -> bool:
    """Whether two initial A span one space: phi(r_a, r_b) far above its chance, max(r_a, r_b)/d."""
    i, j = (initial.directions[n].rank for n in (a, b))
    chance = max(i, j) / initial.directions[a].dimension
    if not i or not j or chance >= 1:
        return False
    phi = float(initial.overlap(a, b)[:i, :j].square().sum()) / min(i, j)
    return (phi - chance) / (1 - chance) >= SAME_START
