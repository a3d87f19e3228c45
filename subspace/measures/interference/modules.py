"""How the updates of several adapters meet in one module, two by two and all together."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from subspace import chance
from subspace.chance.cosine import cosine_pvalue, cosine_std, cosine_variances
from subspace.measures import matching
from subspace.measures.interference.merged import Merged, Part
from subspace.measures.similarity.agreement import discoveries
from subspace.measures.similarity.cells import cells
from subspace.results import ModuleInterference, PairInterference, SpaceOverlap, WholePair
from subspace.spectra import is_zero

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from subspace.adapters import LowRankUpdate
    from subspace.measures.interference.inner_products import Products
    from subspace.spectra import Solved

    Array = NDArray[np.float64]
    Pair = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Meeting:
    """What one module's factors say; lists are in the order of `held`."""

    shape: tuple[int, int]
    held: tuple[int, ...]  # which adapters have it
    products: Products
    zero: Sequence[bool] = ()
    nominal: Sequence[int] = ()
    ranks: Sequence[int] = ()
    spectra: Sequence[Array] = ()
    spaces: Mapping[Pair, tuple[SpaceOverlap, SpaceOverlap]] = field(default_factory=dict)
    same_start: frozenset[Pair] = frozenset()  # by adapter, as `held` numbers them

    @classmethod
    def of(
        cls,
        held: tuple[int, ...],
        updates: Sequence[LowRankUpdate],
        products: Products,
        sides: tuple[Solved, Solved],
        start: Solved | None,
    ) -> Meeting:
        """Reduce decompositions to numbers.

        Parameters
        ----------
        sides
            The sides in and out of all the updates.
        start
            Side A of their initial A, where all are stored.
        """
        zero = [is_zero(u) for u in updates]
        pairs = list(itertools.combinations(range(len(held)), 2))
        inner = sides[0].directions
        return cls(
            updates[0].shape,
            held,
            products,
            zero,
            [u.rank for u in updates],
            [0 if none else x.rank for x, none in zip(inner, zero, strict=True)],
            [x.S.numpy() for x in inner],
            {pair: (_overlap(sides[0], pair, zero), _overlap(sides[1], pair, zero))
             for pair in pairs},
            frozenset(
                (held[a], held[b])
                for a, b in pairs
                if start is not None and matching.same_start(start, a, b)
            ),
        )  # fmt: skip

    def part(self) -> Part:
        """Return its share of the whole model."""
        return Part(self.held, self.products, cosine_std(*self.shape))

    def variances(self, pair: Pair) -> Array | None:
        """Return those of a cosine's terms by chance, see `cosine_variances`; None: undefined."""
        s, t = (self.spectra[n] for n in pair)
        if not s.any() or not t.any():
            return None
        return cosine_variances(s, t, *self.shape)


def _overlap(solved: Solved, pair: Pair, zero: Sequence[bool]) -> SpaceOverlap:
    """Return phi of all real directions on one side."""
    a, b = (0 if zero[n] else solved.directions[n].rank for n in pair)
    d = solved.directions[0].dimension
    if not a or not b:
        return SpaceOverlap(math.nan, math.nan, math.nan, math.nan)
    phi, error, _ = (grid[a - 1, b - 1] for grid in cells(solved, pair, (a, b)))
    i, j = min(a, d), min(b, d)
    return SpaceOverlap(
        float(phi),
        float(error),
        float(chance.phi_mean(i, j, d)),
        float(chance.phi_pvalue(phi, i, j, d)),
    )


