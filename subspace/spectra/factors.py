"""Tall factors of a batch of modules: read once, split by one method, their cores decomposed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from subspace import linalg
from subspace.errors import NonFiniteError
from subspace.spectra.batches import IN_CACHE
from subspace.spectra.rounding import noise_level

if TYPE_CHECKING:
    from collections.abc import Sequence

    from subspace.adapters import LowRankUpdate

Device = str | torch.device

_UNIT_ROUNDOFF = {torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8, torch.float32: 2.0**-24}
_HALF_SUBNORMAL = 2.0**-25  # half the spacing of float16's subnormals


@dataclass(frozen=True, eq=False)
class Factor:
    """A tall factor (d, r), with what its storage rounded away if that is not the dtype's own."""

    tall: Tensor
    which: Literal["A", "B"]
    update: LowRankUpdate
    rounding: float | None = None

    def rounded(self, norm: float) -> float:
        """Frobenius bound of what storing this factor, of the given norm, changed."""
        if self.rounding is not None:
            return self.rounding
        return max(_rounding(self.tall, norm), self.update.rounding * norm)

    @property
    def is_half(self) -> bool:
        """Whether it is stored as it is in 16 bits, whose rounding is noise that can be seen."""
        stored = self.tall.dtype in (torch.float16, torch.bfloat16)
        return stored and self.rounding is None and not self.update.rounding

    def rounded_as_noise(self, norm: float) -> float:
        """Spectral bound of what storing it changed, as independent noise; at most `rounded`.

        Bounds wider formats too, but as `rounded` does: there the noise of the arithmetic that made
        the numbers is as large.
        """
        bound = self.rounded(norm)
        return min(bound, noise_level(self.tall)) if self.is_half else bound


def moved(update: LowRankUpdate, A0: Tensor) -> Factor:
    """Return A - A_0; what both lost in storage stays, however small the difference."""
    both = (update.A.double(), A0.double())
    norms = [float(torch.linalg.vector_norm(t)) for t in both]
    rounding = _rounding(update.A, norms[0]) + _rounding(A0, norms[1])
    return Factor((both[0] - both[1]).mT, "A", update, rounding)


def _rounding(factor: Tensor, norm: float) -> float:
    unit = _UNIT_ROUNDOFF.get(factor.dtype, 2.0**-53)
    extra = _HALF_SUBNORMAL * math.sqrt(factor.numel()) if factor.dtype == torch.float16 else 0.0
    return unit * norm + extra


@dataclass(frozen=True, eq=False)
class Split:
    """One factor of N adapters, batched over n modules and split by one method.

    Several sides ask the same questions of it, so the answers stay.
    """

    parts: Sequence[linalg.Orthogonal]  # N of them
    grams: Tensor  # (n, R, R) of all their columns side by side

    @cached_property
    def cores(self) -> Sequence[Core]:
        """SVDs of the factors themselves."""
        return [Core.of_factor(part) for part in self.parts]

    @cached_property
    def norms(self) -> Sequence[Tensor]:
        """Frobenius norms of the factors, (n,) on the CPU."""
        return [(torch.linalg.matrix_norm(p.R) * p.scale).cpu() for p in self.parts]

    @cached_property
    def tops(self) -> Sequence[Tensor]:
        """Largest singular values of the factors, (n,) on the CPU."""
        if "cores" in self.__dict__:
            return [core.S[..., 0] for core in self.cores]
        # The largest eigenvalue of a Gram is sure to rounding, at half the cost of an SVD.
        squares = [torch.linalg.eigvalsh(p.R @ p.R.mT)[..., -1] for p in self.parts]
        return [
            (x.clamp(min=0).sqrt() * p.scale).cpu()
            for x, p in zip(squares, self.parts, strict=True)
        ]


class Splitter:
    """Split factors by a method; what was split before is not read again."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._done: dict[tuple[object, ...], Split] = {}

    def __call__(self, factors: Sequence[Sequence[Factor]], method: linalg.QRMethod) -> Split:
        """Split row n's factors of N adapters, equal shapes over rows, together."""
        key = (method, *(factor for row in factors for factor in row))
        if key not in self._done:
            self._done[key] = _split(factors, method, self._device)
        return self._done[key]


