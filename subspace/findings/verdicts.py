"""A claim of the paper beside our numbers, and the verdict of several adapters at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

Verdict = Literal["agrees", "in part", "does not", "open"]


@dataclass(frozen=True)
class Claim:
    """One thing that the paper says, and what these runs say of it. Printable lines."""

    where: str  # the table or figure of the paper
    paper: str  # what it says, in our words
    here: str  # our numbers, each beside its chance level or its spread
    verdict: Verdict  # "open": undefined or too few, `here` says why


def every(held: Iterable[bool]) -> Verdict:
    """Return whether a claim holds in all cases, in some or in none; open where there is none.

    >>> every([True, True]), every([True, False]), every([False]), every([])
    ('agrees', 'in part', 'does not', 'open')
    """
    cases = list(held)
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
