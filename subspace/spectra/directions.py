"""One side of a batch of modules: directions, how they overlap, and how sure both are.

`solve` climbs the ladder of `subspace.linalg`; what a rung cannot vouch for goes to the next.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from subspace import linalg
from subspace.errors import ArgumentError, NonFiniteError
from subspace.results import SIDES, Side

if TYPE_CHECKING:
    from collections.abc import Sequence

    from subspace.adapters import LowRankUpdate

Device = str | torch.device

CELL_BOUND = 1e-6  # a rung whose error bound on some phi(i, j) is larger is left for the next
_UNIT_ROUNDOFF = {torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8, torch.float32: 2.0**-24}
_HALF_SUBNORMAL = 2.0**-25  # half the spacing of float16's subnormals


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

    def form(self) -> Tensor:
        """Return the directions as (d, min(r, d)) float64 on the CPU, orthonormal columns."""
        d, r = self.columns.shape[0], len(self.S)
        if self.rung == 0:
            return torch.eye(d, min(r, d), dtype=torch.float64)
        return linalg.orthonormal(self.columns, self.coefficients[:, : min(r, d)]).cpu()

    def angle_errors(self) -> Tensor:
        """Bound sin(Theta) of the leading i directions, for i = 1 ... r (Wedin 1972, BIT 12).

        ``e / (g_i - e)`` with g_i = sigma_i - sigma_(i+1) and g_r = sigma_r; infinite where
        e >= g_i / 2, since such an i cuts a cluster of singular values.
        """
        gaps = self.S - torch.cat([self.S[1:], self.S.new_zeros(1)])
        return torch.where(2 * self.error < gaps, self.error / (gaps - self.error), torch.inf)


@dataclass(frozen=True, eq=False)
class Solved:
    """One module and side of N adapters: their directions and how these overlap."""

    directions: tuple[Directions, ...]
    partners: tuple[Directions, ...]  # in/out: the other side's directions of each adapter
    overlaps: Tensor  # (R, R) float64: U_a.T @ U_b of all pairs, adapters side by side

    def overlap(self, a: int, b: int) -> Tensor:
        """``U_a.T @ U_b``, (r_a, r_b) float64 on the CPU."""
        widths = [len(each.S) for each in self.directions]
        row, col = sum(widths[:a]), sum(widths[:b])
        return self.overlaps[row : row + widths[a], col : col + widths[b]]


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
    if side not in SIDES:
        raise ArgumentError(f"side is {side!r}; it is one of {', '.join(SIDES)}")
    if side == "delta-A":
        if initial is None:
            raise ArgumentError(
                "side delta-A compares A - A_0 and needs the initial A of both adapters, which "
                "`subspace train` stores as initial_A.safetensors"
            )
        near = [
            [_moved(u, A0) for u, A0 in zip(row, row0, strict=True)]
            for row, row0 in zip(modules, initial, strict=True)
        ]
    else:
        near = [[_factor(u, "B" if side in ("B", "out") else "A") for u in row] for row in modules]
    far = None
    if side in ("in", "out"):
        far = [[_factor(u, "A" if side == "out" else "B") for u in row] for row in modules]

    results: dict[int, Solved] = {}
    todo = list(range(len(modules)))
    cuda = torch.device(device).type == "cuda"
    rungs: tuple[linalg.Rung, ...] = (1, 2, 3) if cuda else (1, 3)
    for rung in rungs:
        if not todo:
            break
        chosen = ([near[n] for n in todo], None if far is None else [far[n] for n in todo])
        solved = _on_rung([modules[n] for n in todo], *chosen, rung, device)
        left = []
        for n, (result, sound) in zip(todo, solved, strict=True):
            if sound or rung == rungs[-1]:
                results[n] = result
            else:
                left.append(n)
        todo = left
    return [results[n] for n in range(len(modules))]


@dataclass(frozen=True, eq=False)
class _Factor:
    """A tall factor (d, r), with what its storage rounded away if that is not the dtype's own."""

    tall: Tensor
    which: Literal["A", "B"]
    update: LowRankUpdate
    rounding: float | None = None

    def rounded(self, norm: float) -> float:
        """Frobenius bound of what storing this factor, of the given norm, changed."""
        return _rounding(self.tall, norm) if self.rounding is None else self.rounding


