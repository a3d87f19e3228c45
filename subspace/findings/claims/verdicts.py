"""The verdict on a claim of the paper, of several adapters at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from subspace.results import Verdict


def every(holds: Iterable[bool]) -> Verdict:
    """Return whether a claim holds in all cases, in some or in none; open where there is none.

    >>> every([True, True]), every([True, False]), every([False]), every([])
    ('agrees', 'in part', 'does not', 'open')
    """
    cases = list(holds)
    if not cases:
        return "open"
    return "agrees" if all(cases) else "in part" if any(cases) else "does not"


def at_rank(ranks: Iterable[int]) -> str:
    """Say at which rank.

    >>> at_rank([8, 8]), at_rank([4, 16, 8])
    ('r = 8', 'r = 4 to 16')
    """
    some = set(ranks)
    return f"r = {max(some)}" if len(some) == 1 else f"r = {min(some)} to {max(some)}"
