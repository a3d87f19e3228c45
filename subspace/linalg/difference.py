"""The difference of two large matrices, never formed as a whole."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Difference:
    """``factor * (minuend - subtrahend)``, (m, n), a panel of rows at a time.

    Has of a tensor what `leading` and `panels` ask a large matrix for, so that two mapped
    checkpoints are decomposed without a copy of either.

    Attributes
    ----------
    minuend, subtrahend : (m, n)
        Of any float dtypes, on one device.
    factor
        A power of two that brings entries of odd sizes near 1.

    >>> D = Difference(torch.ones(2, 3), torch.eye(2, 3))
    >>> first = torch.empty(1, 3)
    >>> D.into(first, slice(0, 1))
    >>> first.tolist(), D.mT.shape
    ([[0.0, 1.0, 1.0]], torch.Size([3, 2]))
    """

    minuend: Tensor
    subtrahend: Tensor
    factor: float = 1.0

    def __post_init__(self) -> None:
        if self.minuend.shape != self.subtrahend.shape:
            raise ValueError(f"{self.minuend.shape} minus {self.subtrahend.shape}")

    def __len__(self) -> int:
        return len(self.minuend)

    @property
    def shape(self) -> torch.Size:
        """(m, n)."""
        return self.minuend.shape

    @property
    def dtype(self) -> torch.dtype:
        """In which both are exact."""
        return torch.promote_types(self.minuend.dtype, self.subtrahend.dtype)

    @property
    def mT(self) -> Difference:
        """The transpose."""
        return Difference(self.minuend.mT, self.subtrahend.mT, self.factor)

    def stride(self, axis: int) -> int:
        """Of the minuend: in which order the panels are best read."""
        return self.minuend.stride(axis)

    def to(self, device: torch.device | str) -> Difference:
        """Move both."""
        return Difference(self.minuend.to(device), self.subtrahend.to(device), self.factor)

    def into(self, panel: Tensor, rows: slice) -> None:
        """Write some rows, subtracted in the panel's own dtype."""
        panel.copy_(self.minuend[rows])
        panel.sub_(self.subtrahend[rows].to(panel.device, panel.dtype))
        if self.factor != 1.0:
            panel.mul_(self.factor)


Matrix = Tensor | Difference
