"""One side of a batch of modules: directions, how they overlap, and how sure both are.

`solve` takes the methods of `subspace.linalg` in turn: a module that one cannot vouch for goes to
the next.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from subspace import linalg
from subspace.errors import ArgumentError
from subspace.results import SIDES, Side
from subspace.spectra import kronecker
from subspace.spectra.factors import Core, Device, Factor, Split, Splitter, moved
from subspace.spectra.solved import CELL_BOUND, Directions, Solved, angle_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from subspace.adapters import LowRankUpdate
    from subspace.spectra.solved import Method


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
        solved[side] = _solve_in_turn(modules, near, far, device, split)
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


def _solve_in_turn(
    modules: Sequence[Sequence[LowRankUpdate]],
    near: Sequence[Sequence[Factor]],
    far: Sequence[Sequence[Factor]] | None,
    device: Device,
    split: Splitter,
) -> list[Solved]:
    """Solve by the first method, but for Kronecker products; hand on what it cannot vouch for."""
    results: dict[int, Solved] = {}
    if far is not None:
        for n, row in enumerate(modules):
            if kronecker.alike(row):
                results[n] = kronecker.solve(row, near[n][0].which, device)
    todo = [n for n in range(len(modules)) if n not in results]
    cuda = torch.device(device).type == "cuda"
    methods: tuple[linalg.QRMethod, ...] = (
        ("cholesky", "cholesky_qr2", "householder_qr") if cuda else ("cholesky", "householder_qr")
    )
    for method in methods:
        if not todo:
            break
        chosen = ([near[n] for n in todo], None if far is None else [far[n] for n in todo])
        solved = _solve_by([modules[n] for n in todo], *chosen, method, device, split)
        left = []
        for n, (result, sound) in zip(todo, solved, strict=True):
            if sound or method == methods[-1]:
                results[n] = result
            else:
                left.append(n)
        todo = left
    return [results[n] for n in range(len(modules))]


def _solve_by(
    modules: Sequence[Sequence[LowRankUpdate]],
    near: Sequence[Sequence[Factor]],
    far: Sequence[Sequence[Factor]] | None,
    method: linalg.QRMethod,
    device: Device,
    split: Splitter | None = None,
) -> list[tuple[Solved, bool]]:
    """Solve a batch by one method; False beside a module whose cells want the next one."""
    split = split or Splitter(device)
    here = split(near, method)
    there = None if far is None else split(far, method)
    if there is None:
        cores = here.cores
    else:
        cores = [Core.of_update(*pair) for pair in zip(here.parts, there.parts, strict=True)]
    mixed = [p.transform @ c.X for p, c in zip(here.parts, cores, strict=True)]  # (n, m, r)
    joined = _block_diagonal(mixed)
    overlaps = (joined.mT @ here.grams @ joined).cpu()
    solutions: list[tuple[list[Directions], list[Directions]]] = [([], []) for _ in modules]
    sound = torch.ones(len(modules), dtype=torch.bool)
    for n, core in enumerate(cores):
        updates = [row[n] for row in modules]
        level = _levels(
            n, (near, here), None if far is None or there is None else (far, there), core.S
        )
        gain = torch.ones_like(level)
        turned = None
        if there is not None:
            gain = torch.tensor([abs(u.scale) for u in updates], dtype=torch.float64)
            # U belongs to the near side, V to the far one: V takes a negative scale's sign.
            signs = torch.tensor([math.copysign(1.0, u.scale) for u in updates]).to(core.Z)
            turned = there.parts[n].transform @ core.Z * signs[:, None, None]
        error = core.error + torch.tensor([u.error for u in updates], dtype=torch.float64)
        # What the method leaves uncertain cannot be told from zero either.
        ranks = (torch.maximum(level, error)[:, None] < core.S).sum(-1)
        empty = (core.S[:, 0] == 0) | (gain == 0)
        ranks[empty] = 0
        d = len(here.parts[n].columns[0])
        # No other method can mend what the update itself leaves open.
        unsure = angle_errors(core.S, core.error, d) > CELL_BOUND / 2
        unsure &= torch.arange(core.S.shape[1]) < ranks[:, None]
        sound &= empty | (core.sound & ~unsure.any(-1))
        methods: list[Method] = ["none" if zero else method for zero in empty.tolist()]
        S, levels, errors = core.S * gain[:, None], level * gain, error * gain
        for at, update in enumerate(updates):
            columns = here.parts[n].columns[at]
            own = Directions(
                dimension=len(columns),
                formed=_mixed(columns, mixed[n][at]),
                S=S[at],
                rank=int(ranks[at]),
                level=float(levels[at]),
                error=float(errors[at]),
                method=methods[at],
                beyond=update.beyond,
            )
            solutions[at][0].append(own)
            if turned is not None and there is not None:
                columns = there.parts[n].columns[at]
                other = _mixed(columns, turned[at])
                solutions[at][1].append(replace(own, dimension=len(columns), formed=other))
    return [
        (Solved(tuple(directions), tuple(partners), overlap), certain)
        for (directions, partners), overlap, certain in zip(
            solutions, overlaps, sound.tolist(), strict=True
        )
    ]


def _mixed(columns: Tensor, coefficients: Tensor) -> Callable[[int], Tensor]:
    """Say how ``columns @ coefficients`` is formed: a stored factor's columns, or a basis's."""
    return lambda k: linalg.orthonormal(columns, coefficients[:, :k])


def _levels(
    n: int,
    near: tuple[Sequence[Sequence[Factor]], Split],
    far: tuple[Sequence[Sequence[Factor]], Split] | None,
    S: Tensor,
) -> Tensor:
    """Bound what storing the n-th adapter's factors changed of each update, (modules,).

    By the Frobenius norm of the rounding (Weyl); where that hides directions of a factor in 16
    bits, by the spectral norm of the noise that it is (`subspace.spectra.rounding`).
    """

    def level(at: int, bound: Callable[[Factor, float], float]) -> float:
        factors, split = near
        e1 = bound(factors[at][n], float(split.norms[n][at]))
        if far is None:
            return e1
        others, split2 = far
        e2 = bound(others[at][n], float(split2.norms[n][at]))
        tops = float(split.tops[n][at]), float(split2.tops[n][at])
        return max(e1 * tops[1] + tops[0] * e2 + e1 * e2, factors[at][n].update.level)

    levels = [level(at, Factor.rounded) for at in range(len(S))]
    for at, hidden in enumerate((S[:, -1] <= S.new_tensor(levels)).tolist()):
        halves = any(side[0][at][n].is_half for side in (near, far) if side is not None)
        if hidden and halves:
            levels[at] = level(at, Factor.rounded_as_noise)
    return torch.tensor(levels, dtype=torch.float64)


def _block_diagonal(blocks: Sequence[Tensor]) -> Tensor:
    """Lay batched blocks (n, m_i, r_i) out as (n, sum m, sum r)."""
    rows, cols = sum(b.shape[-2] for b in blocks), sum(b.shape[-1] for b in blocks)
    out = blocks[0].new_zeros(blocks[0].shape[0], rows, cols)
    i = j = 0
    for block in blocks:
        out[:, i : i + block.shape[-2], j : j + block.shape[-1]] = block
        i, j = i + block.shape[-2], j + block.shape[-1]
    return out