def _factor(update: LowRankUpdate, which: Literal["A", "B"]) -> _Factor:
    return _Factor(update.B if which == "B" else update.A.mT, which, update)


def _moved(update: LowRankUpdate, A0: Tensor) -> _Factor:
    """Return A - A_0; what both lost in storage stays, however small the difference."""
    both = (update.A.double(), A0.double())
    norms = [float(torch.linalg.vector_norm(t)) for t in both]
    rounding = _rounding(update.A, norms[0]) + _rounding(A0, norms[1])
    return _Factor((both[0] - both[1]).mT, "A", update, rounding)


def _rounding(factor: Tensor, norm: float) -> float:
    unit = _UNIT_ROUNDOFF.get(factor.dtype, 2.0**-53)
    extra = _HALF_SUBNORMAL * math.sqrt(factor.numel()) if factor.dtype == torch.float16 else 0.0
    return unit * norm + extra


def _on_rung(
    modules: Sequence[Sequence[LowRankUpdate]],
    near: Sequence[Sequence[_Factor]],
    far: Sequence[Sequence[_Factor]] | None,
    rung: linalg.Rung,
    device: Device,
) -> list[tuple[Solved, bool]]:
    """Solve a batch on one rung; False beside a module whose cells want the next one."""
    near_parts, grams = _split(near, rung, device)
    far_parts = [None] * len(near_parts) if far is None else _split(far, rung, device)[0]
    cores = [_core(a, b) for a, b in zip(near_parts, far_parts, strict=True)]
    mixed = [p.transform @ c.X for p, c in zip(near_parts, cores, strict=True)]  # (n, m, r)
    joined = _block_diagonal(mixed)
    overlaps = (joined.mT @ grams @ joined).cpu()
    results = []
    for at, row in enumerate(modules):
        directions, partners, sound = [], [], True
        for n, update in enumerate(row):
            core, part, other = cores[n], near_parts[n], far_parts[n]
            S, error = core.S[at], float(core.error[at])
            level = near[at][n].rounded(float(core.norms[0][at]))
            gain = 1.0
            if far is not None:
                e1, e2 = level, far[at][n].rounded(float(core.norms[1][at]))
                s1, s2 = float(core.tops[0][at]), float(core.tops[1][at])
                level, gain = e1 * s2 + s1 * e2 + e1 * e2, abs(update.scale)
            # What the rung leaves uncertain cannot be told from zero either.
            rank = int((max(level, error) < S).sum())
            facts = (S * gain, rank, level * gain, error * gain, rung if float(S[0]) > 0 else 0)
            directions.append(Directions(part.columns[at], mixed[n][at], *facts))
            if other is not None:
                # U belongs to the near side, V to the far one: V takes a negative scale's sign.
                turned = other.transform[at] @ core.Z[at] * math.copysign(1.0, update.scale)
                partners.append(Directions(other.columns[at], turned, *facts))
            if facts[-1]:
                sure = directions[-1].angle_errors()[:rank] <= CELL_BOUND / 2
                sound = sound and bool(core.sound[at]) and bool(sure.all())
        results.append((Solved(tuple(directions), tuple(partners), overlaps[at]), sound))
    return results


def _split(
    factors: Sequence[Sequence[_Factor]], rung: linalg.Rung, device: Device
) -> tuple[list[linalg.Orthogonal], Tensor]:
    """Split every adapter's factors, batched over modules; Gram (n, R, R) of all their columns."""
    stacks = []
    for n in range(len(factors[0])):
        talls = [row[n].tall.to(device) for row in factors]
        stacks.append(talls[0][None] if len(talls) == 1 else torch.stack(talls))
    if rung == 1 and all(s.dtype != torch.float64 for s in stacks):
        # 32 bits or fewer: no square overflows or vanishes, so one pass over the factors is all.
        grams = _gram(stacks)
        if not bool(torch.isfinite(grams.diagonal(dim1=-2, dim2=-1)).all()):
            _refuse_non_finite(factors)
        parts, at = [], 0
        for stack in stacks:
            stop = at + stack.shape[-1]
            parts.append(linalg.from_gram(stack, grams[:, at:stop, at:stop]))
            at = stop
        return parts, grams
    if not all(bool(torch.isfinite(stack).all()) for stack in stacks):
        _refuse_non_finite(factors)
    parts = [linalg.orthogonalise(stack, rung) for stack in stacks]
    return parts, _gram([part.columns for part in parts])


