"""The rows of Table 7 of one module, of every adapter that has it, from one pass over its W."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from subspace import linalg
from subspace.chance.projection import ProjectionNull
from subspace.errors import ArgumentError, NonFiniteError
from subspace.measures.amplification.pretrained_values import STEP
from subspace.results import DirectionGain, ModuleAmplification
from subspace.spectra import CELL_BOUND, is_zero, spectrum

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from subspace.adapters import LowRankUpdate
    from subspace.measures.amplification.pretrained_values import PretrainedValues, ValuesOf
    from subspace.pretrained import Pretrained
    from subspace.spectra import Spectrum

    Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class AmplificationOptions:
    """What `amplifications` was asked for, checked."""

    ranks: Sequence[int] | None
    scaled: bool
    top: bool
    draws: int | None
    seed: int
    device: torch.device

    def __post_init__(self) -> None:
        if self.draws is not None and self.draws < 200:
            raise ArgumentError(f"draws is {self.draws}; a central 95 % wants at least 200")
        if self.seed < 0:
            raise ArgumentError(f"seed is {self.seed}; it must be a whole number >= 0")
        if self.ranks is not None and (not self.ranks or min(self.ranks) < 1):
            raise ArgumentError(f"ranks are {list(self.ranks)}; each is a whole number from 1 on")


def module_rows(
    updates: Sequence[LowRankUpdate],
    base: Pretrained,
    values_of: ValuesOf,
    options: AmplificationOptions,
) -> list[list[ModuleAmplification]]:
    """Table 7 of one module of several adapters, each as if it were alone.

    Raises
    ------
    NonFiniteError
        W or a factor holds NaN or infinity.
    """
    name = updates[0].name
    weight = base.get(name, shape=updates[0].shape)
    W = weight.W
    spectra = [spectrum(update, device=options.device) for update in updates]
    real = [
        0 if is_zero(update) else spec.rank for update, spec in zip(updates, spectra, strict=True)
    ]
    pairs = [(spec.U[:, :k], spec.V[:, :k]) for spec, k in zip(spectra, real, strict=True)]
    dtype = linalg.sweep_dtype(W)
    norm, projections = linalg.sweep(W, pairs, dtype=dtype, device=options.device)
    if not math.isfinite(norm):
        raise NonFiniteError(f"W of module {name!r} holds NaN or infinity ({weight.source})")
    exact: list[torch.Tensor] | None = None
    shared: dict[int, _Shared] = {}
    rows = []
    for n, (update, spec, k) in enumerate(zip(updates, spectra, real, strict=True)):
        P, eps = projections[n], torch.finfo(dtype).eps
        if dtype == torch.float32 and not _six_digits(P, norm, W, options.ranks):
            if exact is None:
                exact = linalg.sweep(W, pairs, dtype=torch.float64, device=options.device)[1]
            P, eps = exact[n], linalg.EPS
        # What an adapter gets depends on its own rank, not on those that it is asked beside.
        size = -(-max(k, 1) // STEP) * STEP
        if size not in shared:
            values = (
                values_of(weight, W, norm, size, options.device)
                if options.top
                else values_of.rough(W, norm, options.device)
            )
            null = ProjectionNull(norm, values, W.shape, size, options.draws, options.seed)
            shared[size] = _Shared(norm, values, null, options)
        rows.append(shared[size].rows(update, spec, k, P.numpy(), eps))
    return rows


def _six_digits(P: torch.Tensor, norm: float, W: torch.Tensor, ranks: Sequence[int] | None) -> bool:
    """Whether float32 products leave 1e-6 of ``|P_k|`` at every rank that is asked for.

    They are off by about 3e-7 of a random direction's |w|, however little of W there is.
    """
    least = 2 * norm / math.sqrt(W.numel())
    ks = [k for k in ranks or [len(P)] if k <= len(P)]
    return all(float(torch.linalg.matrix_norm(P[:k, :k])) >= least for k in ks if k)


@dataclass(frozen=True)
class _Shared:
    """W's values and the null of one module, for all adapters of like rank."""

    w_norm: float
    values: PretrainedValues
    null: ProjectionNull
    options: AmplificationOptions

    def rows(
        self, update: LowRankUpdate, spec: Spectrum, real: int, P: Array, eps: float
    ) -> list[ModuleAmplification]:
        """One adapter's rows, rank by rank, of `real` numerical directions with P = U^T W V."""
        sizes = spec.S[:real].numpy() / (1.0 if self.options.scaled else abs(update.scale))
        gains = self._gains(P, sizes, spec, real, eps)
        wanted = sorted({k for k in (self.options.ranks or [max(real, 1)]) if k <= update.rank})
        cuts = spec.cut_errors().numpy()
        rows = []
        for k in wanted:
            defined = k <= real
            # At a cut through equal singular values the leading k are any of many.
            sure = defined and float(cuts[k - 1]) <= CELL_BOUND
            inside = float(np.linalg.norm(P[:k, :k])) if sure else math.nan
            resolvable = inside > eps * math.sqrt(k) * self.w_norm
            note = self._note(update, real, defined, resolvable)
            if defined and not sure:
                note = (
                    f"singular values {k} and {k + 1} of delta W are equal as far as can be told: "
                    "the leading directions are arbitrary, and so is a factor"
                )
            delta = float(np.linalg.norm(sizes[:k])) if defined or not real else math.nan
            shown = gains[:k] if defined else ()
            rows.append(self._row(update, k, delta, inside, resolvable, shown, note))
        return rows

    def _note(self, update: LowRankUpdate, real: int, defined: bool, resolvable: bool) -> str:
        """Say why something is undefined."""
        if not real:
            return (
                "untrained: the update is exactly zero, so it has no directions and no factor"
                if is_zero(update)
                else "the update is all rounding: it has no directions that are real, and no factor"
            )
        if self.w_norm == 0:
            return "W is exactly zero: nothing to amplify"
        if defined and not resolvable:
            return "W has nothing in these directions that rounding would not leave: no factor"
        if real < update.rank:
            return f"numerical rank {real} of {update.rank}: the directions beyond are rounding"
        return ""

    def _row(
        self,
        update: LowRankUpdate,
        k: int,
        delta: float,
        inside: float,
        resolvable: bool,
        gains: tuple[DirectionGain, ...],
        note: str,
    ) -> ModuleAmplification:
        level, low, high, drawn = self.null.level(k), math.nan, math.nan, False
        if resolvable:
            low, high, drawn = self.null(k)
        top = self.options.top
        S, error = self.values.S[:k], self.values.error[:k]
        return ModuleAmplification(
            module=update.name,
            rank=k,
            shape=update.shape,
            w_norm=self.w_norm,
            delta_norm=delta,
            w_in_delta=inside,
            w_in_w=float(np.linalg.norm(S)) if top else math.nan,
            w_in_w_error=float(np.linalg.norm(error)) if top else math.nan,
            w_in_w_method=self.values.method if top else "skipped",
            w_in_random=level,
            factor=delta / inside if resolvable else math.nan,
            null_factor=_ratio(delta, level),
            null_low=_ratio(delta, high),
            null_high=_ratio(delta, low),
            null_drawn=drawn,
            null_w=self.null.level(1),
            directions=gains,
            note=note,
        )

    def _gains(
        self, P: Array, sizes: Array, spec: Spectrum, real: int, eps: float
    ) -> tuple[DirectionGain, ...]:
        """Per direction: sigma_k, w_k = u_k^T W v_k, their ratio and 1 + sigma_k / w_k."""
        gains = []
        # A direction is as sure as the cuts before and after it, on both sides; W at most w_top.
        w_top = float(self.values.S[0]) if self.options.top else self.w_norm
        unsure = spec.direction_errors()[:real].numpy()
        for k in range(real):
            w, sigma = float(P[k, k]), float(sizes[k])
            bound = 2 * unsure[k] * w_top + eps * math.sqrt(len(P)) * self.w_norm
            sure = abs(w) > bound
            gains.append(
                DirectionGain(
                    sigma=sigma,
                    w=w if sure else None,
                    ratio=sigma / abs(w) if sure else None,
                    gain=1 + sigma / w if sure else None,
                )
            )
        return tuple(gains)


def _ratio(above: float, below: float) -> float:
    return above / below if above > 0 and below > 0 else math.nan
