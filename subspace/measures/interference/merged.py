"""The sum of several updates, from their lengths and cosines: its energy, and what each keeps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from subspace.chance.cosine import merged_energy_std
from subspace.measures.interference.inner_products import Products
from subspace.spectra import CELL_BOUND

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_UNIT = 2.0**-53  # of float64


@dataclass(frozen=True)
class Merged:
    """``sum_k w_k dW_k`` of one module, or of a whole model."""

    energy: float  # |sum w_k dW_k|^2 / sum |w_k dW_k|^2
    error: float
    std: float  # of the energy around 1, under the null
    kept: tuple[float, ...]  # <sum, dW_k> / |dW_k|^2

    @classmethod
    def of(cls, products: Products, weights: Sequence[float], stds: Array | float) -> Merged:
        """Compute all of it from the N x N Gram of the updates.

        With x_k = w_k |dW_k| and C the cosines the energy is ``x^T C x / x^T x``, and
        ``kept_k = sum_j w_j C_jk |dW_j| / |dW_k|``. The null of the energy is that of
        `subspace.chance.cosine.merged_energy_std`.

        Parameters
        ----------
        products
            Lengths and cosines of N updates.
        weights
            N numbers.
        stds : (N, N) or float
            Of each cosine, under the null.

        >>> ones = np.ones((2, 2))
        >>> same = Products(np.array([1.0, 1.0]), ones, 0 * ones)
        >>> Merged.of(same, [1.0, 1.0], 0.1).energy, Merged.of(same, [1.0, -1.0], 0.1).kept
        (2.0, (0.0, 0.0))
        """
        w, lengths = np.asarray(weights, dtype=np.float64), products.norms
        x = w * lengths
        largest = float(np.abs(x).max(initial=0.0))
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            kept = (w * lengths) @ products.gram / lengths
        kept = np.where(lengths > 0, kept, np.nan)
        if largest == 0 or not math.isfinite(largest):
            return cls(math.nan, math.nan, math.nan, tuple(kept.tolist()))
        x = x / largest
        squares = float(x @ x)
        energy = max(float(x @ products.gram @ x) / squares, 0.0)
        sizes = np.abs(x)
        above = float(sizes @ products.errors @ sizes) / squares
        below = float(np.square(x) @ products.errors.diagonal()) / squares
        error = (above + energy * below) / (1 - below) if below < 1 else math.inf
        std = merged_energy_std(x, stds)
        defined = error <= CELL_BOUND
        return cls(energy if defined else math.nan, error, std, tuple(kept.tolist()))


@dataclass(frozen=True, eq=False)
class ModuleShare:
    """One module's share of a whole model."""

    places: tuple[int, ...]  # which of the N adapters have it
    products: Products
    std: float  # of a cosine in it, under the null


def sum_modules(shares: Sequence[ModuleShare], adapters: int) -> tuple[Products, Array]:
    """Lay all modules of each adapter out as one long vector: its Gram is the sum of theirs.

    Returns
    -------
    Products
        Of the N adapters over all modules.
    (N, N) float64
        Standard deviation of each cosine under the null: modules are independent, so that
        variances add up.

    >>> one = Products(np.array([3.0]), np.eye(1), np.zeros((1, 1)))
    >>> two = Products(np.array([4.0, 2.0]), np.ones((2, 2)), np.zeros((2, 2)))
    >>> both, stds = sum_modules([ModuleShare((0,), one, 0.1), ModuleShare((0, 1), two, 0.5)], 2)
    >>> both.norms.tolist(), both.gram[0].round(3).tolist(), stds[0].round(3).tolist()
    ([5.0, 2.0], [1.0, 0.8], [0.322, 0.4])
    """
    tops = np.zeros(adapters)
    for share in shares:
        places = list(share.places)
        tops[places] = np.maximum(tops[places], share.products.norms)
    sure = np.where(tops > 0, tops, 1.0)
    gram, errors, variances = np.zeros((3, adapters, adapters))
    for share in shares:
        at = np.ix_(share.places, share.places)
        sizes = share.products.norms / sure[list(share.places)]
        lengths = np.outer(sizes, sizes)
        gram[at] += lengths * share.products.gram
        errors[at] += lengths * share.products.errors
        variances[at] += np.square(lengths * share.std)
    own = np.sqrt(gram.diagonal())
    safe = np.where(own > 0, own, 1.0)
    scale = np.outer(safe, safe)
    gram = gram / scale
    np.fill_diagonal(gram, own > 0)
    errors = errors / scale + len(shares) * _UNIT
    return Products(tops * own, gram, errors), np.sqrt(variances) / scale