def assemble(
    name: str, found: Meeting, weights: Sequence[float], labels: Sequence[str]
) -> ModuleInterference:
    """Set everything that is known of one module beside its chance; no finding yet."""
    by = [weights[n] for n in found.held]
    called = [labels[n] for n in found.held]
    std = cosine_std(*found.shape)
    cosines, errors = found.products.cosines, found.products.cosine_errors
    merged = Merged.of(found.products, by, std)
    pairs = []
    for pair, (rows, columns) in found.spaces.items():
        a, b = pair
        variances = found.variances(pair)
        cosine = float(cosines[pair]) * math.copysign(1.0, by[a] * by[b])
        known = variances is not None and not math.isnan(cosine)
        pairs.append(
            PairInterference(
                adapters=(called[a], called[b]),
                cosine=cosine,
                error=float(errors[pair]) if found.products.norms[[a, b]].all() else math.nan,
                chance_std=std,
                p=cosine_pvalue(cosine, variances) if known and variances is not None else math.nan,
                finding=None,
                rows=rows,
                columns=columns,
                note=_note(found, pair, called, cosine, (rows, columns)),
            )
        )
    return ModuleInterference(
        module=name,
        shape=found.shape,
        adapters=tuple(called),
        weights=tuple(by),
        ranks=tuple(found.ranks),
        norms=tuple(found.products.norms.tolist()),
        pairs=tuple(pairs),
        energy=merged.energy,
        energy_error=merged.error,
        energy_std=merged.std,
        kept=merged.kept,
        note="; ".join(dict.fromkeys(pair.note for pair in pairs if pair.note)),
    )


def _note(
    found: Meeting,
    pair: Pair,
    called: Sequence[str],
    cosine: float,
    spaces: Iterable[SpaceOverlap],
) -> str:
    untrained = [called[n] for n in pair if found.zero[n]]
    if untrained:
        return (
            f"untrained: the update of {' and '.join(untrained)} is exactly zero, so it has "
            "neither cosine nor spaces"
        )
    said = []
    if math.isnan(cosine):
        said.append("the terms of B A cancel so far that rounding leaves the cosine open")
    said += [
        f"numerical rank {found.ranks[n]} of {found.nominal[n]} in {called[n]}"
        for n in pair
        if found.ranks[n] < found.nominal[n]
    ]
    if any(math.isnan(space.phi) for space in spaces):
        said.append("phi undefined: a real direction is not told apart from the next")
    return "; ".join(said)


def judged(
    modules: Mapping[str, ModuleInterference], pairs: Iterable[tuple[str, str]], level: float
) -> dict[str, ModuleInterference]:
    """Say of every pair in which modules its cosine is beyond chance: Benjamini-Hochberg."""
    bars = {}
    for pair in pairs:
        found = [m.pair(pair) for m in modules.values()]
        bars[pair] = discoveries([one.p for one in found if one is not None], level)
    return {
        name: replace(
            m,
            pairs=tuple(
                replace(p, finding=None if math.isnan(p.p) else p.p <= bars[p.adapters])
                for p in m.pairs
            ),
        )
        for name, m in modules.items()
    }


def whole_pair(
    pair: Pair,
    labels: Sequence[str],
    weights: Sequence[float],
    of_all: tuple[Products, Array],
    found: Iterable[Meeting],
    modules: Iterable[ModuleInterference],
) -> WholePair:
    """Compare two adapters over the whole model."""
    products, stds = of_all
    names = (labels[pair[0]], labels[pair[1]])
    cosine = float(products.cosines[pair])
    cosine *= math.copysign(1.0, weights[pair[0]] * weights[pair[1]])
    lengths = products.norms[list(pair)]
    terms = []
    for one in found:
        if set(pair) <= set(one.held):
            at = (one.held.index(pair[0]), one.held.index(pair[1]))
            variances = one.variances(at)
            if variances is not None:
                share = float(np.prod(one.products.norms[list(at)] / lengths))
                terms.append(variances * share**2)
    inside = [p for m in modules if (p := m.pair(names)) is not None]
    return WholePair(
        adapters=names,
        cosine=cosine,
        error=float(products.cosine_errors[pair]) if lengths.all() else math.nan,
        chance_std=float(stds[pair]),
        p=cosine_pvalue(cosine, *terms) if terms else math.nan,
        modules=sum(not math.isnan(p.cosine) for p in inside),
        same=sum(bool(p.finding) and p.cosine > 0 for p in inside),
        opposite=sum(bool(p.finding) and p.cosine < 0 for p in inside),
    )
