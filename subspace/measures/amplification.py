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
from typing import TYPE_CHECKING

import numpy as np
import torch

from subspace import chance, linalg
from subspace.errors import ArgumentError, NonFiniteError
from subspace.pretrained import open_pretrained
from subspace.results import Amplification, DirectionGain, ModuleAmplification
from subspace.spectra import is_zero, spectrum, usable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from subspace.adapters import Adapter, LowRankUpdate
    from subspace.pretrained import Pretrained
    from subspace.spectra import Spectrum

    Array = NDArray[np.float64]

DRAWS = 400
_GAMMA_FROM = 5  # at a smaller rank T is far from Gamma
_DRAWN_TO = 16  # from this rank on the Gamma range is right to 4 %, however spiked W is
_SPIKED = 0.01  # t2/t1^2 a rank: above it W's few large directions skew T


def amplification(
    adapter: Adapter,
    base: Pretrained | str | os.PathLike[str],
    *,
    ranks: Sequence[int] | None = None,
    modules: str | None = None,
    scaled: bool = True,
    draws: int = DRAWS,
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
    draws, seed
        Haar draws behind the range that chance has, where W's spectrum or a small rank calls for
        them; at least 200.
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
    W's singular values come from the float64 Gram's `eigvalsh`: exact for the leading ones, and
    seconds a module at d = 4096. Memory is one Gram, min(d_out, d_in)^2 float64.
    """
    if draws < 200:
        raise ArgumentError(f"draws is {draws}; a central 95 % wants at least 200")
    if ranks is not None and (not ranks or min(ranks) < 1):
        raise ArgumentError(f"ranks are {list(ranks)}; each is a whole number from 1 on")
    device = usable(device)
    if isinstance(base, str | os.PathLike):
        base = open_pretrained(base)
    chosen = adapter.select(modules)
    # Shapes first: a base that is not the adapter's is refused before the work.
    for name in chosen:
        base.get(name, shape=chosen.updates[name].shape)
    rows: list[ModuleAmplification] = []
    for name in chosen:
        rows += _module(chosen[name], base, ranks, scaled, draws, seed, device)
        if progress is not None:
            progress(1)
    if not rows:
        highest = max((info.rank for info in chosen.updates.values()), default=0)
        raise ArgumentError(
            f"adapter {adapter.name!r} has no module of a rank asked for: its ranks go to {highest}"
        )
    return Amplification(adapter.name, base.name, scaled, seed, tuple(rows))


def _module(
    update: LowRankUpdate,
    base: Pretrained,
    ranks: Sequence[int] | None,
    scaled: bool,
    draws: int,
    seed: int,
    device: torch.device,
) -> list[ModuleAmplification]:
    weight = base.get(update.name, shape=update.shape)
    W = weight.W
    m, n = W.shape
    gram = linalg.gram([(W if m >= n else W.mT).to(device)])
    t1 = float(gram.trace())
    if not math.isfinite(t1):
        raise NonFiniteError(f"W of module {update.name!r} holds NaN or infinity ({weight.source})")
    squares = torch.linalg.eigvalsh(gram).flip(0).clamp(min=0).cpu().numpy()
    t2 = float(gram.square().sum())
    spec = spectrum(update, device=device)
    real = 0 if is_zero(update) else spec.rank
    wanted = sorted({k for k in (ranks or [max(real, 1)]) if k <= max(real, 1)})
    if not real:
        note = "untrained: the update is exactly zero, so it has no directions and no factor"
        return [_undefined(update, k, math.sqrt(t1), squares, note) for k in wanted]
    U, V = spec.U[:, :real].to(device), spec.V[:, :real].to(device)
    P = linalg.project(U, W.to(device), V).cpu().numpy()
    sizes = spec.S[:real].numpy() / (1.0 if scaled else abs(update.scale))
    gains = _gains(P, sizes, spec, real, float(np.sqrt(squares[0])), math.sqrt(t1))
    ranges = _Chance(W, t1, t2, draws, seed, device)
    note = ""
    if real < update.rank:
        note = f"numerical rank {real} of {update.rank}: the directions beyond are rounding"
    rows = []
    for k in wanted:
        delta = float(np.sqrt(np.square(sizes[:k]).sum()))
        inside = float(np.linalg.norm(P[:k, :k]))
        level, low, high, drawn = ranges(k)
        rows.append(
            ModuleAmplification(
                module=update.name,
                rank=k,
                shape=update.shape,
                w_norm=math.sqrt(t1),
                delta_norm=delta,
                w_in_delta=inside,
                w_in_w=float(np.sqrt(squares[:k].sum())),
                w_in_random=level,
                factor=delta / inside if inside > 0 else math.nan,
                chance_factor=delta / level if level > 0 else math.nan,
                chance_low=delta / high if high > 0 else math.nan,
                chance_high=delta / low if low > 0 else math.nan,
                chance_drawn=drawn,
                w_by_chance=math.sqrt(t1 / (m * n)),
                directions=gains[:k],
                note=note if t1 > 0 else "W is exactly zero: nothing to amplify",
            )
        )
    return rows


def _gains(
    P: Array, sizes: Array, spec: Spectrum, real: int, w_top: float, w_norm: float
) -> tuple[DirectionGain, ...]:
    """Per direction: sigma_k, w_k = u_k^T W v_k, their ratio and 1 + sigma_k / w_k."""
    gains = []
    # A direction is as sure as the cuts before and after it, on both sides; W at most w_top.
    unsure = spec.direction_errors()[:real].numpy()
    for k in range(real):
        w, sigma = float(P[k, k]), float(sizes[k])
        bound = 2 * unsure[k] * w_top + linalg.EPS * math.sqrt(len(P)) * w_norm
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


class _Chance:
    """Level and central 95 % of ``|U^T W V|_F`` for random U, V, at any rank k of one module."""

    def __init__(
        self, W: torch.Tensor, t1: float, t2: float, draws: int, seed: int, device: torch.device
    ) -> None:
        self._W, self._t1, self._t2 = W, t1, t2
        self._draws, self._seed, self._device = draws, seed, device
        self._blocks: dict[int, Array] = {}

    def __call__(self, k: int) -> tuple[float, float, float, bool]:
        m, n = self._W.shape
        mean, variance = chance.projection_moments(self._t1, self._t2, k, m, n)
        spiked = self._t1 > 0 and self._t2 / self._t1**2 > _SPIKED * k
        if k < _GAMMA_FROM or (spiked and k <= _DRAWN_TO):
            low, high = np.quantile(self._drawn(k), (0.025, 0.975))
            return float(np.sqrt(mean)), float(low), float(high), True
        low, high = chance.projection_range(mean, variance)
        return float(np.sqrt(mean)), float(low), float(high), False

    def _drawn(self, k: int) -> Array:
        """Norms of U^T W V over Haar draws; all draws pass over W together."""
        m, n = self._W.shape
        U = linalg.haar(m, k, self._draws, seed=self._seed).to(self._device)
        V = linalg.haar(n, k, self._draws, seed=self._seed + 1).to(self._device)
        inside = torch.zeros(self._draws, k, k, dtype=torch.float64, device=self._device)
        columns = V.permute(1, 0, 2).reshape(n, -1)  # (n, draws * k)
        height = 256
        for start in range(0, m, height):
            panel = self._W[start : start + height].to(self._device, torch.float64) @ columns
            panel = panel.reshape(-1, self._draws, k).permute(1, 0, 2)  # (draws, rows, k)
            inside += U[:, start : start + height].mT @ panel
        norms: Array = torch.linalg.matrix_norm(inside).cpu().numpy()
        return norms


def _undefined(
    update: LowRankUpdate, k: int, w_norm: float, squares: Array, note: str
) -> ModuleAmplification:
    m, n = update.shape
    nan = math.nan
    return ModuleAmplification(
        module=update.name,
        rank=k,
        shape=update.shape,
        w_norm=w_norm,
        delta_norm=0.0,
        w_in_delta=nan,
        w_in_w=float(np.sqrt(squares[:k].sum())),
        w_in_random=k * w_norm / math.sqrt(m * n),
        factor=nan,
        chance_factor=nan,
        chance_low=nan,
        chance_high=nan,
        chance_drawn=False,
        w_by_chance=w_norm / math.sqrt(m * n),
        directions=(),
        note=note,
    )
