"""Every two of several adapters in one module as numbers, and the modules of a pair as one."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from subspace import chance, linalg
from subspace.measures.agreement import Overlaps, count_agreeing
from subspace.measures.initial import share_initial_a
from subspace.measures.phi import phi_cells
from subspace.measures.similarity.measure import distances
from subspace.results import By, PairSimilarity

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from numpy.typing import NDArray

    from subspace.spectra import Directions, Solved

    Array = NDArray[np.float64]
    Pair = tuple[int, int]


@dataclass(frozen=True, eq=False, kw_only=True)
class ModulePairs:
    """Every two adapters of one module compared; NaN: undefined."""

    pairs: Sequence[Pair]  # by adapter; arrays and lists are in this order
    values: Array  # NaN throughout for agreeing, which is counted over all modules
    p: Array
    null_mean: float
    real: Array  # directions that both have, which no count can exceed
    overlaps: Sequence[Overlaps]  # for agreeing
    same_initial_a: frozenset[Pair]

    @classmethod
    def of(
        cls,
        places: tuple[int, ...],
        solved: Solved,
        zero: Sequence[bool],
        by: By,
        k: int | None,
        stored: tuple[int, ...],
        initial: Solved | None,
    ) -> ModulePairs:
        """Reduce one module's decomposition to numbers.

        Parameters
        ----------
        places
            Which adapters `solved` is of, in its order.
        zero
            Whose update is exactly zero.
        k
            Leading directions of each; None for agreeing.
        stored
            The adapters whose initial A `initial` is of.
        """
        ranks = [0 if none else x.rank for x, none in zip(solved.directions, zero, strict=True)]
        local = list(itertools.combinations(range(len(places)), 2))
        d = solved.directions[0].dimension
        values = np.full(len(local), np.nan)
        overlaps: list[Overlaps] = []
        p, null_mean = values, 0.0
        if k is None:
            bounds = [x.angle_errors().numpy() for x in solved.directions]
            overlaps = [
                Overlaps.of(
                    np.square(solved.overlap(a, b).numpy()),
                    (bounds[a], bounds[b]),
                    (ranks[a], ranks[b]),
                    d,
                )
                for a, b in local
            ]
        else:
            values = np.array([_phi(solved, pair, ranks, k) for pair in local])
            p = chance.phi_pvalue(values, k, k, d)
            null_mean = float(chance.phi_mean(k, k, d))
            if by == "distance":
                values = _distances(solved.directions, local, values, k)
                null_mean = chance.distance_rms(k, d)
        return cls(
            pairs=[(places[a], places[b]) for a, b in local],
            values=values,
            p=p,
            null_mean=null_mean,
            real=np.array([min(ranks[a], ranks[b]) for a, b in local], dtype=np.float64),
            overlaps=overlaps,
            same_initial_a=frozenset(
                (stored[a], stored[b])
                for a, b in itertools.combinations(range(len(stored)), 2)
                if initial is not None and share_initial_a(initial, a, b)
            ),
        )


def _phi(solved: Solved, pair: Pair, ranks: Sequence[int], k: int) -> float:
    real = (ranks[pair[0]], ranks[pair[1]])
    return float(phi_cells(solved, pair, real)[0][k - 1, k - 1]) if k <= min(real) else math.nan


def _distances(
    directions: Sequence[Directions], pairs: Sequence[Pair], phi: Array, k: int
) -> Array:
    """Return the projection distances over sqrt(k) where phi(k, k) is defined."""
    needed = {n for pair, value in zip(pairs, phi, strict=True) if value == value for n in pair}
    leading = {n: directions[n].form()[:, :k] for n in needed}
    return np.array([
        math.nan
        if math.isnan(value)
        else distances(linalg.principal_angles(leading[a], leading[b]).numpy()).projection
        / math.sqrt(k)
        for (a, b), value in zip(pairs, phi, strict=True)
    ])  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Cell:
    """One pair in one module."""

    value: float
    p: float
    null_mean: float
    real: float
    overlaps: Overlaps | None
    same_initial_a: bool


def summarise_pairs(
    modules: Sequence[ModulePairs],
    labels: Sequence[str],
    by: By,
    level: float,
    stored: Collection[int],
) -> tuple[PairSimilarity, ...]:
    """Take the median over the modules of every pair, and count the significant ones.

    Parameters
    ----------
    stored
        Adapters that hold the initial A of all their modules.
    """
    cells: dict[Pair, list[_Cell]] = {
        pair: [] for pair in itertools.combinations(range(len(labels)), 2)
    }
    for one in modules:
        for n, pair in enumerate(one.pairs):
            cells[pair].append(
                _Cell(
                    value=float(one.values[n]),
                    p=float(one.p[n]),
                    null_mean=one.null_mean,
                    real=float(one.real[n]),
                    overlaps=one.overlaps[n] if one.overlaps else None,
                    same_initial_a=pair in one.same_initial_a,
                )
            )
    return tuple(
        _summarise((labels[a], labels[b]), of_pair, by, level, stored=a in stored and b in stored)
        for (a, b), of_pair in cells.items()
    )


def _summarise(
    names: tuple[str, str], cells: Sequence[_Cell], by: By, level: float, *, stored: bool
) -> PairSimilarity:
    if by == "agreeing":
        counts = count_agreeing([x.overlaps for x in cells if x.overlaps is not None], level)
        values = [math.nan if count is None else float(count) for count in counts]
        significant = sum(bool(count) for count in counts)
    else:
        values = [x.value for x in cells]
        p = np.array([x.p for x in cells])
        significant = int((p <= chance.fdr_threshold(p, level)).sum())
    defined = [(value, x) for value, x in zip(values, cells, strict=True) if not math.isnan(value)]
    return PairSimilarity(
        adapters=names,
        value=_median([value for value, _ in defined]),
        null_mean=_median([x.null_mean for _, x in defined]),
        largest=_median([x.real for _, x in defined]) if by == "agreeing" else 1.0,
        modules=len(cells),
        undefined=len(cells) - len(defined),
        significant=significant,
        same_initial=sum(x.same_initial_a for x in cells) if stored else None,
    )


def _median(values: Sequence[float]) -> float:
    return float(median(values)) if values else math.nan
