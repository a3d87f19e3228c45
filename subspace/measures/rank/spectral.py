"""The usual ranks of one update, from its singular values alone; none of them asks what is real.

All are at most the number of nonzero values, and do not change with the update's scale.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_ROUNDING = 1e-12  # of the energy: r equal values reach 90 % at 0.9 r, not one later


def _over_first(S: ArrayLike) -> NDArray[np.float64]:
    """Divide by the largest value, so that no square overflows or vanishes."""
    values = np.asarray(S, dtype=np.float64)
    over: NDArray[np.float64] = values / values[0]
    return over


def stable_rank(S: ArrayLike) -> float:
    """Return |delta W|_F^2 / |delta W|_2^2 (Rudelson & Vershynin 2007, J. ACM 54).

    Parameters
    ----------
    S : (k,)
        Singular values, descending, the first above zero.

    >>> stable_rank([2.0, 1.0, 1.0])
    1.5
    """
    return float(np.square(_over_first(S)).sum())


def entropy_rank(S: ArrayLike) -> float:
    """Return exp(-sum p ln p) with p = S / sum S (Roy & Vetterli 2007, EUSIPCO).

    Their normalisation: the singular values themselves sum to one, not their squares.

    >>> round(entropy_rank([1.0, 1.0, 0.0]), 12)
    2.0
    """
    p = _over_first(S)
    p = p[p > 0] / p.sum()
    return float(np.exp(-(p * np.log(p)).sum()))


def participation_ratio(S: ArrayLike) -> float:
    """Return (sum S^2)^2 / sum S^4, the participation ratio of the energies.

    >>> participation_ratio([3.0, 3.0])
    2.0
    """
    energy = np.square(_over_first(S))
    return float(energy.sum() ** 2 / np.square(energy).sum())


def energy_rank(S: ArrayLike, share: float) -> int:
    """Return the fewest leading directions that hold this share of |delta W|_F^2.

    >>> energy_rank([3.0, 1.0], 0.9), energy_rank([3.0, 1.0], 0.95)
    (1, 2)
    """
    energy = np.square(_over_first(S)).cumsum()
    return int(np.argmax(energy >= share * (1 - _ROUNDING) * energy[-1])) + 1
