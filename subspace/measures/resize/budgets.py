"""How many singular values to keep by a rank, an energy or an error, of one module or of many.

An energy is a share of ``sum S^2``, which is ``|delta W|_F^2``.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

from subspace.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from subspace.results import Asked


def choose_budget(
    rank: int | None, energy: float | None, error: float | None
) -> tuple[Asked, float]:
    """Return what was asked for, and how much of it; refuse none, several and what makes no sense.

    Raises
    ------
    ArgumentError
        With what would make sense.

    >>> choose_budget(None, 0.99, None)
    ('energy', 0.99)
    """
    given: dict[Asked, float | None] = {"rank": rank, "energy": energy, "error": error}
    chosen = [(name, value) for name, value in given.items() if value is not None]
    if len(chosen) != 1:
        raise ArgumentError(
            "give one of rank, energy and error"
            + (f", not {' and '.join(name for name, _ in chosen)}" if chosen else "")
        )
    ((name, value),) = chosen
    if name == "rank":
        if isinstance(value, bool) or value != value // 1 or value < 1:
            raise ArgumentError(f"rank is {value!r}; it is a whole number from 1")
        return name, int(value)
    if name == "energy" and not 0 < value <= 1:
        raise ArgumentError(f"energy is {value!r}; it is above 0 and at most 1, such as 0.99")
    if name == "error" and not 0 <= value < 1:
        raise ArgumentError(f"error is {value!r}; it is at least 0 and below 1, such as 0.05")
    return name, float(value)


def sum_tails(S: Sequence[float]) -> list[float]:
    """Return ``sum of S_j^2 over j >= k`` for k = 0 ... len(S), relative to the largest square.

    >>> sum_tails([4.0, 2.0])
    [1.25, 0.25, 0.0]
    """
    squares = [(s / S[0]) ** 2 for s in S]
    return [*accumulate(reversed(squares), initial=0.0)][::-1]


def count_kept(S: Sequence[float], asked: Asked, value: float) -> int:
    """Return how many of these to keep.

    >>> [count_kept([3.0, 2.0, 1.0], *asked) for asked in [("rank", 2), ("energy", 0.9)]]
    [2, 2]
    """
    if asked == "rank":
        return min(int(value), len(S))
    left = sum_tails(S)
    most = (1 - value if asked == "energy" else value**2) * left[0]
    return next(k for k, tail in enumerate(left) if tail <= most)


def share_budget(real: Mapping[str, Sequence[float]], asked: Asked, value: float) -> dict[str, int]:
    """Return how many directions of each module to keep: the largest of all.

    >>> share_budget({"q": [9.0, 1.0], "k": [3.0, 2.0]}, "rank", 1)
    {'q': 1, 'k': 1}
    >>> share_budget({"q": [9.0, 1.0], "k": [0.3, 0.2]}, "rank", 1)
    {'q': 2, 'k': 0}
    """
    every = sorted(((s, name) for name, S in real.items() for s in S), key=lambda pair: -pair[0])
    most = count_kept([s for s, _ in every], asked, value * len(real) if asked == "rank" else value)
    kept = dict.fromkeys(real, 0)
    for _, name in every[:most]:
        kept[name] += 1
    return kept
