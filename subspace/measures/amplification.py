"""What does an adapter amplify? Table 7 of the LoRA paper, per module, rank and direction.

Hu et al. 2021, arXiv:2106.09685, section 7.3 and appendix H.4. With U, V the singular vectors of
delta W, the factor is ``|delta W|_F / |U^T W V|_F``. A large factor alone proves nothing: a random
delta W of the paper's norm would have 342 (r = 4) and 11.1 (r = 64) where the paper found 21.6 and
1.9, so that learned updates meet *more* of W than chance. Every factor therefore stands beside
what chance gives.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from subspace import linalg
from subspace.cache import Cache
from subspace.errors import ArgumentError, NonFiniteError
from subspace.measures.pretrained_values import ValuesOf
from subspace.measures.projection_chance import ProjectionChance
from subspace.pretrained import open_pretrained
from subspace.results import Amplification, DirectionGain, ModuleAmplification
from subspace.spectra import is_zero, spectrum, usable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from subspace.adapters import Adapter, LowRankUpdate
    from subspace.measures.pretrained_values import PretrainedValues
    from subspace.pretrained import Pretrained
    from subspace.spectra import Spectrum

    Array = NDArray[np.float64]
    Base = Pretrained | str | os.PathLike[str]


@dataclass(frozen=True)
class _Options:
    ranks: Sequence[int] | None
    scaled: bool
    top: bool
    draws: int | None
    seed: int
    device: torch.device


def amplification(
    adapter: Adapter,
    base: Base,
    *,
    ranks: Sequence[int] | None = None,
    modules: str | None = None,
    scaled: bool = True,
    top: bool = True,
    cache: str | os.PathLike[str] | None = None,
    verify: bool = False,
    draws: int | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    progress: Callable[[int], None] | None = None,
) -> Amplification:
    """Table 7: how much of W lies in the directions of delta W, against chance.

    Parameters
    ----------
    adapter, base
        An adapter and the checkpoint that it was trained on, open or as a path.
    ranks
        Without it, each module at the adapter's own rank: the paper's definition, whose r = 4 and
        r = 64 are two adapters. With it, the update truncated to its leading k directions, on
        both sides, for every k given that the module has.
    modules
        A shell-style pattern.
    scaled
        Whether delta W includes the adapter's scale, alpha / r: what the model really adds. The
        factor depends on it, phi does not.
    top
        Also project W onto its own leading directions. Of a large W that takes many passes where
        the rest takes one; without it `w_in_w` is NaN.
    cache
        A folder in which W's own singular values are kept for the next call. The verb uses
        `subspace.cache.default_folder`; here None keeps nothing.
    verify
        Hash every byte of W before an entry of the cache is believed.
    draws, seed
        Haar draws behind the range that chance has, at least 200. None: 2000 where W's spectrum or
        a small rank calls for them, and the Gamma of two moments elsewhere.
    device
        Where to compute: any torch device with float64.
    progress
        Called with the number of modules that were finished.

    Returns
    -------
    `Amplification`, a sequence of rows: a module, and a rank within it.

    Raises
    ------
    UnknownModuleError
        The base lacks a module, or none matches `modules`.
    ShapeError
        A module of the base has another shape.
    NonFiniteError
        W or a factor holds NaN or infinity.
    ArgumentError
        A rank below 1, no module of a rank asked for, fewer than 200 draws, or a device that this
        machine lacks.

    Notes
    -----
    W is read once for the norm and the projections, in panels: memory is one panel and the
    directions, beside W as it lies in the file. Its own singular values are a second stage, see
    `subspace.linalg.leading`. A large W is multiplied in float32 and summed in float64; where that
    leaves less than six digits of a projection, which only the smallest ranks meet, in float64.
    """
    options = _Options(ranks, scaled, top, draws, seed, usable(device))
    return _table7([adapter], base, modules, cache, verify, options, progress)[0]


def amplifications(
    adapters: Sequence[Adapter],
    base: Base,
    *,
    ranks: Sequence[int] | None = None,
    modules: str | None = None,
    scaled: bool = True,
    top: bool = True,
    cache: str | os.PathLike[str] | None = None,
    verify: bool = False,
    draws: int | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    progress: Callable[[int], None] | None = None,
) -> tuple[Amplification, ...]:
    """Table 7 of several adapters of one base, in one pass over it.

    The directions of all are set side by side, so that W is read, converted and multiplied once.
    Options and errors are those of `amplification`; a module that only some adapters have is in
    their results alone.
    """
    options = _Options(ranks, scaled, top, draws, seed, usable(device))
    return _table7(adapters, base, modules, cache, verify, options, progress)


def _table7(
    adapters: Sequence[Adapter],
    base: Base,
    modules: str | None,
    cache: str | os.PathLike[str] | None,
    verify: bool,
    options: _Options,
    progress: Callable[[int], None] | None,
) -> tuple[Amplification, ...]:
    ranks = options.ranks
    if options.draws is not None and options.draws < 200:
        raise ArgumentError(f"draws is {options.draws}; a central 95 % wants at least 200")
    if ranks is not None and (not ranks or min(ranks) < 1):
        raise ArgumentError(f"ranks are {list(ranks)}; each is a whole number from 1 on")
    if isinstance(base, str | os.PathLike):
        base = open_pretrained(base)
    chosen = [adapter.select(modules) for adapter in adapters]
    # Shapes first: a base that is not the adapter's is refused before the work.
    for adapter in chosen:
        for name, info in adapter.updates.items():
            base.get(name, shape=info.shape)
    values_of = ValuesOf(base, None if cache is None else Cache(Path(cache)), verify=verify)
    rows: list[list[ModuleAmplification]] = [[] for _ in chosen]
    for name in dict.fromkeys(name for adapter in chosen for name in adapter):
        having = [n for n, adapter in enumerate(chosen) if name in adapter]
        done = _module([chosen[n][name] for n in having], base, values_of, options)
        for n, found in zip(having, done, strict=True):
            rows[n] += found
        if progress is not None:
            progress(1)
    for adapter, found in zip(chosen, rows, strict=True):
        if not found:
            highest = max((info.rank for info in adapter.updates.values()), default=0)
            raise ArgumentError(
                f"adapter {adapter.name!r} has no module of a rank asked for: its ranks go to "
                f"{highest}"
            )
    return tuple(
        Amplification(adapter.name, base.name, options.scaled, options.seed, tuple(found))
        for adapter, found in zip(chosen, rows, strict=True)
    )


def _module(
    updates: Sequence[LowRankUpdate], base: Pretrained, values_of: ValuesOf, options: _Options
) -> list[list[ModuleAmplification]]:
    """Table 7 of one module of several adapters."""
    name = updates[0].name
    weight = base.get(name, shape=updates[0].shape)
    W = weight.W
    spectra = [spectrum(update, device=options.device) for update in updates]
    real = [
        0 if is_zero(update) else spec.rank for update, spec in zip(updates, spectra, strict=True)
    ]
    pairs = [(spec.U[:, :k], spec.V[:, :k]) for spec, k in zip(spectra, real, strict=True)]
    dtype = linalg.sweep_dtype(W)
    t1, projections = linalg.sweep(W, pairs, dtype=dtype, device=options.device)
    if not math.isfinite(t1):
        raise NonFiniteError(f"W of module {name!r} holds NaN or infinity ({weight.source})")
    if dtype == torch.float32 and not all(
        _six_digits(P, t1, W, options.ranks) for P in projections
    ):
        dtype = torch.float64
        _, projections = linalg.sweep(W, pairs, dtype=dtype, device=options.device)
    if options.top:
        values = values_of(weight, W, max(1, *real), options.device)
    else:
        values = values_of.rough(W, options.device)
    facts = _Facts(
        math.sqrt(t1),
        values,
        ProjectionChance(t1, values, W.shape, max(real), options.draws, options.seed),
        float(torch.finfo(dtype).eps),
        options,
    )
    return [
        facts.rows(update, spec, k, P.numpy())
        for update, spec, k, P in zip(updates, spectra, real, projections, strict=True)
    ]


def _six_digits(P: torch.Tensor, t1: float, W: torch.Tensor, ranks: Sequence[int] | None) -> bool:
    """Whether float32 products leave 1e-6 of ``|P_k|`` at every rank that is asked for.

    They are off by about 3e-7 of a random direction's |w|, however little of W there is.
    """
    least = 2 * math.sqrt(t1 / W.numel())
    ks = [k for k in ranks or [len(P)] if k <= len(P)]
    return all(float(torch.linalg.matrix_norm(P[:k, :k])) >= least for k in ks if k)


@dataclass(frozen=True)
class _Facts:
    """What the rows of one module share, whichever adapter they are of."""

    w_norm: float
    values: PretrainedValues
    chance: ProjectionChance
    eps: float  # of the products with W
    options: _Options

    def rows(
        self, update: LowRankUpdate, spec: Spectrum, real: int, P: Array
    ) -> list[ModuleAmplification]:
        """One adapter's rows, rank by rank, of `real` numerical directions with P = U^T W V."""
        note = ""
        if not real:
            note = "untrained: the update is exactly zero, so it has no directions and no factor"
        elif self.w_norm == 0:
            note = "W is exactly zero: nothing to amplify"
        elif real < update.rank:
            note = f"numerical rank {real} of {update.rank}: the directions beyond are rounding"
        sizes = spec.S[:real].numpy() / (1.0 if self.options.scaled else abs(update.scale))
        gains = self._gains(P, sizes, spec, real)
        most = max(real, 1)
        wanted = sorted({k for k in (self.options.ranks or [most]) if k <= most})
        return [self._row(update, k, P, sizes, gains, note) for k in wanted]

    def _row(
        self,
        update: LowRankUpdate,
        k: int,
        P: Array,
        sizes: Array,
        gains: tuple[DirectionGain, ...],
        note: str,
    ) -> ModuleAmplification:
        delta = float(np.sqrt(np.square(sizes[:k]).sum()))
        inside = float(np.linalg.norm(P[:k, :k]))
        level, low, high, drawn = self.chance(k) if delta else (self.chance.level(k), 0, 0, False)
        top, S, error = self.options.top, self.values.S[:k], self.values.error[:k]
        return ModuleAmplification(
            module=update.name,
            rank=k,
            shape=update.shape,
            w_norm=self.w_norm,
            delta_norm=delta,
            w_in_delta=inside if delta else math.nan,
            w_in_w=float(np.linalg.norm(S)) if top else math.nan,
            w_in_w_error=float(np.linalg.norm(error)) if top else math.nan,
            w_in_w_method=self.values.method if top else "skipped",
            w_in_random=level,
            factor=_ratio(delta, inside),
            chance_factor=_ratio(delta, level),
            chance_low=_ratio(delta, high),
            chance_high=_ratio(delta, low),
            chance_drawn=drawn,
            w_by_chance=self.w_norm / math.sqrt(math.prod(update.shape)),
            directions=gains[:k],
            note=note,
        )

    def _gains(
        self, P: Array, sizes: Array, spec: Spectrum, real: int
    ) -> tuple[DirectionGain, ...]:
        """Per direction: sigma_k, w_k = u_k^T W v_k, their ratio and 1 + sigma_k / w_k."""
        gains = []
        # A direction is as sure as the cuts before and after it, on both sides; W at most w_top.
        w_top = float(self.values.S[0]) if self.options.top else self.w_norm
        unsure = spec.direction_errors()[:real].numpy()
        for k in range(real):
            w, sigma = float(P[k, k]), float(sizes[k])
            bound = 2 * unsure[k] * w_top + self.eps * math.sqrt(len(P)) * self.w_norm
            sure = abs(w) > bound
            gains.append(
                DirectionGain(
                    sigma,
                    w if math.isfinite(bound) and bound < w_top else None,
                    sigma / abs(w) if sure else None,
                    1 + sigma / w if sure else None,
                )
            )
        return tuple(gains)


def _ratio(above: float, below: float) -> float:
    return above / below if above > 0 and below > 0 else math.nan