def _gram(stacks: Sequence[Tensor]) -> Tensor:
    """Take a batch of one, that is one large module, panel by panel."""
    return linalg.gram([s[0] for s in stacks])[None] if len(stacks[0]) == 1 else linalg.gram(stacks)


def _refuse_non_finite(factors: Sequence[Sequence[_Factor]]) -> None:
    for row in factors:
        for factor in row:
            stored = factor.update.A if factor.which == "A" else factor.update.B
            bad = ~torch.isfinite(stored)
            if bool(bad.any()):
                first = [int(x) for x in bad.nonzero()[0]]
                raise NonFiniteError(
                    f"{int(bad.sum())} of {bad.numel()} entries of {factor.which} in module "
                    f"{factor.update.name!r} are NaN or infinite, the first at index {first} "
                    f"({factor.update.source or 'in memory'}): the run that wrote it diverged or "
                    "the file is damaged"
                )
    raise NonFiniteError("the initial A holds NaN or infinity")


@dataclass(frozen=True, eq=False)
class _Core:
    """SVD of the small core of a batch; all on the CPU but X and Z."""

    X: Tensor  # (n, k, r)
    S: Tensor  # (n, r)
    Z: Tensor  # (n, k', r)
    error: Tensor  # (n,)
    sound: Tensor  # (n,)
    norms: tuple[Tensor, Tensor]  # (n,) Frobenius norms of the near and the far factor
    tops: tuple[Tensor, Tensor]  # (n,) their largest singular values


def _core(near: linalg.Orthogonal, far: linalg.Orthogonal | None) -> _Core:
    """SVD of R (one factor) or of R_near R_far^T (the update), with a bound on its error."""
    r = near.R.shape[-1]
    root = math.sqrt(r) * linalg.EPS
    if far is None:
        X, S, Z = linalg.svd(near.R)
        relative = linalg.EPS * near.kappa.square() if near.rung == 1 else root
        error, scale, sound = relative * S[..., 0], near.scale, near.sound
        norms = tops = (torch.linalg.matrix_norm(near.R) * scale, torch.ones_like(scale))
    else:
        X, S, Z = linalg.svd(near.R @ far.R.mT)
        # Rounding is columnwise, so the bound must not see how a gauge spreads a scale between
        # the columns of B and the rows of A: sum_j |B_j| |A_j| and not |B| |A|.
        lengths = [torch.linalg.vector_norm(part.R, dim=-2) for part in (near, far)]
        error = 2 * root * (lengths[0] * lengths[1]).sum(-1)
        if near.rung == 1:
            error = error + linalg.EPS * (near.kappa.square() + far.kappa.square()) * S[..., 0]
        scale, sound = near.scale * far.scale, near.sound & far.sound
        norms = tuple(torch.linalg.matrix_norm(p.R) * p.scale for p in (near, far))
        tops = tuple(torch.linalg.matrix_norm(p.R, 2) * p.scale for p in (near, far))
    S = torch.nn.functional.pad(S * scale[..., None], (0, r - S.shape[-1]))
    return _Core(
        torch.nn.functional.pad(X, (0, r - X.shape[-1])),
        S.cpu(),
        torch.nn.functional.pad(Z, (0, r - Z.shape[-1])),
        (error * scale).cpu(),
        sound.cpu(),
        (norms[0].cpu(), norms[1].cpu()),
        (tops[0].cpu(), tops[1].cpu()),
    )


def _block_diagonal(blocks: Sequence[Tensor]) -> Tensor:
    """Lay batched blocks (n, m_i, r_i) out as (n, sum m, sum r)."""
    rows, cols = sum(b.shape[-2] for b in blocks), sum(b.shape[-1] for b in blocks)
    out = blocks[0].new_zeros(blocks[0].shape[0], rows, cols)
    i = j = 0
    for block in blocks:
        out[:, i : i + block.shape[-2], j : j + block.shape[-1]] = block
        i, j = i + block.shape[-2], j + block.shape[-1]
    return out
