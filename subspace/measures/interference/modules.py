"""The updates of several adapters compared in one module, two by two and all together."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from subspace import chance
from subspace.chance.cosine import cosine_pvalue, cosine_std, cosine_variances
from subspace.measures.initial import share_initial_a
from subspace.measures.interference.merged import Merged, ModuleShare
from subspace.measures.phi import phi_cells
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


@dataclass(frozen=True, eq=False, kw_only=True)
class ModuleComparison:
    """Products and spaces of the updates of one module; lists are in the order of `places`."""

    shape: tuple[int, int]
    places: tuple[int, ...]  # which adapters have it
    products: Products
    zero: Sequence[bool] = ()
    nominal: Sequence[int] = ()
    ranks: Sequence[int] = ()
    spectra: Sequence[Array] = ()
    spaces: Mapping[Pair, tuple[SpaceOverlap, SpaceOverlap]] = field(default_factory=dict)
    same_initial_a: frozenset[Pair] = frozenset()  # by adapter, as `places` numbers them

    @classmethod
    def of(
        cls,
        places: tuple[int, ...],
        updates: Sequence[LowRankUpdate],
        products: Products,
        sides: tuple[Solved, Solved],
        initial: Solved | None,
    ) -> ModuleComparison:
        """Reduce decompositions to numbers.

        Parameters
        ----------
        sides
            The sides in and out of all the updates.
        initial
            Side A of their initial A, where all are stored.
        """
        zero = [is_zero(u) for u in updates]
        pairs = list(itertools.combinations(range(len(places)), 2))
        inner = sides[0].directions
        return cls(
            shape=updates[0].shape,
            places=places,
            products=products,
            zero=zero,
            nominal=[u.rank for u in updates],
            ranks=[0 if none else x.rank for x, none in zip(inner, zero, strict=True)],
            spectra=[x.S.numpy() for x in inner],
            spaces={
                pair: (_overlap(sides[0], pair, zero), _overlap(sides[1], pair, zero))
                for pair in pairs
            },
            same_initial_a=frozenset(
                (places[a], places[b])
                for a, b in pairs
                if initial is not None and share_initial_a(initial, a, b)
            ),
        )

    def share(self) -> ModuleShare:
        """Return its share of the whole model."""
        return ModuleShare(self.places, self.products, cosine_std(*self.shape))

    def variances(self, pair: Pair) -> Array | None:
        """Return those of a cosine's terms under the null; None: undefined."""
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
    phi, error, _ = (grid[a - 1, b - 1] for grid in phi_cells(solved, pair, (a, b)))
    i, j = min(a, d), min(b, d)
    return SpaceOverlap(
        float(phi),
        float(error),
        float(chance.phi_mean(i, j, d)),
        float(chance.phi_pvalue(phi, i, j, d)),
    )


def build_module(
    name: str, compared: ModuleComparison, weights: Sequence[float], labels: Sequence[str]
) -> ModuleInterference:
    """Set the numbers of one module beside their null; `adjust` adds the findings."""
    by = [weights[n] for n in compared.places]
    names = [labels[n] for n in compared.places]
    std = cosine_std(*compared.shape)
    cosines, errors = compared.products.cosines, compared.products.cosine_errors
    merged = Merged.of(compared.products, by, std)
    pairs = []
    for pair, (rows, columns) in compared.spaces.items():
        a, b = pair
        variances = compared.variances(pair)
        cosine = float(cosines[pair]) * math.copysign(1.0, by[a] * by[b])
        p = math.nan if variances is None else cosine_pvalue(cosine, variances)
        pairs.append(
            PairInterference(
                adapters=(names[a], names[b]),
                cosine=cosine,
                error=float(errors[pair]) if compared.products.norms[[a, b]].all() else math.nan,
                null_std=std,
                p=p,
                finding=None,
                rows=rows,
                columns=columns,
                note=_note(compared, pair, names, cosine, (rows, columns)),
            )
        )
    return ModuleInterference(
        module=name,
        shape=compared.shape,
        adapters=tuple(names),
        weights=tuple(by),
        ranks=tuple(compared.ranks),
        norms=tuple(compared.products.norms.tolist()),
        pairs=tuple(pairs),
        energy=merged.energy,
        energy_error=merged.error,
        energy_std=merged.std,
        kept=merged.kept,
        note="; ".join(dict.fromkeys(pair.note for pair in pairs if pair.note)),
    )


def _note(
    compared: ModuleComparison,
    pair: Pair,
    names: Sequence[str],
    cosine: float,
    spaces: Iterable[SpaceOverlap],
) -> str:
    untrained = [names[n] for n in pair if compared.zero[n]]
    if untrained:
        return (
            f"untrained: the update of {' and '.join(untrained)} is exactly zero, so it has "
            "neither cosine nor spaces"
        )
    notes = []
    if math.isnan(cosine):
        notes.append("the terms of B A cancel so far that rounding leaves the cosine open")
    notes += [
        f"numerical rank {compared.ranks[n]} of {compared.nominal[n]} in {names[n]}"
        for n in pair
        if compared.ranks[n] < compared.nominal[n]
    ]
    if any(math.isnan(space.phi) for space in spaces):
        notes.append("phi undefined: a real direction is not told apart from the next")
    return "; ".join(notes)


def adjust(
    modules: Mapping[str, ModuleInterference], pairs: Iterable[tuple[str, str]], level: float
) -> dict[str, ModuleInterference]:
    """Mark for every pair the modules whose cosine is significant: Benjamini-Hochberg."""
    bars = {}
    for pair in pairs:
        tests = [m.pair(pair) for m in modules.values()]
        bars[pair] = chance.fdr_threshold([one.p for one in tests if one is not None], level)
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


def compare_whole(
    pair: Pair,
    labels: Sequence[str],
    weights: Sequence[float],
    of_all: tuple[Products, Array],
    compared: Iterable[ModuleComparison],
    modules: Iterable[ModuleInterference],
) -> WholePair:
    """Compare two adapters over the whole model."""
    products, stds = of_all
    names = (labels[pair[0]], labels[pair[1]])
    cosine = float(products.cosines[pair])
    cosine *= math.copysign(1.0, weights[pair[0]] * weights[pair[1]])
    lengths = products.norms[list(pair)]
    terms = []
    for one in compared:
        if set(pair) <= set(one.places):
            at = (one.places.index(pair[0]), one.places.index(pair[1]))
            variances = one.variances(at)
            if variances is not None:
                share = float(np.prod(one.products.norms[list(at)] / lengths))
                terms.append(variances * share**2)
    inside = [p for m in modules if (p := m.pair(names)) is not None]
    return WholePair(
        adapters=names,
        cosine=cosine,
        error=float(products.cosine_errors[pair]) if lengths.all() else math.nan,
        null_std=float(stds[pair]),
        p=cosine_pvalue(cosine, *terms) if terms else math.nan,
        modules=sum(not math.isnan(p.cosine) for p in inside),
        same=sum(bool(p.finding) and p.cosine > 0 for p in inside),
        opposite=sum(bool(p.finding) and p.cosine < 0 for p in inside),
    )
