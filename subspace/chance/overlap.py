"""What chance gives: closed-form distributions for independent, uniformly random subspaces.

Every function broadcasts over numpy arrays. The formulas are held against simulation in
``tests/test_chance.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import betaincc, betainccinv, betaincinv, gammaincinv

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]

_AT_ONCE = 250  # draws of `projection_draws`: 50 MB at 64 values and 64 directions


def phi_mean(i: ArrayLike, j: ArrayLike, d: int) -> Array:
    """Mean of phi(i, j) between random subspaces of R^d: max(i, j) / d.

    >>> float(phi_mean(8, 64, 384))
    0.16666666666666666
    """
    larger: Array = np.maximum(i, j) / np.float64(d)
    return larger


def phi_std(i: ArrayLike, j: ArrayLike, d: int) -> Array:
    """Return the standard deviation of phi(i, j); zero where a subspace is all of R^d.

    Var = 2ij(d-i)(d-j) / (d^2 (d-1)(d+2) min(i,j)^2).
    """
    i, j = np.asarray(i, dtype=np.float64), np.asarray(j, dtype=np.float64)
    scale = np.float64(d) ** 2 * max(d - 1, 1) * (d + 2) * np.minimum(i, j) ** 2
    std: Array = np.sqrt(2 * i * j * (d - i) * (d - j) / scale)
    return std


def phi_pvalue(phi: ArrayLike, i: ArrayLike, j: ArrayLike, d: int) -> Array:
    """P(phi_null >= phi) for independent random i- and j-dimensional subspaces of R^d.

    Exactly Beta where min(i, j) = 1 or where a complement is one-dimensional; elsewhere the Beta
    of the same mean and variance, whose upper tail is right to 8 % at 1e-2 ... 1e-5. For
    i + j > d the dimensions of the complements are used, since
    ``|U^T V|_F^2 = i + j - d + |U_perp^T V_perp|_F^2``; where a subspace is everything, phi is a
    constant and p = 1. NaN stays NaN.

    >>> float(phi_pvalue(0.25, 1, 1, 384)) < 1e-12
    True
    >>> float(phi_pvalue(1.0, 3, 8, 8))
    1.0
    """
    phi, p, q, i, j = _reduced(phi, i, j, d)
    excess = np.maximum(i + j - d, 0)
    smaller = np.minimum(p, q)
    with np.errstate(invalid="ignore", divide="ignore"):
        x = (phi * np.minimum(i, j) - excess) / smaller
        a, b = _beta(p, q, d)
        tail = betaincc(a, b, np.clip(x, 0.0, 1.0))
    tail = np.where(smaller > 0, tail, 1.0)
    return np.where(np.isnan(phi), np.nan, tail)


def phi_quantile(probability: ArrayLike, i: ArrayLike, j: ArrayLike, d: int) -> Array:
    """Return the phi that chance exceeds with this probability: the inverse of `phi_pvalue`."""
    probability, p, q, i, j = _reduced(probability, i, j, d)
    excess, smaller = np.maximum(i + j - d, 0), np.minimum(p, q)
    with np.errstate(invalid="ignore", divide="ignore"):
        a, b = _beta(p, q, d)
        x = np.where(smaller > 0, betainccinv(a, b, probability), 0.0)
    quantile: Array = (excess + smaller * x) / np.minimum(i, j)
    return quantile


def overlap_pvalue(energy: ArrayLike, dimensions: int, d: int) -> Array:
    """P(e >= energy), e the energy of one direction within a random subspace of R^d.

    e = |V^T u|^2 is exactly Beta(dimensions/2, (d - dimensions)/2).
    """
    energy = np.asarray(energy, dtype=np.float64)
    if dimensions >= d:
        return np.where(np.isnan(energy), np.nan, 1.0)
    tail = betaincc(dimensions / 2, (d - dimensions) / 2, np.clip(energy, 0.0, 1.0))
    return np.asarray(tail, dtype=np.float64)


def smallest_angle(i: int, j: int, d: int) -> float:
    """Return the smallest principal angle (radians) that random subspaces reach as d grows.

    The largest squared cosine tends to (sqrt(a(1-b)) + sqrt(b(1-a)))^2 with a = i/d, b = j/d, and
    to 1 for i + j >= d (Wachter 1980, Ann. Statist. 8; Johnstone 2008, Ann. Statist. 36).

    >>> round(float(np.cos(smallest_angle(64, 64, 384)) ** 2), 2)
    0.56
    """
    if i + j >= d:
        return 0.0
    a, b = i / d, j / d
    cosine = np.sqrt(a * (1 - b)) + np.sqrt(b * (1 - a))
    return float(np.arccos(min(float(cosine), 1.0)))


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


def _reduced(
    value: ArrayLike, i: ArrayLike, j: ArrayLike, d: int
) -> tuple[Array, Array, Array, Array, Array]:
    """Broadcast, and replace (i, j) by their complements' dimensions where i + j > d."""
    value, i, j = np.broadcast_arrays(
        np.asarray(value, dtype=np.float64),
        np.asarray(i, dtype=np.float64),
        np.asarray(j, dtype=np.float64),
    )
    swap = i + j > d
    return value, np.where(swap, d - i, i), np.where(swap, d - j, j), i, j


