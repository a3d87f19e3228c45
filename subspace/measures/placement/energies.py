"""From the energy at every index to a profile: clusters, the running sum, the null, the summary."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from subspace import chance
from subspace.results import ModuleProfile, TopEnergy

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from subspace.adapters import LowRankUpdate

    Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Energies:
    """One update over W's singular index, as computed: arbitrary within a cluster."""

    raw: Array  # (d,) |delta W v_k|^2 / |delta W|_F^2; zero where W has no k-th direction
    error: Array  # (d,) bound on the error of its running sum; infinite where k cuts a cluster
    sigma: Array  # (n,) singular values of W, descending
    resolved: int  # leading ones that are told apart from zero
    concentration: float  # sum of squares of the update's own energies

    def profile(
        self, update: LowRankUpdate, side: Literal["in", "out"], *, numerical_rank: int
    ) -> ModuleProfile:
        """Spread what has no order evenly, and set the null beside every number."""
        d = len(self.raw)
        index = np.arange(1, d + 1)
        running = np.minimum(self.raw.cumsum(), 1.0)
        running[-1] = 1.0
        sure = np.isfinite(self.error)
        # Straight lines between the cuts that are sure: the mean over all bases of each cluster.
        cumulative = np.interp(index, np.append(0, index[sure]), np.append(0.0, running[sure]))
        alone = sure & np.append(True, sure[:-1])  # cut off from both neighbours
        alone[self.resolved :] = False  # what is left over there is no measured direction
        energy = np.where(alone, self.raw, np.diff(cumulative, prepend=0.0))
        c = self.concentration
        low, high = np.moveaxis(chance.energy_range(index, d, c), -1, 0)

        def within(k: int) -> TopEnergy:
            defined = bool(sure[k - 1])
            share = float(cumulative[k - 1]) if defined else math.nan
            return TopEnergy(
                k=k,
                energy=share,
                error=float(self.error[k - 1]) if defined else math.nan,
                null_mean=chance.energy_mean(k, d),
                null_low=float(low[k - 1]),
                null_high=float(high[k - 1]),
                p=chance.energy_two_sided(share, k, d, c),
            )

        half, between, median_p = _median(cumulative, self.error, c)
        notes = []
        if numerical_rank < update.rank:
            notes.append(f"the update has numerical rank {numerical_rank} of {update.rank}")
        return ModuleProfile(
            module=update.name,
            side=side,
            shape=update.shape,
            d=d,
            rank=update.rank,
            resolved=self.resolved,
            sigma=self.sigma,
            energy=energy,
            cumulative=cumulative,
            error=self.error,
            null_low=low,
            null_high=high,
            concentration=c,
            top=within(min(update.rank, len(self.sigma))),
            tenth=within(max(1, len(self.sigma) // 10)),
            median=half,
            median_between=between,
            median_p=median_p,
            note="; ".join([*notes, *_limits(self.resolved, cumulative, sure)]),
        )


def _median(
    cumulative: Array, error: Array, concentration: float
) -> tuple[float, tuple[int, int], float]:
    """Where the energy is halved, between which k that surely lies, and its p.

    The median is at most k exactly where the energy of the first k is 1/2 or more.
    """
    d = len(cumulative)
    surely_below = np.flatnonzero(cumulative + error < 0.5)
    first = int(surely_below[-1]) + 2 if surely_below.size else 1
    last = int(np.flatnonzero(cumulative - error >= 0.5)[0]) + 1
    k = int(np.flatnonzero(cumulative >= 0.5)[0]) + 1
    if last - first > d // 100:  # within a cluster, or W's null space
        return math.nan, (first, last), math.nan
    at_most, before = chance.energy_pvalue([0.5, 0.5], [k, k - 1], d, concentration)
    return k / d, (first, last), chance.two_sided(float(at_most), 1 - float(before))


def _limits(resolved: int, cumulative: Array, sure: NDArray[np.bool_]) -> list[str]:
    """Say in words where only sums are known."""
    d = len(cumulative)
    notes = []
    if resolved < d:
        share = f"{1 - cumulative[resolved - 1]:.3g} of the" if sure[resolved - 1] else "their"
        notes.append(
            f"{resolved} of {d} directions of W are told apart from zero; the others hold {share} "
            "energy together, in no order"
        )
    if unsure := int((~sure[: resolved - 1]).sum()):
        notes.append(
            f"{unsure} of {resolved - 1} cuts lie in clusters of equal singular values, over which "
            "the energy is spread evenly"
        )
    return notes


def leave_undefined(update: LowRankUpdate, side: Literal["in", "out"], note: str) -> ModuleProfile:
    """Return a profile without numbers, and why."""
    d, n = update.shape[1 if side == "in" else 0], min(update.shape)
    nan = np.full(d, math.nan)

    def none(k: int) -> TopEnergy:
        return TopEnergy(
            k=k,
            energy=math.nan,
            error=math.nan,
            null_mean=chance.energy_mean(k, d),
            null_low=math.nan,
            null_high=math.nan,
            p=math.nan,
        )

    return ModuleProfile(
        module=update.name,
        side=side,
        shape=update.shape,
        d=d,
        rank=update.rank,
        resolved=0,
        sigma=np.full(n, math.nan),
        energy=nan,
        cumulative=nan,
        error=nan,
        null_low=nan,
        null_high=nan,
        concentration=math.nan,
        top=none(min(update.rank, n)),
        tenth=none(max(1, n // 10)),
        median=math.nan,
        median_between=(1, d),
        median_p=math.nan,
        note=note,
    )
