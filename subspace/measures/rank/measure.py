"""How many directions are real? Those on which runs of one configuration agree significantly.

Hu et al. 2021, arXiv:2106.09685, section 7.2, asks how many directions two seeds share (Figure 4).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from subspace.adapters import Adapter, align
from subspace.errors import ArgumentError
from subspace.measures.agreement import LEVEL, Overlaps, count_agreeing, count_shared
from subspace.measures.initial import (
    note_same_rows,
    require_initial_a,
    share_initial_a,
    wrap_initial_a,
)
from subspace.measures.labels import label_adapters
from subspace.measures.rank import notes as rank_notes
from subspace.measures.rank.spectral import (
    energy_rank,
    entropy_rank,
    participation_ratio,
    stable_rank,
)
from subspace.measures.shared import check_shapes, find_shared, mark_unknown
from subspace.results import ModuleRank, Rank, Side, Spread
from subspace.spectra import equal_chunks, is_zero, over_chunks, solve, solve_sides, usable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch
    from numpy.typing import NDArray

    from subspace.spectra import Solved

MOST = 0.9  # of the modules for which the rank of the whole adapter is to be enough


def rank(
    adapters: Sequence[Adapter] | Adapter,
    *,
    side: Side = "in",
    level: float = LEVEL,
    modules: str | None = None,
    device: str | torch.device = "cpu",
    progress: Callable[[int], None] | None = None,
) -> Rank:
    """Count the directions that runs of one configuration share, beside the ranks of the spectrum.

    The *replicable rank* of a module is the number of leading directions on which two runs agree
    significantly, the ``agreeing`` of `subspace.similarity`, and its median over all pairs of
    runs: with an even number of pairs it may be a half. The stable rank, the effective rank by
    entropy, the participation ratio and the energy rank are of each run's delta W alone.

    Parameters
    ----------
    adapters
        Two or more runs that differ in their seed. A single one has only the ranks of its spectrum.
    side
        Whose directions are compared, see `subspace.spectra`. ``in`` and ``out`` belong to the
        update; ``A`` and ``B`` depend on its gauge; ``delta-A`` leaves the initial A out, which
        is another in every run and can hide in ``A`` and ``in`` what was learned.
    level
        For each pair of runs: family-wise level within a module, false discovery rate over
        modules (Benjamini & Hochberg 1995). Where nothing is shared, at most this share of pairs
        has a count above zero in any module.
    modules
        A shell-style pattern; without it, all modules that every run has.
    device
        Where to compute: any torch device with float64.
    progress
        Called with the number of modules that were finished.

    Returns
    -------
    `Rank`: a mapping from module path to `ModuleRank`, with the rank that is enough for nine in
    ten modules.

    Raises
    ------
    ArgumentError
        No adapter, one of them twice, an unknown side, a level that is no probability, a device
        that this machine lacks, or ``delta-A`` without the initial A.
    UnknownModuleError
        The adapters share no module, or none matches `modules`.
    ShapeError
        A shared module has different dimensions.
    NonFiniteError
        A factor holds NaN or infinity.

    Notes
    -----
    A direction counts only while all stronger ones count, so the replicable rank is a lower bound
    on what is shared. The null is that of independent random subspaces, not yet of the task.

    >>> import torch
    >>> from subspace import LowRankUpdate
    >>> A, B = torch.tensor([[0.0, 4.0], [3.0, 0.0]]), torch.eye(2)
    >>> one = rank(Adapter.from_updates({"q": LowRankUpdate("q", A, B, 1.0)}))["q"]
    >>> one.stable.median, one.energy90.median, one.replicable
    (1.5625, 2, None)
    """
    adapters = align([adapters] if isinstance(adapters, Adapter) else adapters)
    _check(adapters, level)
    device = usable(device)
    names = find_shared(adapters, modules)
    for name in names:
        check_shapes(adapters, name, side)
    initial_a = require_initial_a(adapters, names, side)
    labels = label_adapters(adapters)
    pairs = list(itertools.combinations(range(len(adapters)), 2))

    def shape(name: str) -> tuple[int, ...]:
        infos = [x.updates[name] for x in adapters]
        return (*infos[0].shape, *(info.rank for info in infos))

    def work(chunk: list[str]) -> list[_Module]:
        rows = [[x[name] for x in adapters] for name in chunk]
        near: Side = side if side in ("in", "out") else "in"
        before = None if side != "delta-A" or initial_a is None else [initial_a[n] for n in chunk]
        solved = solve_sides(rows, tuple(dict.fromkeys((side, near))), device, before)
        initial: Sequence[Solved | None] = [None] * len(chunk)
        if initial_a is not None and pairs:
            wrapped = [
                [
                    wrap_initial_a(n, A0, x.name)
                    for A0, x in zip(initial_a[n], adapters, strict=True)
                ]
                for n in chunk
            ]
            initial = solve(wrapped, "A", device)
        return [
            _reduce(one, spectra, first, [is_zero(u) for u in row], pairs)
            for one, spectra, first, row in zip(
                solved[side], solved[near], initial, rows, strict=True
            )
        ]

    chunks = equal_chunks(names, shape)
    parts = over_chunks(chunks, work, progress=progress)
    by_name = dict(zip(itertools.chain(*chunks), itertools.chain(*parts), strict=True))
    reduced = {name: by_name[name] for name in names}
    counts = [
        count_agreeing([m.overlaps[p] for m in reduced.values()], level) for p in range(len(pairs))
    ]
    shared = [
        count_shared([m.overlaps[p] for m in reduced.values()], level) for p in range(len(pairs))
    ]
    ranks = {
        name: _build_module(
            name,
            reduced[name],
            [x.updates[name].rank for x in adapters],
            tuple(count[at] for count in counts),
            [count for each in shared if (count := each[at]) is not None],
            labels,
        )
        for at, name in enumerate(names)
    }
    named = tuple((labels[a], labels[b]) for a, b in pairs)
    same = {
        pair: sum(m.same_initial_a[p] for m in reduced.values())
        for p, pair in enumerate(named)
        if initial_a is not None
    }
    return Rank(
        adapters=labels,
        side=side,
        level=level,
        modules={row.module: row for row in mark_unknown(ranks.values(), adapters)},
        pairs=named,
        recommended=_for_most([m.recommended for m in ranks.values()]),
        same_initial=tuple(pair for pair, count in same.items() if count),
        notes=(
            *rank_notes.note_all(
                adapters, labels, names, modules, side, None if initial_a is None else same
            ),
            *note_same_rows(adapters, labels),
        ),
    )


def _check(adapters: Sequence[Adapter], level: float) -> None:
    if not adapters:
        raise ArgumentError("no adapter was given; the replicable rank needs two runs or more")
    if not 0 < level < 1:
        raise ArgumentError(f"level is {level!r}; it is a probability between 0 and 1")
    # By identity where there is no path: to ask whether two mappings are equal reads both.
    places = [id(x) if x.path is None else x.path.resolve() for x in adapters]
    for n, place in enumerate(places):
        if place in places[:n]:
            raise ArgumentError(
                f"adapter {adapters[n].name!r} was given twice: a run agrees with itself in "
                "everything; give runs of different seeds"
            )


@dataclass(frozen=True, eq=False, kw_only=True)
class _Module:
    """The numbers of one module's decomposition, without its directions."""

    d: int
    counted: int  # directions of the compared side that are real, the fewest of any run
    spectra: list[NDArray[np.float64]]  # per run the singular values that are real
    zero: list[bool]
    overlaps: list[Overlaps]  # per pair of runs
    same_initial_a: list[bool]