def _split(factors: Sequence[Sequence[Factor]], method: linalg.QRMethod, device: Device) -> Split:
    # adapter by adapter, the tall factors of all modules
    talls = [[row[n].tall.to(device) for row in factors] for n in range(len(factors[0]))]
    if method == "cholesky" and all(t[0].dtype != torch.float64 for t in talls):
        # 32 bits or fewer: no square overflows or vanishes, so one pass over the factors is all.
        grams = _grams(talls)
        if not bool(torch.isfinite(grams.diagonal(dim1=-2, dim2=-1)).all()):
            _refuse_non_finite(factors)
        parts, at = [], 0
        for tall in talls:
            stop = at + tall[0].shape[-1]
            parts.append(linalg.from_gram(tall, grams[:, at:stop, at:stop]))
            at = stop
        return Split(parts, grams)
    stacks = [torch.stack(tall) for tall in talls]
    if not all(bool(torch.isfinite(stack).all()) for stack in stacks):
        _refuse_non_finite(factors)
    parts = [linalg.orthogonalise(stack, method) for stack in stacks]
    return Split(parts, _grams([tuple(part.columns) for part in parts]))


def _grams(talls: Sequence[Sequence[Tensor]]) -> Tensor:
    """Gram (n, R, R) of N adapters' n modules: one product of all, or large ones one by one."""
    n, first = len(talls[0]), talls[0][0]
    stored = n * len(first) * sum(tall[0].shape[-1] for tall in talls)
    if n > 1 and (first.device.type == "cuda" or stored <= IN_CACHE):
        return linalg.gram([torch.stack(tuple(tall)) for tall in talls])
    return torch.stack([linalg.gram(module) for module in zip(*talls, strict=True)])


def require_finite(update: LowRankUpdate, which: Literal["A", "B"]) -> None:
    """Refuse NaN and infinity in a factor: `solve` does so itself for those that a side reads.

    Raises
    ------
    NonFiniteError
        With the module, the count, the first index and the file.
    """
    factor = update.A if which == "A" else update.B
    # A sum meets every entry and needs no buffer; only where it is not finite, look closely.
    if math.isfinite(float(factor.sum(dtype=torch.float64))):
        return
    bad = ~torch.isfinite(factor)
    if bool(bad.any()):
        first = [int(x) for x in bad.nonzero()[0]]
        raise NonFiniteError(
            f"{int(bad.sum())} of {bad.numel()} entries of {which} in module {update.name!r} "
            f"are NaN or infinite, the first at index {first} ({update.source or 'in memory'}): "
            "the run that wrote it diverged or the file is damaged"
        )


def _refuse_non_finite(factors: Sequence[Sequence[Factor]]) -> None:
    for row in factors:
        for factor in row:
            require_finite(factor.update, factor.which)
            if not bool(torch.isfinite(factor.tall).all()):
                raise NonFiniteError(
                    f"the initial A of module {factor.update.name!r} holds NaN or infinity "
                    f"(initial_A.safetensors beside {factor.update.source or 'memory'})"
                )


@dataclass(frozen=True, eq=False)
class Core:
    """SVD of the small core of a batch of n; all on the CPU but X and Z."""

    X: Tensor  # (n, k, r)
    S: Tensor  # (n, r)
    Z: Tensor  # (n, k', r)
    error: Tensor  # (n,) bound on the error of S
    sound: Tensor  # (n,)

    @classmethod
    def of_factor(cls, part: linalg.Orthogonal) -> Core:
        """SVD of R, whose left vectors mix Q into the factor's own directions."""
        X, S, Z = linalg.svd(part.R)
        r = part.R.shape[-1]
        relative = linalg.EPS * (part.kappa.square() if part.method == "cholesky" else math.sqrt(r))
        error = relative * S[..., 0] * part.scale
        return cls._padded(X, S * part.scale[..., None], Z, r, error=error, sound=part.sound)

    @classmethod
    def of_update(cls, near: linalg.Orthogonal, far: linalg.Orthogonal) -> Core:
        """SVD of ``R_near @ R_far.T``, the update between both bases."""
        X, S, Z = linalg.svd(near.R @ far.R.mT)
        # Rounding is columnwise, so the bound must not see how a gauge spreads a scale between
        # the columns of B and the rows of A: sum_j |B_j| |A_j| and not |B| |A|.
        lengths = [torch.linalg.vector_norm(part.R, dim=-2) for part in (near, far)]
        r = near.R.shape[-1]
        error = 2 * math.sqrt(r) * linalg.EPS * (lengths[0] * lengths[1]).sum(-1)
        if near.method == "cholesky":
            error = error + linalg.EPS * (near.kappa.square() + far.kappa.square()) * S[..., 0]
        scale, sound = near.scale * far.scale, near.sound & far.sound
        return cls._padded(X, S * scale[..., None], Z, r, error=error * scale, sound=sound)

    @classmethod
    def _padded(cls, X: Tensor, S: Tensor, Z: Tensor, r: int, **facts: Tensor) -> Core:
        """Fill up to r columns, those beyond the rank that d allows being zero."""
        X, S, Z = (torch.nn.functional.pad(each, (0, r - S.shape[-1])) for each in (X, S, Z))
        return cls(X, S.cpu(), Z, **{name: fact.cpu() for name, fact in facts.items()})
