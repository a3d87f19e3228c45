"""What chance gives for ``|U^T W V|_F`` at one W: its level and its central 95 %, at any rank."""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from subspace import chance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from subspace.measures.amplification.pretrained_values import PretrainedValues

    Array = NDArray[np.float64]

DRAWS = 2000
_GAMMA_FROM = 5  # at a smaller rank |U^T W V|^2 is far from Gamma
_DRAWN_TO = 16  # from this rank on the Gamma range is right to 4 %, however spiked W is
_SPIKED = 0.01  # t2/t1^2 a rank: above it W's few large directions skew it
_LISTED = 64  # of W's values that are drawn one by one; those beyond are many and small


class ProjectionChance:
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
        values: PretrainedValues,
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
        mean, variance = chance.projection_moments(1.0, self._values.fourth, k, self._m, self._n)
        low, high = chance.projection_range(mean, variance)
        return self._norm * float(low), self._norm * float(high), False

    @cached_property
    def _drawn(self) -> Array:
        """Norms (draws, k) at all ranks at once, up to one that does not depend on the adapter."""
        r = _DRAWN_TO if self._draws is None else max(self._most, _DRAWN_TO)
        return chance.projection_draws(
            self._values.S[:_LISTED] / self._norm,
            1.0,
            min(r, self._m, self._n),
            self._m,
            self._n,
            draws=self._draws or DRAWS,
            seed=self._seed,
        )
