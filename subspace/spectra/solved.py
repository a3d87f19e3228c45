"""What solving a side of a module gives: its directions, how they overlap, how sure both are."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from subspace import linalg

if TYPE_CHECKING:
    from collections.abc import Callable

Method = linalg.QRMethod | Literal["none"]  # none: a zero factor has nothing to split

CELL_BOUND = 1e-6  # a method whose error bound on some phi(i, j) is larger gives way to the next


@dataclass(frozen=True, eq=False, kw_only=True)
class Directions:
    """The leading directions of one side of one module; themselves only where `form` is called."""

    dimension: int  # d of the space that they lie in
    formed: Callable[[int], Tensor] = field(repr=False)  # the first k, orthonormal columns
    S: Tensor  # (r,) float64 on the CPU, descending; zeros where r > d
    rank: int  # numerical: singular values above both `level` and `error`
    level: float  # what the rounding of the stored factors can make of a zero singular value
    error: float  # bound on the absolute error of S that this method leaves
    method: Method
    beyond: float = 0.0  # the singular value behind the last one of S

    def form(self) -> Tensor:
        """Return the directions as (d, min(r, d)) float64 on the CPU, orthonormal columns."""
        k = min(len(self.S), self.dimension)
        if self.method == "none":
            return torch.eye(self.dimension, k, dtype=torch.float64)
        return self.formed(k).cpu()

    def angle_errors(self) -> Tensor:
        """Bound sin(Theta) of the leading i directions, for i = 1 ... r (Wedin 1972, BIT 12).

        ``e / (g_i - e)`` with g_i = sigma_i - sigma_(i+1), g_r = sigma_r - `beyond`; infinite where
        e >= g_i / 2, since such an i cuts a cluster of singular values. All d directions of R^d
        are known but for how far from orthonormal they come out, e / sigma_1.
        """
        return self._angle_errors

    @cached_property
    def _angle_errors(self) -> Tensor:
        error = self.S.new_tensor(self.error)  # once: each of N adapters is asked N times
        return angle_errors(self.S, error, self.dimension, self.beyond)


def angle_errors(S: Tensor, error: Tensor, d: int, beyond: float = 0.0) -> Tensor:
    """`Directions.angle_errors` of singular values S (…, r) with a bound on their error (…)."""
    gaps = S - torch.nn.functional.pad(S[..., 1:], (0, 1), value=beyond)
    error = error.to(S)[..., None]
    bound = torch.where(2 * error < gaps, error / (gaps - error), torch.inf)
    largest = S[..., :1]
    whole = torch.where(largest > 0, error / largest, 0.0)
    bound[..., d - 1 :] = whole
    return bound


@dataclass(frozen=True, eq=False)
class Solved:
    """One module and side of N adapters: their directions and how these overlap."""

    directions: tuple[Directions, ...]
    partners: tuple[Directions, ...]  # in/out: the other side's directions of each adapter
    overlaps: Tensor  # (R, R) float64: U_a.T @ U_b of all pairs, adapters side by side

    def overlap(self, a: int, b: int) -> Tensor:
        """``U_a.T @ U_b``, (r_a, r_b) float64 on the CPU."""
        rows, columns = self._places[a], self._places[b]
        return self.overlaps[rows, columns]

    @cached_property
    def _places(self) -> list[slice]:
        ends = [0, *accumulate(len(each.S) for each in self.directions)]
        return [slice(start, end) for start, end in pairwise(ends)]
