"""Notes of interference: what only one adapter has, and which pairs have the same initial A."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from subspace.adapters import Adapter

_NAMED = 4  # modules of a list that are named; the others are counted


def note_all(
    adapters: Sequence[Adapter],
    labels: Sequence[str],
    alone: Sequence[Sequence[str]],
    modules: int,
    same: Mapping[tuple[str, str], int] | None,
) -> tuple[str, ...]:
    """Say what holds for all modules.

    Parameters
    ----------
    alone
        Of each adapter the modules that no other has.
    modules
        How many are shared.
    same
        Of each pair, in how many modules both have the same initial A; None: not stored.
    """
    notes = [
        f"{label}: {note}"
        for label, x in zip(labels, adapters, strict=True)
        for note in dict.fromkeys(x.notes)
    ]
    notes += [
        f"only {label} has {', '.join(names[:_NAMED])}"
        + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
        + ": counted in the whole model's sums, where no other has it"
        for label, names in zip(labels, alone, strict=True)
        if names
    ]
    notes += [
        f"caution: {a} and {b} have the same initial A in {count} of {modules} modules, so that "
        "they share rows unlearned, and the null of the cosine is wider than that of independent "
        "updates"
        for (a, b), count in (same or {}).items()
        if count
    ]
    return tuple(notes)
