"""One side of a batch of modules: directions, how they overlap, and how sure both are.

`solve` climbs the ladder of `subspace.linalg`; what a rung cannot vouch for goes to the next.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from subspace import linalg
from subspace.errors import ArgumentError
from subspace.results import SIDES, Side
from subspace.spectra.factors import Core, Device, Factor, Splitter, moved

if TYPE_CHECKING:
    from collections.abc import Sequence

    from subspace.adapters import LowRankUpdate

CELL_BOUND = 1e-6  # a rung whose error bound on some phi(i, j) is larger is left for the next


@dataclass(frozen=True, eq=False)
class Directions:
    """The leading directions of one side of one module: ``U = columns @ coefficients``."""

    columns: Tensor  # (d, m): the stored factor, or an orthonormal basis of its span
    coefficients: Tensor  # (m, r) float64; zero columns where r > d
    S: Tensor  # (r,) float64 on the CPU, descending; zeros where r > d
    rank: int  # numerical: singular values above both `level` and `error`
    level: float  # what the rounding of the stored factors can make of a zero singular value
    error: float  # bound on the absolute error of S that this rung leaves
    rung: int  # of the ladder in `subspace.linalg`; 0 for a zero factor
    beyond: float = 0.0  # the singular value behind the last one of S

    def form(self) -> Tensor:
        """Return the directions as (d, min(r, d)) float64 on the CPU, orthonormal columns."""
        d, r = self.columns.shape[0], len(self.S)
        if self.rung == 0:
            return torch.eye(d, min(r, d), dtype=torch.float64)
        return linalg.orthonormal(self.columns, self.coefficients[:, : min(r, d)]).cpu()

    def angle_errors(self) -> Tensor:
        """Bound sin(Theta) of the leading i directions, for i = 1 ... r (Wedin 1972, BIT 12).

        ``e / (g_i - e)`` with g_i = sigma_i - sigma_(i+1), g_r = sigma_r - `beyond`; infinite where
        e >= g_i / 2, since such an i cuts a cluster of singular values. All d directions of R^d
        are always known.
        """
        return self._angle_errors

    @cached_property
    def _angle_errors(self) -> Tensor:
        error = self.S.new_tensor(self.error)  # once: each of N adapters is asked N times
        return _angle_errors(self.S, error, self.columns.shape[0], self.beyond)


def _angle_errors(S: Tensor, error: Tensor, d: int, beyond: float = 0.0) -> Tensor:
    gaps = S - torch.nn.functional.pad(S[..., 1:], (0, 1), value=beyond)
    error = error.to(S)[..., None]
    bound = torch.where(2 * error < gaps, error / (gaps - error), torch.inf)
    bound[..., d - 1 :] = 0.0
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


def is_zero(update: LowRankUpdate) -> bool:
    """Whether the update is exactly zero: untrained, since peft starts with B = 0."""

    def zero(factor: Tensor) -> bool:
        # A trained factor is told by its first row; only a zero one is read to its end.
        return not bool(factor[:1].any()) and not bool(factor.any())

    return update.scale == 0 or zero(update.B) or zero(update.A)


def solve(
    modules: Sequence[Sequence[LowRankUpdate]],
    side: Side,
    device: Device = "cpu",
    initial: Sequence[Sequence[Tensor]] | None = None,
) -> list[Solved]:
    """Directions of one side, and their overlaps, for a batch of modules of equal shapes.

    Parameters
    ----------
    modules
        For each module the updates of N adapters; the n-th has the same shape in all modules.
    side
        See `subspace.spectra`.
    initial
        For ``delta-A``: the A before training, laid out as `modules`.

    Raises
    ------
    NonFiniteError
        A factor holds NaN or infinity: module, count, first index and file are named.
    ArgumentError
        An unknown side, or ``delta-A`` without the initial A.
    """
    return solve_sides(modules, (side,), device, initial)[side]


def solve_sides(
    modules: Sequence[Sequence[LowRankUpdate]],
    sides: Sequence[Side],
    device: Device = "cpu",
    initial: Sequence[Sequence[Tensor]] | None = None,
) -> dict[Side, list[Solved]]:
    """`solve` on several sides at once, reading each factor once for all of them.

    ``out`` (or ``in``) gives both spectra and, as partners, the directions of the other side.
    """
    for side in sides:
        if side not in SIDES:
            raise ArgumentError(f"side is {side!r}; it is one of {', '.join(SIDES)}")
        if side not in ("in", "out"):
            _refuse_parts(modules, side)
    A, B = ([[_factor(u, which) for u in row] for row in modules] for which in ("A", "B"))
    split = Splitter(device)
    solved: dict[Side, list[Solved]] = {}
    # A and B first: their singular values spare in and out a decomposition.
    for side in sorted(sides, key=("delta-A", "A", "B", "in", "out").index):
        near = B if side in ("B", "out") else A
        if side == "delta-A":
            if initial is None:
                raise ArgumentError(
                    "side delta-A compares A - A_0 and needs the initial A of both adapters, "
                    "which `subspace train` stores as initial_A.safetensors"
                )
            near = [
                [moved(u, A0) for u, A0 in zip(row, row0, strict=True)]
                for row, row0 in zip(modules, initial, strict=True)
            ]
        far = {"in": B, "out": A}.get(side)
        solved[side] = _climb(modules, near, far, device, split)
    return {side: solved[side] for side in sides}


def _refuse_parts(modules: Sequence[Sequence[LowRankUpdate]], side: Side) -> None:
    for update in (u for row in modules for u in row):
        if update.error or update.beyond:
            raise ArgumentError(
                f"module {update.name!r}: B and A are no factors that were trained but a cut of a "
                f"larger matrix, so that side {side} says nothing of it; compare side in or out"
            )


def _factor(update: LowRankUpdate, which: Literal["A", "B"]) -> Factor:
    return Factor(update.B if which == "B" else update.A.mT, which, update)


def _climb(
    modules: Sequence[Sequence[LowRankUpdate]],
    near: Sequence[Sequence[Factor]],
    far: Sequence[Sequence[Factor]] | None,
    device: Device,
    split: Splitter,
) -> list[Solved]:
    """Solve on the first rung; hand on to the next what it cannot vouch for."""
    results: dict[int, Solved] = {}
    todo = list(range(len(modules)))
    cuda = torch.device(device).type == "cuda"
    rungs: tuple[linalg.Rung, ...] = (1, 2, 3) if cuda else (1, 3)
    for rung in rungs:
        if not todo:
            break
        chosen = ([near[n] for n in todo], None if far is None else [far[n] for n in todo])
        solved = _on_rung([modules[n] for n in todo], *chosen, rung, device, split)
        left = []
        for n, (result, sound) in zip(todo, solved, strict=True):
            if sound or rung == rungs[-1]:
                results[n] = result
            else:
                left.append(n)
        todo = left
    return [results[n] for n in range(len(modules))]


def _on_rung(
    modules: Sequence[Sequence[LowRankUpdate]],
    near: Sequence[Sequence[Factor]],
    far: Sequence[Sequence[Factor]] | None,
    rung: linalg.Rung,
    device: Device,
    split: Splitter | None = None,
) -> list[tuple[Solved, bool]]:
    """Solve a batch on one rung; False beside a module whose cells want the next one."""
    split = split or Splitter(device)
    here = split(near, rung)
    there = None if far is None else split(far, rung)
    if there is None:
        cores = here.cores
    else:
        cores = [Core.of_update(*pair) for pair in zip(here.parts, there.parts, strict=True)]
    mixed = [p.transform @ c.X for p, c in zip(here.parts, cores, strict=True)]  # (n, m, r)
    joined = _block_diagonal(mixed)
    overlaps = (joined.mT @ here.grams @ joined).cpu()
    found: list[tuple[list[Directions], list[Directions]]] = [([], []) for _ in modules]
    sound = torch.ones(len(modules), dtype=torch.bool)
    for n, core in enumerate(cores):
        updates = [row[n] for row in modules]
        level = _levels([row[n] for row in near], here.norms[n])
        gain = torch.ones_like(level)
        turned = None
        if far is not None and there is not None:
            e1, e2 = level, _levels([row[n] for row in far], there.norms[n])
            level = e1 * there.tops[n] + here.tops[n] * e2 + e1 * e2
            level = torch.maximum(level, level.new_tensor([u.level for u in updates]))
            gain = torch.tensor([abs(u.scale) for u in updates], dtype=torch.float64)
            # U belongs to the near side, V to the far one: V takes a negative scale's sign.
            signs = torch.tensor([math.copysign(1.0, u.scale) for u in updates]).to(core.Z)
            turned = there.parts[n].transform @ core.Z * signs[:, None, None]
        error = core.error + torch.tensor([u.error for u in updates], dtype=torch.float64)
        # What the rung leaves uncertain cannot be told from zero either.
        ranks = (torch.maximum(level, error)[:, None] < core.S).sum(-1)
        empty = (core.S[:, 0] == 0) | (gain == 0)
        ranks[empty] = 0
        d = len(here.parts[n].columns[0])
        # No other rung can mend what the update itself leaves open.
        unsure = _angle_errors(core.S, core.error, d) > CELL_BOUND / 2
        unsure &= torch.arange(core.S.shape[1]) < ranks[:, None]
        sound &= empty | (core.sound & ~unsure.any(-1))
        facts = zip(
            core.S * gain[:, None],
            ranks.tolist(),
            (level * gain).tolist(),
            (error * gain).tolist(),
            [0 if zero else rung for zero in empty.tolist()],
            [u.beyond for u in updates],
            strict=True,
        )
        for at, each in enumerate(facts):
            found[at][0].append(Directions(here.parts[n].columns[at], mixed[n][at], *each))
            if turned is not None and there is not None:
                found[at][1].append(Directions(there.parts[n].columns[at], turned[at], *each))
    return [
        (Solved(tuple(directions), tuple(partners), overlap), certain)
        for (directions, partners), overlap, certain in zip(
            found, overlaps, sound.tolist(), strict=True
        )
    ]


def _levels(factors: Sequence[Factor], norms: Tensor) -> Tensor:
    """Bound what storing each factor changed, given its norm."""
    pairs = zip(factors, norms.tolist(), strict=True)
    return torch.tensor([factor.rounded(norm) for factor, norm in pairs], dtype=torch.float64)


def _block_diagonal(blocks: Sequence[Tensor]) -> Tensor:
    """Lay batched blocks (n, m_i, r_i) out as (n, sum m, sum r)."""
    rows, cols = sum(b.shape[-2] for b in blocks), sum(b.shape[-1] for b in blocks)
    out = blocks[0].new_zeros(blocks[0].shape[0], rows, cols)
    i = j = 0
    for block in blocks:
        out[:, i : i + block.shape[-2], j : j + block.shape[-1]] = block
        i, j = i + block.shape[-2], j + block.shape[-1]
    return out
