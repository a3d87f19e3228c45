"""Closed-form null distributions of independent, uniformly random subspaces: phi, overlaps, angles.

Every function broadcasts over numpy arrays. The formulas are held against simulation in
``tests/test_chance.py``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import betaincc, betainccinv, gammaln

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]


def phi_mean(i: ArrayLike, j: ArrayLike, d: int) -> Array:
    """Mean of phi(i, j) between random subspaces of R^d: max(i, j) / d.

    >>> float(phi_mean(8, 64, 384))
    0.16666666666666666
    """
    larger: Array = np.maximum(i, j) / np.float64(d)
    return larger


def distance_rms(k: int, d: int) -> float:
    """Root mean square of the projection distance over sqrt(k) between random k-dimensional spaces.

    Its square is 1 - phi(k, k).

    >>> distance_rms(8, 32)
    0.8660254037844386
    """
    return math.sqrt(1 - float(phi_mean(k, k, d)))


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

    Exactly Beta where min(i, j) = 1 or where a complement is one-dimensional; elsewhere the larger
    of two tails. One is of the Beta with the same mean and variance, which is right in the bulk.
    The other is right at the end, phi -> 1, where the trace of a matrix Beta (Muirhead 1982,
    theorem 3.3.1) has the tail of Beta(pq/2, p(d-q)/2) times a constant, p = min and q = max of
    (i, j); it counts in small d alone. docs/calibration.md has the rates in simulation.

    For i + j > d the dimensions of the complements are used, since
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
        x = np.clip(x, 0.0, 1.0)
        a_end, b_end, constant = _end(p, q, d)
        tail = np.array(betaincc(a, b, x))
        far = constant > tail  # else it cannot be the larger one: nowhere where d is large
        at_end = constant[far] * betaincc(a_end[far], b_end[far], x[far])
        tail[far] = np.maximum(tail[far], at_end)
    tail = np.where(smaller > 0, tail, 1.0)
    return np.where(np.isnan(phi), np.nan, tail)


def phi_quantile(probability: ArrayLike, i: ArrayLike, j: ArrayLike, d: int) -> Array:
    """Return the phi that the null exceeds with this probability: the inverse of `phi_pvalue`."""
    probability, p, q, i, j = _reduced(probability, i, j, d)
    excess, smaller = np.maximum(i + j - d, 0), np.minimum(p, q)
    with np.errstate(invalid="ignore", divide="ignore"):
        a, b = _beta(p, q, d)
        a_end, b_end, constant = _end(p, q, d)
        at_end = betainccinv(a_end, b_end, np.minimum(probability / constant, 1.0))
        larger = np.maximum(betainccinv(a, b, probability), at_end)
        x = np.where(smaller > 0, larger, 0.0)
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


def _end(i: Array, j: Array, d: int) -> tuple[Array, Array, Array]:
    """Return the Beta, and the constant before it, that the null's upper tail tends to at phi = 1.

    With Y = I - B of the matrix Beta B, P(tr Y < e) -> Gamma_p(d/2) e^(p(d-q)/2) /
    (Gamma_p(q/2) Gamma(p(d-q)/2 + 1)), from the integral of |Y|^((d-q-p-1)/2) over tr Y < e.
    """
    p, q = np.minimum(i, j).astype(np.int64), np.maximum(i, j).astype(np.int64)
    a, b = p * q / 2, p * (d - q) / 2
    k = np.arange(int(p.max(initial=0))) / 2
    sizes, at = np.unique(q, return_inverse=True)
    # log of Gamma_p(d/2) / Gamma_p(q/2): the first p factors of both
    with np.errstate(invalid="ignore"):
        factors = gammaln(d / 2 - k) - gammaln(sizes[:, None] / 2 - k)
    ratios = np.concatenate([np.zeros((len(sizes), 1)), factors.cumsum(axis=1)], axis=1)
    log = ratios[at.reshape(q.shape), p] + gammaln(a) - gammaln(p * d / 2)
    log = log + b * np.log(np.maximum(p, 1))
    return a, b, np.where(p > 0, np.exp(np.minimum(log, 0.0)), 1.0)


def _beta(i: Array, j: Array, d: int) -> tuple[Array, Array]:
    """Return the parameters of the Beta with the null's mean and variance (exact for min = 1)."""
    mean, variance = phi_mean(i, j, d), np.square(phi_std(i, j, d))
    total = mean * (1 - mean) / variance - 1
    return mean * total, (1 - mean) * total
