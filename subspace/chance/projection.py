"""Null distribution of ``|U^T W V|_F`` for random U, V: moments, range and draws."""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np
from scipy.special import gammaincinv

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]

DRAWS = 2000
_GAMMA_FROM = 5  # at a smaller rank |U^T W V|^2 is far from Gamma
_DRAWN_TO = 16  # from this rank on the Gamma range is right to 4 %, however spiked W is
_SPIKED = 0.01  # t2/t1^2 a rank: above it W's few large directions skew it
_AT_ONCE = 250  # draws of `projection_draws`: 50 MB at 64 values and 64 directions
_LISTED = 64  # of W's values that are drawn one by one; those beyond are many and small


class SingularValues(Protocol):
    """What the null needs to know of W."""

    @property
    def S(self) -> Array:
        """(k,) leading singular values, descending."""

    @property
    def fourth(self) -> float:
        """Sum of the fourth powers of all of them over the squared sum of their squares."""


class ProjectionNull:
    """Level and range of ``|U^T W V|_F`` for random U, V, at any rank k of one module.

    Parameters
    ----------
    norm
        W's Frobenius norm. All is computed for W / norm, and multiplied by it.
    values
        W's leading singular values, and how unequal all of them are.
    shape
        (m, n) of W.
    most
        No rank that will be asked for is larger. With `draws` it decides what is drawn.
    draws, seed
        None draws `DRAWS` times where the Gamma of two moments does not serve, and nowhere else.
    """

    def __init__(
        self,
        norm: float,
        values: SingularValues,
        shape: Sequence[int],
        most: int,
        draws: int | None,
        seed: int,
    ) -> None:
        self._norm, self._values = norm, values
        self._m, self._n = shape
        self._most, self._draws, self._seed = most, draws, seed

    def level(self, k: int) -> float:
        """Root mean square: the random column of Table 7, k |W|_F / sqrt(m n)."""
        return k * self._norm / math.sqrt(self._m * self._n)

    def __call__(self, k: int) -> tuple[float, float, bool]:
        """Return low and high of a W that is not zero, and whether they were drawn."""
        spiked = self._values.fourth > _SPIKED * k
        if self._draws is not None or k < _GAMMA_FROM or (spiked and k <= _DRAWN_TO):
            low, high = np.quantile(self._drawn[:, k - 1], (0.025, 0.975))
            return self._norm * float(low), self._norm * float(high), True
        mean, variance = projection_moments(1.0, self._values.fourth, k, self._m, self._n)
        low, high = projection_range(mean, variance)
        return self._norm * float(low), self._norm * float(high), False

    @cached_property
    def _drawn(self) -> Array:
        """Norms (draws, k) at all ranks at once, up to one that does not depend on the adapter."""
        r = _DRAWN_TO if self._draws is None else max(self._most, _DRAWN_TO)
        return projection_draws(
            self._values.S[:_LISTED] / self._norm,
            1.0,
            min(r, self._m, self._n),
            self._m,
            self._n,
            draws=self._draws or DRAWS,
            seed=self._seed,
        )


def projection_moments(t1: float, t2: float, r: ArrayLike, m: int, n: int) -> tuple[Array, Array]:
    """Mean and variance of T = |U^T W V|_F^2 for random r-dimensional U in R^m and V in R^n.

    Parameters
    ----------
    t1, t2
        Sums of the squares and of the fourth powers of W's singular values, W (m, n).
    r
        Dimensions of both subspaces, r <= min(m, n).

    The mean is ``t1 r^2 / (m n)``: the root of it, ``r |W|_F / sqrt(m n)``, is the random column
    of Table 7 of Hu et al. 2021, arXiv:2106.09685.

    >>> mean, _ = projection_moments(61.95**2, 0.0, np.array([4, 64]), 12288, 12288)
    >>> np.sqrt(mean).round(4).tolist()
    [0.0202, 0.3227]
    """
    r = np.asarray(r, dtype=np.float64)

    def c(d: int) -> Array:
        spread: Array = 2 * r * (d - r) / (np.float64(d) * max(d - 1, 1) * (d + 2))
        return spread

    mean = t1 * r**2 / (np.float64(m) * n)
    b = c(m) / 2
    a = (r / m) ** 2 - c(m) / m
    near = c(n) * ((a + b) * t2 + b * t1**2 - ((r / m) ** 2 * t1**2 + c(m) * (t2 - t1**2 / m)) / n)
    variance = near + (r / n) ** 2 * c(m) * (t2 - t1**2 / m)
    return mean, np.maximum(variance, 0.0)


