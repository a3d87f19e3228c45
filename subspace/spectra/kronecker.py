"""Directions of Kronecker products (LoKr), out of the small decompositions of their two blocks.

``M1 (x) M2`` with ``M = U S V.T`` each has the singular values ``s1_i s2_j`` and the directions
``u1_i (x) u2_j``, ``v1_i (x) v2_j`` (Horn & Johnson 1991, Topics in Matrix Analysis, theorem
4.2.15). Two products of blocks of equal sizes overlap by the products of their blocks' overlaps:
nothing of the size of the module is decomposed, nor laid out until somebody wants the directions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from subspace import linalg
from subspace.spectra.factors import Core, Device, require_finite
from subspace.spectra.solved import Directions, Solved

if TYPE_CHECKING:
    from collections.abc import Sequence

    from subspace.adapters import LowRankUpdate


def alike(row: Sequence[LowRankUpdate]) -> bool:
    """Whether all updates of a module are Kronecker products of blocks of the same two sizes."""
    sizes = {None if u.blocks is None else tuple((len(B), A.shape[1]) for B, A in u.blocks)
             for u in row}  # fmt: skip
    return len(sizes) == 1 and None not in sizes


def solve(row: Sequence[LowRankUpdate], near: Literal["A", "B"], device: Device) -> Solved:
    """Directions of the near side, in or out, of one module's updates, which are `alike`.

    Raises
    ------
    NonFiniteError
        A factor holds NaN or infinity.
    """
    products = [_Product.of(update, near, device) for update in row]
    overlaps = torch.cat([torch.cat([a.overlap(b) for b in products], 1) for a in products])
    return Solved(
        tuple(product.directions("near") for product in products),
        tuple(product.directions("far") for product in products),
        overlaps.cpu(),
    )


@dataclass(frozen=True, eq=False)
class _Block:
    """SVD of one of the two matrices: ``near @ diag(S) @ far.T``."""

    near: Tensor  # (p, s)
    S: Tensor  # (s,) on the CPU
    far: Tensor  # (q, s)
    error: float  # bound on the error of S
    level: float  # what the rounding of the stored factors can make of a zero one

    @classmethod
    def of(cls, near: Tensor, far: Tensor, unit: float) -> _Block:
        """Decompose ``near @ far.T``, (p, s) and (q, s); `unit` is the stored numbers' roundoff."""
        parts = [linalg.orthogonalise(factor[None], "householder_qr") for factor in (near, far)]
        core = Core.of_update(*parts)
        U, V = (
            part.columns[0] @ turn[0] for part, turn in zip(parts, (core.X, core.Z), strict=True)
        )
        tops = [float(torch.linalg.matrix_norm(part.R[0], 2) * part.scale[0]) for part in parts]
        # The identity beside a matrix that is stored whole was not stored, nor rounded.
        lost = [0.0 if _is_identity(F) else unit * float(torch.linalg.matrix_norm(F))
                for F in (near, far)]  # fmt: skip
        level = lost[0] * tops[1] + tops[0] * lost[1] + lost[0] * lost[1]
        return cls(U, core.S[0], V, float(core.error[0]), level)


def _is_identity(factor: Tensor) -> bool:
    square = factor.shape[0] == factor.shape[1]
    return square and torch.equal(factor, torch.eye(len(factor)).to(factor))


@dataclass(frozen=True, eq=False)
class _Product:
    one: _Block
    two: _Block
    order: tuple[Tensor, Tensor]  # which directions of both make the k-th, (r,) each
    S: Tensor  # (r,) descending, without the scale
    update: LowRankUpdate

    @classmethod
    def of(cls, update: LowRankUpdate, near: Literal["A", "B"], device: Device) -> _Product:
        assert update.blocks is not None
        require_finite(update, "A")
        require_finite(update, "B")
        # An entry of B or A multiplies at least two stored numbers, one of either block.
        unit = max(update.rounding / 2, linalg.EPS / 2)
        sides = [(B.to(device), A.mT.to(device)) for B, A in update.blocks]
        one, two = (_Block.of(*(side if near == "B" else side[::-1]), unit) for side in sides)
        values, places = torch.outer(one.S, two.S).flatten().sort(descending=True, stable=True)
        width = len(two.S)
        return cls(one, two, (places // width, places % width), values, update)

    def overlap(self, other: _Product) -> Tensor:
        """``U_a.T @ U_b``, (r_a, r_b)."""
        (i, j), (k, m) = self.order, other.order
        first, second = self.one.near.mT @ other.one.near, self.two.near.mT @ other.two.near
        return first[i[:, None], k] * second[j[:, None], m]

    def directions(self, side: Literal["near", "far"]) -> Directions:
        first, second = (
            block.near if side == "near" else block.far for block in (self.one, self.two)
        )
        sign = math.copysign(1.0, self.update.scale) if side == "far" else 1.0

        def formed(k: int) -> Tensor:
            i, j = (at[:k] for at in self.order)
            return sign * (first[:, None, i] * second[None, :, j]).flatten(0, 1)

        gain = abs(self.update.scale)
        tops = [float(block.S[0]) for block in (self.one, self.two)]
        rounded = 2 * linalg.EPS * tops[0] * tops[1]
        error = rounded + _off(tops, (self.one.error, self.two.error))
        level = _off(tops, (self.one.level, self.two.level))
        empty = gain == 0 or float(self.S[0]) == 0
        rank = 0 if empty else int((max(error, level) < self.S).sum())
        return Directions(
            dimension=first.shape[0] * second.shape[0],
            formed=formed,
            S=self.S * gain,
            rank=rank,
            level=level * gain,
            error=error * gain,
            method="none" if empty else "householder_qr",
        )


def _off(tops: Sequence[float], by: tuple[float, float]) -> float:
    """Bound how far a product is off, in spectral norm, whose blocks are off by so much."""
    return by[0] * tops[1] + tops[0] * by[1] + by[0] * by[1]