def _reduce(
    solved: Solved,
    spectra: Solved,
    initial: Solved | None,
    zero: list[bool],
    pairs: Sequence[tuple[int, int]],
) -> _Module:
    d = solved.directions[0].dimension
    bounds = [x.angle_errors().numpy() for x in solved.directions]
    real = [0 if none else x.rank for x, none in zip(solved.directions, zero, strict=True)]
    overlaps = [
        Overlaps.of(
            np.square(solved.overlap(a, b).numpy()), (bounds[a], bounds[b]), (real[a], real[b]), d
        )
        for a, b in pairs
    ]
    values = [
        x.S[: 0 if none else x.rank].numpy()
        for x, none in zip(spectra.directions, zero, strict=True)
    ]
    return _Module(
        d=d,
        counted=min(real),
        spectra=values,
        zero=zero,
        overlaps=overlaps,
        same_initial_a=[
            False if initial is None else share_initial_a(initial, *pair) for pair in pairs
        ],
    )


def _build_module(
    name: str,
    reduced: _Module,
    nominal: Sequence[int],
    counts: tuple[int | None, ...],
    shared: Sequence[int],
    labels: Sequence[str],
) -> ModuleRank:
    defined = [count for count in counts if count is not None]
    middle: float | None = median(defined) if defined else None
    if middle is not None and middle == int(middle):
        middle = int(middle)
    spectra = [S for S in reduced.spectra if len(S)]
    return ModuleRank(
        module=name,
        d=reduced.d,
        nominal=min(nominal),
        numerical=min(map(len, reduced.spectra)),
        counted=reduced.counted,
        agreeing=counts,
        pairs=len(defined),
        replicable=middle,
        replicable_low=min(defined, default=None),
        replicable_high=max(defined, default=None),
        shared=median(shared) if shared else None,
        stable=_find_spread([stable_rank(S) for S in spectra]),
        entropy=_find_spread([entropy_rank(S) for S in spectra]),
        participation=_find_spread([participation_ratio(S) for S in spectra]),
        energy90=_find_spread([energy_rank(S, 0.90) for S in spectra]),
        energy95=_find_spread([energy_rank(S, 0.95) for S in spectra]),
        energy99=_find_spread([energy_rank(S, 0.99) for S in spectra]),
        recommended=None if middle is None else max(1, math.ceil(middle)),
        note=rank_notes.note_module(
            nominal, [len(S) for S in reduced.spectra], reduced.zero, counts, labels
        ),
    )


def _find_spread(values: Sequence[float]) -> Spread:
    if not values:
        return Spread(math.nan, math.nan, math.nan)
    return Spread(median(values), min(values), max(values))


def _for_most(ranks: Sequence[int | None]) -> int | None:
    """Return the smallest rank that is enough for `MOST` of the modules that have one."""
    defined = sorted(r for r in ranks if r is not None)
    return defined[math.ceil(MOST * len(defined)) - 1] if defined else None