def projection_range(mean: ArrayLike, variance: ArrayLike, inside: float = 0.95) -> Array:
    """Central range of |U^T W V|_F by the Gamma of T's mean and variance: (..., 2), low and high.

    Held against simulation for r >= 5; below that T is far from Gamma and is to be drawn.
    """
    mean, variance = np.asarray(mean, dtype=np.float64), np.asarray(variance, dtype=np.float64)
    tails = np.array([(1 - inside) / 2, (1 + inside) / 2])
    with np.errstate(divide="ignore", invalid="ignore"):
        shape = (mean**2 / variance)[..., None]
        quantiles = gammaincinv(shape, tails) * (variance / mean)[..., None]
    # A subspace that is everything leaves nothing to chance.
    certain = np.broadcast_to(mean[..., None], quantiles.shape)
    return np.sqrt(np.where(np.isfinite(quantiles), quantiles, certain))


def projection_draws(
    values: ArrayLike, t1: float, r: int, m: int, n: int, *, draws: int, seed: int
) -> Array:
    """Draw |U_k^T W V_k|_F for Haar-random bases U, V and their first k columns, k = 1 ... r.

    Random bases see W only through its singular values, so that none of them is ever formed: of
    the rows that meet a listed value only the law is drawn, exactly (a Gaussian block, and the R of
    the rest from Bartlett's chi and normal variates). Of the values that are not listed the sum of
    squares alone is kept, as a Gaussian block: right while each of them is a small part of it.

    Parameters
    ----------
    values
        W's leading singular values, or all of them; W is (m, n).
    t1
        Sum of the squares of all.
    r
        At most min(m, n).
    draws, seed
        How many, and from which seed of numpy's default generator.

    Returns
    -------
    (draws, r) float64.

    >>> projection_draws([2.0], 4.0, 1, 1, 1, draws=2, seed=0).tolist()
    [[2.0], [2.0]]
    """
    S = np.asarray(values, dtype=np.float64)
    rng = np.random.default_rng(seed)
    beyond = t1 - float(np.square(S).sum())
    rest = (m - len(S)) * (n - len(S))
    parts = []
    for start in range(0, draws, _AT_ONCE):
        count = min(_AT_ONCE, draws - start)
        left, right = (_corner(rng, d, len(S), r, count) for d in (m, n))
        inside = left[0].swapaxes(1, 2) @ (S[:, None] * right[0])
        if rest > 0 and beyond > 0:
            shape = (count, left[1].shape[1], right[1].shape[1])
            block = rng.standard_normal(shape) * np.sqrt(beyond / rest)
            inside += left[1].swapaxes(1, 2) @ block @ right[1]
        squares = np.square(inside).cumsum(axis=1).cumsum(axis=2)
        parts.append(np.sqrt(np.diagonal(squares, axis1=1, axis2=2)))
    return np.concatenate(parts)


def _corner(rng: np.random.Generator, d: int, rows: int, r: int, draws: int) -> tuple[Array, Array]:
    """Split Haar bases (d, r) at a row: the rows above, and R of those below (min(d - rows, r), r).

    A Gaussian (d, r) becomes a Haar basis by Gram-Schmidt, which keeps the order of the columns.
    """
    above = rng.standard_normal((draws, rows, r))
    below = rng.standard_normal((draws, min(d - rows, r), r))
    below *= np.triu(np.ones(below.shape[1:]))
    freedom = d - rows - np.arange(below.shape[1])
    on = np.arange(below.shape[1])
    below[:, on, on] = np.sqrt(rng.chisquare(freedom, (draws, len(on))))
    R = np.linalg.qr(np.concatenate([above, below], axis=1), mode="r")
    inverse = np.linalg.inv(R)
    return above @ inverse, below @ inverse
