"""How many directions of a difference of two checkpoints are kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from subspace.errors import ArgumentError

if TYPE_CHECKING:
    import torch

    from subspace.linalg import Leading

RANK = 16  # directions, where neither a rank nor an energy is asked for
_FIRST = 64  # directions that a search for an energy begins with


@dataclass(frozen=True)
class DiffOptions:
    """What `diff` was asked for, checked."""

    rank: int
    energy: float | None
    factors: bool
    device: torch.device

    def count_kept(self, result: Leading, k: int, norm: float) -> int | None:
        """Return how many of the k directions found are to be kept; None: find more.

        Of a value that is not told apart from zero the direction is arbitrary, and none is kept.
        """
        resolvable = int((result.error < result.S)[: count_sure(result, k)].sum())
        S = result.S[: count_sure(result, k)]
        if self.energy is None:
            return min(self.rank, resolvable)
        shares = (S / norm).square().cumsum(0)
        wanted = int((shares < self.energy * (1 - 1e-12)).sum()) + 1
        if wanted <= resolvable:
            return wanted
        return resolvable if result.method == "gram" else None


def count_sure(result: Leading, k: int) -> int:
    """Return how many values are surely the leading ones: of block Krylov's, those asked for."""
    return len(result.S) if result.method == "gram" else min(k, len(result.S))


def first_count(rank: int | None, energy: float | None) -> int:
    """Return how many directions are looked for first.

    Raises
    ------
    ArgumentError
        A rank below 1, an energy that is no share, or both.
    """
    if rank is not None and energy is not None:
        raise ArgumentError(f"rank is {rank} and energy is {energy:g}; one of them decides")
    if rank is not None and rank < 1:
        raise ArgumentError(f"rank is {rank}; it is a number of directions, from 1 on")
    if energy is not None and not 0 < energy <= 1:
        raise ArgumentError(f"energy is {energy:g}; it is a share of |delta W|^2 in (0, 1]")
    return rank or (RANK if energy is None else _FIRST)
