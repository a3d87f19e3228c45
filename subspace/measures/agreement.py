"""How many leading directions two adapters share above chance, direction by direction."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from subspace import chance
from subspace.spectra import CELL_BOUND

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from subspace.results import ModuleSimilarity

    Array = NDArray[np.float64]

LEVEL = 0.01  # at which directions count as agreeing, significantly


@dataclass(frozen=True, eq=False)
class Overlaps:
    """How far each single direction of one adapter lies within another's, in one module."""

    d: int
    rank_a: int  # numerical
    rank_b: int
    a: Array  # (r_a,) energy of a's k-th direction within all of b's; NaN: undefined
    b: Array  # (r_b,)

    @classmethod
    def of(
        cls, squares: Array, bounds: Sequence[Array], ranks: tuple[int, int], d: int
    ) -> Overlaps:
        """Sum squared cosines over the directions that are real.

        Parameters
        ----------
        squares : (r_a, r_b)
            Squares of ``U_a.T @ U_b``.
        bounds : two of (r,)
            Bound on sin(Theta) of the leading k directions of a and of b.
        ranks
            Numerical; 0 for an update that is exactly zero.
        """
        real = squares[: ranks[0], : ranks[1]]
        alone = [_find_resolvable(bound, rank) for bound, rank in zip(bounds, ranks, strict=True)]
        energies = [np.zeros(len(bound)) for bound in bounds]
        energies[0][: ranks[0]] = real.sum(axis=1)
        energies[1][: ranks[1]] = real.sum(axis=0)
        a, b = (np.where(sure, e, np.nan) for sure, e in zip(alone, energies, strict=True))
        return cls(d, *ranks, a, b)


def _find_resolvable(bounds: Array, rank: int) -> NDArray[np.bool_]:
    """Tell which directions are real, and surely apart from the one before and the one after."""
    sure = bounds <= CELL_BOUND
    alone: NDArray[np.bool_] = sure & np.concatenate([[True], sure[:-1]])
    alone[rank:] = False
    return alone


def count_agreeing(modules: Sequence[Overlaps], level: float = LEVEL) -> list[int | None]:
    """Count the leading directions that two adapters share above chance, module by module.

    phi(k, k) is cumulative, so one shared direction lifts every later k. Here each direction is
    tested alone: the energy of a's k-th direction within all of b's is exactly Beta under
    independence. Count the leading k that pass at level/r, stopping at the first failure or tie, a
    in b and b in a, and take the smaller; None where not even the first direction is defined. Over
    the M modules where it is, Benjamini-Hochberg (1995) selects R by their first directions, and
    the directions of those are tested at level * R / M.
    """
    tails = [_find_tails(m) for m in modules]
    first = [max(in_b[0], in_a[0]) for in_b, in_a in filter(None, tails)]
    bar = chance.fdr_threshold(first, level)
    return [None if pair is None else min(_count_leading(p <= bar) for p in pair) for pair in tails]


def count_shared(modules: Sequence[Overlaps], level: float = LEVEL) -> list[int | None]:
    """Count the directions that two adapters share above chance in any order, module by module.

    As `count_agreeing`, but a direction counts whatever becomes of the ones before it: where the
    strongest one differs alone, all others are shared all the same. Benjamini-Hochberg selects the
    modules by their best direction. Never less than the leading ones that agree.
    """
    tails = [_find_tails(m, leading=False) for m in modules]
    best = [max(np.nanmin(in_b), np.nanmin(in_a)) for in_b, in_a in filter(None, tails)]
    bar = chance.fdr_threshold(best, level)
    return [None if pair is None else min(int((p <= bar).sum()) for p in pair) for pair in tails]


def measure_rest(m: Overlaps, agreeing: int | None) -> tuple[float, float]:
    """Measure how a's directions after the agreeing ones lie within b.

    Returns
    -------
    Their mean share, and its two-sided probability between random subspaces of these sizes; NaN
    where no direction is left over.
    """
    further = m.a[agreeing or 0 : m.rank_a]
    further = further[~np.isnan(further)]
    if not len(further) or not m.rank_b or agreeing is None:
        return math.nan, math.nan
    share = float(further.mean())
    fewer = min(len(further), m.rank_b)
    phi = min(1.0, share * len(further) / fewer)
    tail = float(chance.phi_pvalue(phi, len(further), m.rank_b, m.d))
    return share, chance.two_sided(tail, 1 - tail) if m.rank_b < m.d else 1.0


def fill_agreeing(
    modules: Sequence[ModuleSimilarity], level: float = LEVEL
) -> list[ModuleSimilarity]:
    """Fill what two adapters share: see `count_agreeing`, `count_shared`, `measure_rest`."""
    overlaps = [
        Overlaps(m.d, m.numerical_rank_a, m.numerical_rank_b, m.overlap_a, m.overlap_b)
        for m in modules
    ]
    counts = count_agreeing(overlaps, level)
    filled = []
    for m, each, count, shared in zip(
        modules, overlaps, counts, count_shared(overlaps, level), strict=True
    ):
        rest, p = measure_rest(each, count)
        filled.append(replace(m, agreeing=count, shared=shared, rest=rest, rest_p=p))
    return filled


def _find_tails(m: Overlaps, *, leading: bool = True) -> tuple[Array, Array] | None:
    """Give p of each direction, a in b and b in a, times the number of directions (Bonferroni).

    None where there is none, or, of the `leading` ones, where the first is not defined.
    """
    ra, rb = m.rank_a, m.rank_b
    if not ra or not rb:
        return None
    missing = [np.isnan(m.a[:ra]), np.isnan(m.b[:rb])]
    if any(none[0] if leading else none.all() for none in missing):
        return None
    return (
        chance.overlap_pvalue(m.a[:ra], rb, m.d) * ra,
        chance.overlap_pvalue(m.b[:rb], ra, m.d) * rb,
    )


def _count_leading(passes: NDArray[np.bool_]) -> int:
    return len(passes) if passes.all() else int(np.argmin(passes))
