"""Every two of several adapters in one module as numbers, and the modules of a pair as one."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from subspace import chance, linalg
from subspace.measures import matching
from subspace.measures.similarity.agreement import Overlaps, agreeing, discoveries
from subspace.measures.similarity.cells import cells
from subspace.measures.similarity.measure import distances
from subspace.results import By, PairSimilarity

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from numpy.typing import NDArray

    from subspace.spectra import Directions, Solved

    Array = NDArray[np.float64]
    Pair = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Pairing:
    """What one module says of every two adapters that have it; NaN: undefined."""

    pairs: Sequence[Pair]  # by adapter; arrays and lists are in this order
    values: Array  # NaN throughout for agreeing, which is counted over all modules
    p: Array
    chance: float
    real: Array  # directions that both have, which no count can exceed
    overlaps: Sequence[Overlaps]  # for agreeing
    same_start: frozenset[Pair]

    @classmethod
    def of(
        cls,
        held: tuple[int, ...],
        solved: Solved,
        zero: Sequence[bool],
        by: By,
        k: int | None,
        known: tuple[int, ...],
        start: Solved | None,
    ) -> Pairing:
        """Reduce one module's decomposition to numbers.

        Parameters
        ----------
        held
            Which adapters `solved` is of, in its order.
        zero
            Whose update is exactly zero.
        k
            Leading directions of each; None for agreeing.
        known
            The adapters whose initial A `start` is of.
        """
        ranks = [0 if none else x.rank for x, none in zip(solved.directions, zero, strict=True)]
        local = list(itertools.combinations(range(len(held)), 2))
        d = solved.directions[0].dimension
        values = np.full(len(local), np.nan)
        overlaps: list[Overlaps] = []
        p, by_chance = values, 0.0
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
            by_chance = float(chance.phi_mean(k, k, d))
            if by == "distance":
                values = _distances(solved.directions, local, values, k)
                by_chance = math.sqrt(1 - by_chance)
        return cls(
            [(held[a], held[b]) for a, b in local],
            values,
            p,
            by_chance,
            np.array([min(ranks[a], ranks[b]) for a, b in local], dtype=np.float64),
            overlaps,
            frozenset(
                (known[a], known[b])
                for a, b in itertools.combinations(range(len(known)), 2)
                if start is not None and matching.same_start(start, a, b)
            ),
        )


def _phi(solved: Solved, pair: Pair, ranks: Sequence[int], k: int) -> float:
    real = (ranks[pair[0]], ranks[pair[1]])
    return float(cells(solved, pair, real)[0][k - 1, k - 1]) if k <= min(real) else math.nan


def _distances(
    directions: Sequence[Directions], pairs: Sequence[Pair], phi: Array, k: int
) -> Array:
    """Return the projection distances over sqrt(k) where phi(k, k) is defined."""
    needed = {n for pair, known in zip(pairs, ~np.isnan(phi), strict=True) if known for n in pair}
    leading = {n: directions[n].form()[:, :k] for n in needed}
    return np.array([
        math.nan
        if math.isnan(value)
        else distances(linalg.principal_angles(leading[a], leading[b]).numpy()).projection
        / math.sqrt(k)
        for (a, b), value in zip(pairs, phi, strict=True)
    ])  # fmt: skip


@dataclass(frozen=True)
class _Cell:
    """One pair in one module."""

    value: float
    p: float
    chance: float
    real: float
    overlaps: Overlaps | None
    same_start: bool


def judged(
    modules: Sequence[Pairing],
    labels: Sequence[str],
    by: By,
    level: float,
    stored: Collection[int],
) -> tuple[PairSimilarity, ...]:
    """Take the median over the modules of every pair, and count those beyond chance.

    Parameters
    ----------
    stored
        Adapters that hold the initial A of all their modules.
    """
    found: dict[Pair, list[_Cell]] = {
        pair: [] for pair in itertools.combinations(range(len(labels)), 2)
    }
    for one in modules:
        for n, pair in enumerate(one.pairs):
            found[pair].append(
                _Cell(
                    float(one.values[n]),
                    float(one.p[n]),
                    one.chance,
                    float(one.real[n]),
                    one.overlaps[n] if one.overlaps else None,
                    pair in one.same_start,
                )
            )
    return tuple(
        _pair((labels[a], labels[b]), cells_, by, level, known=a in stored and b in stored)
        for (a, b), cells_ in found.items()
    )


def _pair(
    names: tuple[str, str], found: Sequence[_Cell], by: By, level: float, *, known: bool
) -> PairSimilarity:
    if by == "agreeing":
        counts = agreeing([x.overlaps for x in found if x.overlaps is not None], level)
        values = [math.nan if count is None else float(count) for count in counts]
        beyond = sum(bool(count) for count in counts)
    else:
        values = [x.value for x in found]
        p = np.array([x.p for x in found])
        beyond = int((p <= discoveries(p, level)).sum())
    defined = [(value, x) for value, x in zip(values, found, strict=True) if not math.isnan(value)]
    return PairSimilarity(
        names,
        _median([value for value, _ in defined]),
        _median([x.chance for _, x in defined]),
        _median([x.real for _, x in defined]) if by == "agreeing" else 1.0,
        len(found),
        len(found) - len(defined),
        beyond,
        sum(x.same_start for x in found) if known else None,
    )


def _median(values: Sequence[float]) -> float:
    return float(median(values)) if values else math.nan
