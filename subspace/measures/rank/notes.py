"""Notes of replicable ranks: what is undefined, left out or inherited."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from subspace.adapters import Adapter
    from subspace.results import Side

ONE_RUN = "one run: a replicable rank needs a second one of another seed"
_NAMED = 6  # modules of a list that are named; the others are counted


def note_module(
    nominal: Sequence[int],
    numerical: Sequence[int],
    zero: Sequence[bool],
    counts: Sequence[int | None],
    labels: Sequence[str],
) -> str:
    """Say why something of one module is undefined; the first four are per run or per pair."""
    notes = []
    if any(zero):
        which = " and ".join(label for label, none in zip(labels, zero, strict=True) if none)
        notes.append(f"untrained: the update of {which} is exactly zero, so it has no directions")
    notes += [
        f"numerical rank {real} of {r} in {label}, not counted beyond"
        for label, real, r, none in zip(labels, numerical, nominal, zero, strict=True)
        if real < r and not none
    ]
    missing = sum(count is None for count in counts)
    if not counts:
        notes.append(ONE_RUN)
    elif missing == len(counts):
        notes.append(f"no replicable rank: {_no_count(zero)}")
    elif missing:
        notes.append(f"{missing} of {len(counts)} pairs of runs left out: {_no_count(zero)}")
    return "; ".join(notes)


def _no_count(zero: Sequence[bool]) -> str:
    if any(zero):
        return "there is nothing to compare"
    return "a first direction is not told apart from the next, or from zero"


def note_all(
    adapters: Sequence[Adapter],
    labels: Sequence[str],
    names: Sequence[str],
    modules: str | None,
    side: Side,
    same: Mapping[tuple[str, str], int] | None,
) -> tuple[str, ...]:
    """Say what holds for all modules.

    Parameters
    ----------
    same
        For each pair of runs, in how many modules both have the same initial A; None: not stored.
    """
    notes = [
        f"{label}: {note}"
        for label, x in zip(labels, adapters, strict=True)
        for note in dict.fromkeys(x.notes)
    ]
    notes += _note_left_out(adapters, labels, names, modules)
    if len(adapters) < 2:
        return (*notes, ONE_RUN)
    ranks = [sorted({x.updates[name].rank for name in names}) for x in adapters]
    if len({tuple(r) for r in ranks}) > 1:
        each = ", ".join(
            f"{label} {'-'.join(map(str, dict.fromkeys((r[0], r[-1]))))}"
            for label, r in zip(labels, ranks, strict=True)
        )
        notes.append(
            f"the runs are of different rank ({each}), so not of one configuration: no more "
            "directions can agree than the smaller of two has"
        )
    if side in ("A", "B", "delta-A"):
        notes.append(f"side {side} depends on how delta W is split into B and A; in and out do not")
    notes += _describe_initial_a(side, len(names), same)
    return tuple(notes)


def _note_left_out(
    adapters: Sequence[Adapter], labels: Sequence[str], names: Sequence[str], modules: str | None
) -> list[str]:
    """Name the modules that not every run has, by the runs that have them."""
    kept = set(names)
    holders: dict[str, list[str]] = {}
    for label, x in zip(labels, adapters, strict=True):
        for name in x.select(modules):
            if name not in kept:
                holders.setdefault(name, []).append(label)
    by_runs: dict[tuple[str, ...], list[str]] = {}
    for name, have in holders.items():
        by_runs.setdefault(tuple(have), []).append(name)
    return [
        f"left out, since only {' and '.join(have)} of {len(adapters)} runs "
        f"{'has' if len(have) == 1 else 'have'} them: {', '.join(left[:_NAMED])}"
        + (f" and {len(left) - _NAMED} more" if len(left) > _NAMED else "")
        for have, left in by_runs.items()
    ]


def _describe_initial_a(
    side: Side, modules: int, same: Mapping[tuple[str, str], int] | None
) -> list[str]:
    """Say how much of the agreement the initial A may have given, or hidden."""
    if same is None:
        return [
            "the initial A is not stored with every run: whether two of them have the "
            "same one, and agree by that alone, is not known"
        ]
    notes = [
        f"caution: {a} and {b} have the same initial A in {count} of {modules} modules, so that "
        "agreement there need not be learned"
        + ("" if side == "delta-A" else "; side delta-A leaves it out")
        for (a, b), count in same.items()
        if count
    ]
    if not notes and side in ("A", "in"):
        notes.append(
            f"side {side} holds the initial A, random and another in every run, which can hide "
            "what both learned: side delta-A leaves it out"
        )
    return notes
