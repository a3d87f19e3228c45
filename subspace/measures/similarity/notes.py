"""Notes of a matrix of adapters: what is undefined, or has the same initial A."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from subspace.adapters import Adapter
    from subspace.results import PairSimilarity, Side

_NAMED = 4  # adapters or pairs of a list that are named; the others are counted


def note_all(
    adapters: Sequence[Adapter],
    labels: Sequence[str],
    pairs: Sequence[PairSimilarity],
    side: Side,
    stored: Collection[int],
) -> tuple[str, ...]:
    """Say what holds for the whole matrix.

    Parameters
    ----------
    stored
        Adapters that hold the initial A of all their modules.
    """
    notes = [
        f"{label}: {note}"
        for label, x in zip(labels, adapters, strict=True)
        for note in dict.fromkeys(x.notes)
    ]
    apart = [pair for pair in pairs if not pair.modules]
    if apart:
        notes.append(f"undefined, since they share no module: {_pairs(apart)}")
    undefined = [pair for pair in pairs if 0 < pair.modules == pair.undefined]
    if undefined:
        notes.append(
            "undefined in every module, since an update is zero, of lower numerical rank, or its "
            f"directions are not told apart: {_pairs(undefined)}"
        )
    some = [pair for pair in pairs if 0 < pair.undefined < pair.modules]
    if some:
        notes.append(f"undefined in some modules, and left out there: {_pairs(some)}")
    if len({pair.modules for pair in pairs if pair.modules}) > 1:
        notes.append("the pairs share different modules, so their medians are not of the same ones")
    same = [pair for pair in pairs if pair.same_initial]
    if same:
        notes.append(
            f"caution: of the same initial A, so that they need not have learned to be alike: "
            f"{_pairs(same)}" + ("" if side == "delta-A" else "; side delta-A leaves it out")
        )
    unknown = [label for n, label in enumerate(labels) if n not in stored]
    if unknown:
        notes.append(
            f"the initial A is not stored with {_listed(unknown)}: whether they have the "
            "same one as another, and are alike by that alone, is not known"
        )
    return tuple(notes)


def _pairs(pairs: Sequence[PairSimilarity]) -> str:
    return _listed([" and ".join(pair.adapters) for pair in pairs])


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"
