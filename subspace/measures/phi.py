"""phi(i, j) of two updates at every pair of ranks: Eq. 4 of Hu et al. 2021, arXiv:2106.09685."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from subspace import linalg
from subspace.spectra import CELL_BOUND

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from subspace.spectra import Solved

    Array = NDArray[np.float64]


# Sums of d squares and of d products of float64, all of one sign, come out off by at most half of
# this times eps (1 + sqrt(d)), up to d = 16384: docs/calibration.md.
_SUMS = 4


def phi_cells(
    solved: Solved, pair: tuple[int, int], ranks: tuple[int, int]
) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Return phi(i, j) of two of the adapters of one module, the bound on its error, the mask.

    Parameters
    ----------
    solved
        One side of one module.
    pair
        Which two of its adapters.
    ranks
        Their numerical ranks, 0 for an update that is exactly zero.

    Returns
    -------
    Three of (r_a, r_b): phi, NaN beyond the ranks and where masked; its error bound, NaN beyond the
    ranks; True where a cell cuts a cluster of singular values.
    """
    first, second = (solved.directions[n] for n in pair)
    i, j = np.ogrid[1 : len(first.S) + 1, 1 : len(second.S) + 1]
    real = (i <= ranks[0]) & (j <= ranks[1])
    squares = np.square(solved.overlap(*pair).numpy())
    phi = np.where(real, squares, 0.0).cumsum(axis=0).cumsum(axis=1) / np.minimum(i, j)
    bounds = [x.angle_errors().numpy() for x in (first, second)]
    rounding = _SUMS * linalg.EPS * (1 + math.sqrt(first.dimension))
    error = np.minimum(bounds[0][:, None] + bounds[1][None, :] + rounding, 1.0)
    masked = real & (error > CELL_BOUND)
    phi = np.where(real & ~masked, np.clip(phi, 0.0, 1.0), np.nan)
    return phi, np.where(real, error, np.nan), masked