def _beta(i: Array, j: Array, d: int) -> tuple[Array, Array]:
    """Return the parameters of the Beta with the null's mean and variance (exact for min = 1)."""
    mean, variance = phi_mean(i, j, d), np.square(phi_std(i, j, d))
    total = mean * (1 - mean) / variance - 1
    return mean * total, (1 - mean) * total


def energy_std(k: ArrayLike, d: int, concentration: float) -> Array:
    """Return the standard deviation of a random update's energy in k given directions of R^d.

    The energy is T = sum_j p_j |P_k v_j|^2 with p_j = S_j^2 / sum S^2 and v_j orthonormal and
    uniformly random; its mean is k/d. Each X_j = |P_k v_j|^2 is Beta(k/2, (d-k)/2), with
    Var X = 2k(d-k) / (d^2 (d+2)), and all d of a basis add up to k, so that
    Cov(X_i, X_j) = -Var X / (d-1). Hence Var T = Var X (d sum p_j^2 - 1) / (d-1).

    Parameters
    ----------
    k
        0 ... d.
    concentration
        sum p_j^2: 1 for one direction, 1/r for r equal ones, 1/d where delta W is isotropic.

    >>> round(float(energy_std(8, 384, 1.0)), 4)
    0.0103
    """
    k = np.asarray(k, dtype=np.float64)
    single = 2 * k * (d - k) / (np.float64(d) ** 2 * (d + 2))
    spread = d * concentration - 1  # rounding alone is no spread
    std: Array = np.sqrt(single * (spread if spread > 1e-9 else 0.0) / max(d - 1, 1))
    return std


def energy_range(k: ArrayLike, d: int, concentration: float, inside: float = 0.95) -> Array:
    """Central range of a random update's energy in k of d directions: (..., 2), low and high.

    By the Beta of T's mean and variance, exact for one direction. In simulation, whatever the p_j
    tried, 2.6 % (k = 1, one p_j of 0.9) to 5.7 % fall outside where it says 5 %; at small k one
    tail may hold nearly all of them.
    """
    a, b, mean = _energy_beta(k, d, concentration)
    tails = np.array([(1 - inside) / 2, (1 + inside) / 2])
    ends = betaincinv(np.nan_to_num(a)[..., None], np.nan_to_num(b)[..., None], tails)
    return np.where(np.isnan(a)[..., None], mean[..., None], ends)


def energy_pvalue(energy: ArrayLike, k: ArrayLike, d: int, concentration: float) -> Array:
    """P(T >= energy), T a random update's energy in k of d directions. NaN stays NaN.

    By the same Beta. In simulation (d = 60, k = 6 and 20, four kinds of p_j) chance got beyond it
    at most 2.2 times as often as it says at 1e-3, and 3.6 times at 1e-4; the lower tail errs on the
    safe side there. For fewer directions it is an order of magnitude, no more.

    >>> float(energy_pvalue(1.0, 3, 8, 1.0)), float(energy_pvalue(1.0, 8, 8, 1.0))
    (0.0, 1.0)
    """
    energy = np.asarray(energy, dtype=np.float64)
    a, b, mean = _energy_beta(k, d, concentration)
    tail = betaincc(np.nan_to_num(a), np.nan_to_num(b), np.clip(energy, 0.0, 1.0))
    tail = np.where(np.isnan(a), energy <= mean + 1e-9, tail)  # a constant leaves no chance
    return np.where(np.isnan(energy), np.nan, tail)


def _energy_beta(k: ArrayLike, d: int, concentration: float) -> tuple[Array, Array, Array]:
    """Return the Beta's parameters and the mean; NaN where the energy is a constant."""
    mean = np.asarray(k, dtype=np.float64) / d
    variance = np.square(energy_std(k, d, concentration))
    with np.errstate(divide="ignore", invalid="ignore"):
        total = mean * (1 - mean) / variance - 1
    total = np.where((variance > 0) & np.isfinite(total), total, np.nan)
    return mean * total, (1 - mean) * total, mean
