"""What storing two matrices has rounded away of their difference, and which directions that hides.

`subspace.spectra.rounding` says what the noise is and what its spectral norm stays below. A
singular value of the difference beyond that is not rounding alone.

Both matrices were rounded, but the base need not have been: a tuned model that was loaded from the
stored base began on its grid, and then what it learned is exact. So the base's rounding counts in
full only where it can be there: what the leading k directions leave of the difference must have
room for it. With the tuned one's noise T and the base's B, of expected |T|^2 and |B|^2, and R the
energy that is left, mn / ((m-k)(n-k)) times to make up for the noise that went with the k
directions, B counts by min(1, (R - |T|^2) / |B|^2), and is none below zero.

What the level does not cover: an update of less than half a spacing nearly everywhere, whose
storage is a threshold and no noise, can leave directions of its own if its entries have few sizes.
Tests simulate all of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from subspace import linalg
from subspace.spectra.rounding import FORMATS, edge

if TYPE_CHECKING:
    from collections.abc import Sequence

_CANCELLED = 1e-13  # of the energy: what subtracting the leading directions' leaves unsure


def coarsest(W: Tensor) -> torch.dtype:
    """Return the dtype with the fewest digits that holds all of W: bfloat16 saved as float32, say.

    >>> coarsest(torch.tensor([[1.0, 1.5]])), coarsest(torch.tensor([[1.0, 0.1]]))
    (torch.bfloat16, torch.float32)
    """
    digits = FORMATS[W.dtype][0]
    left = [dtype for dtype, (bits, _) in FORMATS.items() if bits < digits]
    for _, panel in linalg.panels(W, W.dtype, W.device):
        left = [dtype for dtype in left if torch.equal(panel.to(dtype).to(panel.dtype), panel)]
        if not left:
            break
    return left[0] if left else W.dtype


@dataclass(frozen=True, eq=False)
class _Stored:
    """Sums of the variances q^2/12 of one of the two matrices."""

    rows: Tensor  # (rows in which something changed,)
    columns: Tensor
    typical: float  # sum v^2 / sum v of all entries

    @property
    def energy(self) -> float:
        """Of the rounding, in the mean."""
        return min(float(self.rows.sum()), float(self.columns.sum()))


@dataclass(frozen=True, eq=False)
class Rounding:
    """What storing two (m, n) matrices has made of their difference, and can have made of none."""

    shape: tuple[int, int]
    tuned: _Stored
    base: _Stored
    unit: float = 1.0  # what both were multiplied by before their variances were added up

    @property
    def norm(self) -> float:
        """Its Frobenius norm, root mean square, where both were rounded."""
        return math.sqrt(self.tuned.energy + self.base.energy) / self.unit

    def level(self, base: float = 1.0) -> float:
        """Return what its spectral norm stays below, with so much of the base's variance."""
        if not len(self.tuned.rows):
            return 0.0
        rows = float((self.tuned.rows + base * self.base.rows).max())
        columns = float((self.tuned.columns + base * self.base.columns).max())
        typical = self.tuned.typical + base * self.base.typical
        # No entry is off by more than half a spacing, sqrt(3) standard deviations.
        most = math.sqrt(3 * self.tuned.energy) + math.sqrt(3 * base * self.base.energy)
        return min(edge(rows, columns, typical), most) / self.unit

    def count(self, S: Sequence[float], error: Sequence[float], norm: float) -> tuple[int, float]:
        """Count the leading directions of the difference that are not rounding alone.

        Parameters
        ----------
        S, error
            Its leading singular values, descending, and how far off each may be.
        norm
            Its Frobenius norm.

        Returns
        -------
        How many, and the level at which the count ended: the lowest that was held against one.
        """
        m, n = self.shape
        level, left = math.inf, (norm * self.unit) ** 2
        everything = left
        for k, (sigma, off) in enumerate(zip(S, error, strict=True)):
            spread = m * n / max((m - k) * (n - k), 1)
            room = (left + _CANCELLED * everything) * spread - self.tuned.energy
            share = min(1.0, max(0.0, room) / self.base.energy) if self.base.energy > 0 else 0.0
            level = min(level, self.level(share))
            if sigma <= max(level, off):
                return k, level
            left = max(0.0, left - (sigma * self.unit) ** 2)
        return len(S), level if S else self.level()


class Variances:
    """Adds up the variances of the rounding, by rows and columns, panel by panel.

    Rows and columns in which nothing changed, such as those of tokens that no text had, count for
    nothing: what was not touched was not rounded anew.
    """

    def __init__(self, shape: tuple[int, int], device: torch.device) -> None:
        m, n = self._shape = shape
        self._rows = torch.zeros(2, m, dtype=torch.float64, device=device)
        self._columns = torch.zeros(2, n, dtype=torch.float64, device=device)
        self._fourth = torch.zeros(2, dtype=torch.float64, device=device)
        self._changed_rows = torch.zeros(m, dtype=torch.bool, device=device)
        self._changed_columns = torch.zeros(n, dtype=torch.bool, device=device)

    def add(self, at: slice, base: Tensor, tuned: Tensor, changed: Tensor) -> None:
        """Take one panel of rows: the spacings of both matrices, and where these differ."""
        for which, spacings in enumerate((base, tuned)):
            variances = spacings.square().div_(12)
            self._rows[which, at] = variances.sum(1)
            self._columns[which] += variances.sum(0)
            self._fourth[which] += torch.linalg.vecdot(variances, variances).sum()
        self._changed_rows[at] = changed.any(1)
        self._changed_columns |= changed.any(0)

    def rounding(self, unit: float) -> Rounding:
        """Return what they come to, for matrices that were multiplied by `unit` on the way here."""
        base, tuned = (
            _Stored(
                rows[self._changed_rows],
                columns[self._changed_columns],
                float(fourth / rows.sum()) if bool(rows.any()) else 0.0,
            )
            for rows, columns, fourth in zip(self._rows, self._columns, self._fourth, strict=True)
        )
        return Rounding(self._shape, tuned, base, unit)
