"""Inner products of low-rank updates by the trace of small matrices, and how sure each one is.

``<dW1, dW2>_F = s1 s2 tr((A2 A1^T) (B1^T B2))`` is a sum over the entries of two r1 x r2 blocks of
the Grams of A and of B, so that delta W is never formed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from subspace import linalg
from subspace.spectra import CELL_BOUND, is_zero, require_finite

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from subspace.adapters import LowRankUpdate

    Array = NDArray[np.float64]

_UNIT = 2.0**-53  # of float64
_UNSURE = 1e-9  # relative: a squared length that may be off by more is computed from a QR


@dataclass(frozen=True, eq=False)
class Products:
    """Of N updates of one module, or of a whole model: lengths, and the cosines between them.

    Attributes
    ----------
    norms : (N,)
        |dW_k|_F with its scale; 0 where there is none.
    gram : (N, N)
        <dW_j, dW_k> / (|dW_j| |dW_k|); the diagonal is 1, rows of zero updates are 0.
    errors : (N, N)
        Bound on the error of <dW_j, dW_k> over |dW_j| |dW_k|, lengths taken as exact.
    """

    norms: Array
    gram: Array
    errors: Array

    @property
    def cosines(self) -> Array:
        """The cosines, NaN where an update is zero or where the bound is beyond 1e-6."""
        there = self.norms > 0
        certain = (self.cosine_errors <= CELL_BOUND) & there & there[:, None]
        return np.where(certain, np.clip(self.gram, -1.0, 1.0), np.nan)

    @property
    def cosine_errors(self) -> Array:
        """(N, N) bound on the error of each cosine, what its two lengths leave open included."""
        own = self.errors.diagonal()  # of the squares: half of it, and its square, of the lengths
        return self.errors + 0.5 * (own[:, None] + own[None, :]) * (1 + self.errors)

    @classmethod
    def of(cls, updates: Sequence[LowRankUpdate], device: torch.device | str = "cpu") -> Products:
        """Compute them from the factors.

        Parameters
        ----------
        updates
            N updates of one module; ranks may differ.

        Raises
        ------
        NonFiniteError
            A factor holds NaN or infinity.

        Notes
        -----
        Stored values are taken as exact and all is computed in float64. A dot product of n terms
        is off by at most ``n u / (1 - n u)`` times its sum of absolute values, in whatever order
        it is added up (Higham 2002, section 3.1), u = 2^-53. With n = d_in + d_out + r1 + r2 + 3,
        and Cauchy-Schwarz for the absolute values, <dW1, dW2> is off by at most that times
        L1 L2, where L = |s| sum_i |b_i| |a_i| over the columns of B and the rows of A. L / |dW|
        says how much the r terms of B A cancel; it is at most sqrt(r) where B or A is orthogonal.
        Where it makes |dW|^2 less sure than 1e-9, both factors are first split by Householder QR,
        whose error grows with L / |dW| and no longer with its square (Theorem 19.4 there, its small
        constant taken as 2): ``2 u r (d_in + d_out) L / |dW|``.

        >>> import torch
        >>> from subspace import LowRankUpdate
        >>> one = LowRankUpdate("q", torch.tensor([[3.0, 4.0]]), torch.ones(1, 1), 2.0)
        >>> two = LowRankUpdate("q", torch.tensor([[4.0, 3.0]]), torch.ones(1, 1), 1.0)
        >>> found = Products.of([one, two])
        >>> found.norms.tolist(), found.cosines.round(2).tolist()
        ([10.0, 5.0], [[1.0, 0.96], [0.96, 1.0]])
        """
        shape, names = updates[0].shape, range(len(updates))
        factors = [_Factors.of(update, device) for update in updates]
        sums = _Sums.of(factors)
        if not np.isfinite(sums.blocks.diagonal()).all():
            for update in updates:
                require_finite(update, "A")
                require_finite(update, "B")
        lost = np.zeros(len(factors))
        bound = _gamma(sum(shape) + 2 * sums.ranks + 3) * np.square(sums.absolute)
        if (unsure := bound > _UNSURE * sums.squares).any():
            factors = [x.split() if bad else x for x, bad in zip(factors, unsure, strict=True)]
            again = _Sums.of(factors)
            lost = 2 * _UNIT * sums.ranks * sum(shape) * _over(sums.absolute, again.lengths)
            lost, sums = np.where(unsure, lost, 0.0), again
        zero = [is_zero(update) for update in updates]
        lengths = np.where(zero, 0.0, sums.lengths)
        signs = np.array([math.copysign(1.0, update.scale) for update in updates])
        gram = _over(_over(sums.blocks, lengths), lengths[:, None]) * np.outer(signs, signs)
        np.fill_diagonal(gram, lengths > 0)
        terms = sum(shape) + np.add.outer(sums.ranks, sums.ranks) + 3
        cancel = _over(sums.absolute, lengths)
        errors = _gamma(terms) * np.outer(cancel, cancel) + np.add.outer(lost, lost)
        norms = [
            abs(updates[k].scale) * lengths[k] * min(factors[k].scales) * max(factors[k].scales)
            for k in names
        ]
        return cls(np.array(norms), gram, errors)


@dataclass(frozen=True, eq=False)
class _Factors:
    """Both factors of one update as tall matrices, each over a power of two."""

    A: Tensor  # (d_in, r)
    B: Tensor  # (d_out, r)
    scales: tuple[float, float]

    @classmethod
    def of(cls, update: LowRankUpdate, device: torch.device | str) -> _Factors:
        talls, scales = [], []
        for tall in (update.A.mT.to(device), update.B.to(device)):
            # Squares of 32 bits and fewer neither overflow nor vanish in float64.
            scaled, scale = linalg.unit_scale(tall) if tall.dtype == torch.float64 else (tall, 1.0)
            talls.append(scaled)
            scales.append(float(scale))
        return cls(talls[0], talls[1], (scales[0], scales[1]))

    def split(self) -> _Factors:
        """Return the same B A with orthonormal rows of A, which leave nothing to cancel."""
        Q_A, R_A = torch.linalg.qr(self.A.to(torch.float64))
        Q_B, R_B = torch.linalg.qr(self.B.to(torch.float64))
        return _Factors(Q_A, Q_B @ (R_B @ R_A.mT), self.scales)


@dataclass(frozen=True, eq=False)
class _Sums:
    """What the Grams of N updates' factors say, scales left out."""

    ranks: NDArray[np.int64]
    blocks: Array  # (N, N) <dW_j, dW_k>
    absolute: Array  # (N,) sum_i |b_i| |a_i|

    @classmethod
    def of(cls, factors: Sequence[_Factors]) -> _Sums:
        A, B = (
            linalg.gram([getattr(one, which) for one in factors]).cpu().numpy() for which in "AB"
        )
        ranks = np.array([one.A.shape[1] for one in factors])
        starts = np.cumsum(ranks) - ranks
        with np.errstate(invalid="ignore"):  # what is not finite is refused by the caller
            blocks = np.add.reduceat(np.add.reduceat(A * B, starts, axis=0), starts, axis=1)
        lengths = np.sqrt(A.diagonal()) * np.sqrt(B.diagonal())
        return cls(ranks, blocks, np.add.reduceat(lengths, starts))

    @property
    def squares(self) -> Array:
        return np.maximum(self.blocks.diagonal(), 0.0)

    @property
    def lengths(self) -> Array:
        return np.sqrt(self.squares)


def _gamma(terms: NDArray[np.int64]) -> Array:
    """Bound on the relative error of a sum of so many products (Higham 2002, section 3.1)."""
    return np.asarray(terms * _UNIT / (1 - terms * _UNIT))


def _over(numerator: Array, denominator: Array) -> Array:
    """Divide; 0 where there is nothing to divide by."""
    return np.divide(
        numerator,
        denominator,
        out=np.zeros(np.broadcast(numerator, denominator).shape),
        where=denominator > 0,
    )
