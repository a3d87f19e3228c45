"""Which of many adapters are alike? Every pair by one number, each adapter decomposed once.

The numbers are those of `subspace.similarity`: phi of Eq. 4 of Hu et al. 2021, arXiv:2106.09685.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from subspace.adapters import align
from subspace.errors import ArgumentError
from subspace.measures.agreement import LEVEL
from subspace.measures.initial import (
    collect_initial_a,
    note_same_rows,
    require_initial_a,
    wrap_initial_a,
)
from subspace.measures.labels import label_distinctly
from subspace.measures.shared import check_shapes, chunk_alike, find_holders
from subspace.measures.similarity import notes as matrix_notes
from subspace.measures.similarity.clustering import order_by_linkage
from subspace.measures.similarity.pairs import ModulePairs, summarise_pairs
from subspace.results import BY, By, PairSimilarity, Side, SimilarityMatrix
from subspace.spectra import is_zero, over_chunks, require_finite, solve, usable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import torch
    from numpy.typing import NDArray

    from subspace.adapters import Adapter
    from subspace.spectra import Solved

    Array = NDArray[np.float64]

MOST = 200  # adapters of one matrix
_DIRECTIONS = 12_800  # of one module: their overlaps are 1.3 GB
_AT_ONCE = 1 << 27  # overlaps that all threads together hold: 1 GB in float64


def similarities(
    adapters: Sequence[Adapter],
    *,
    by: By = "phi",
    k: int | None = None,
    side: Side = "A",
    modules: str | None = None,
    level: float = LEVEL,
    device: str | torch.device = "cpu",
    progress: Callable[[int], None] | None = None,
) -> SimilarityMatrix:
    """Compare every two of several adapters by one number, and order them so that alike ones meet.

    A pair's number is the median over the modules that both have. Beside it stand the null mean,
    and in how many of those modules it is significant at `level`, undefined, or of the same
    initial A. The order is that of average linkage on ``1 - phi``, on the distance, or on
    ``1 - agreeing / directions of the smaller``, an undefined pair being 1 apart.

    Parameters
    ----------
    adapters
        2 to 200 adapters of one base model; ranks and modules may differ.
    by
        ``"phi"``: phi(k, k). ``"distance"``: the projection (chordal) distance between the leading
        k directions of both, over sqrt(k): 0 the same subspace, 1 orthogonal ones; in each module
        a metric, since all are of one dimension (Ye & Lim 2016, SIAM J. Matrix Anal. 37).
        ``"agreeing"``: how many leading directions agree, as `subspace.similarity`
        counts them.
    k
        Leading directions of each; by default the smallest rank that any adapter has in a module.
        Not for agreeing, which asks all of them.
    side
        Whose directions, see `subspace.spectra`.
    modules
        A shell-style pattern; without it, all modules that two adapters share.
    level
        False discovery rate over modules, a pair each; for agreeing also the family-wise level
        within a module.
    device
        Where to compute: any torch device with float64.
    progress
        Called with the number of modules that were finished.

    Returns
    -------
    `SimilarityMatrix`.

    Raises
    ------
    ArgumentError
        Fewer than 2 or more than 200 adapters, or more than 12,800 directions in one module; an
        unknown `by` or side, a k beyond a rank, a level that is no probability, a device that this
        machine lacks, or ``delta-A`` without the initial A.
    UnknownModuleError
        No two adapters share a module, or none of one adapter matches `modules`.
    ShapeError
        A shared module has different dimensions.
    NonFiniteError
        A factor holds NaN or infinity.

    Notes
    -----
    The distance's null is the root of its mean square, ``sqrt(1 - k/d)``; its p-value is that of
    phi, since the squared distance is 1 - phi. The overlaps of one module take memory as the square
    of the sum of all its ranks.

    >>> import torch
    >>> from subspace import Adapter, LowRankUpdate
    >>> def one(name, first):
    ...     A = torch.eye(9)[[first, first + 1]] * torch.tensor([[2.0], [1.0]])
    ...     update = LowRankUpdate("q", A, torch.ones(4, 2), 1.0)
    ...     return Adapter.from_updates({"q": update}, name=name)
    >>> matrix = similarities([one("x", 0), one("y", 6), one("z", 1)])
    >>> matrix.k, [p.value for p in matrix.pairs], [matrix.adapters[n] for n in matrix.order]
    (2, [0.0, 0.5, 0.0], ['y', 'z', 'x'])
    """
    adapters = align(adapters)
    _check(adapters, by, k, level)
    device = usable(device)
    labels = label_distinctly(adapters)
    chosen = [x.select(modules) for x in adapters]
    holders = {
        name: places for name, places in find_holders(chosen, labels).items() if len(places) > 1
    }
    for name, places in holders.items():
        check_shapes([chosen[n] for n in places], name, side)
    own = [[name for name in holders if name in x] for x in chosen]
    if side == "delta-A":
        for x, names in zip(chosen, own, strict=True):
            require_initial_a([x], names, side)
    stored = {
        n for n, x in enumerate(chosen) if own[n] and collect_initial_a([x], own[n]) is not None
    }
    if by != "agreeing":
        k = _find_common(k, holders, chosen, labels, side)

    def work(chunk: list[str]) -> list[ModulePairs]:
        places = holders[chunk[0]]  # of all in the chunk
        rows = [[chosen[n][name] for n in places] for name in chunk]
        if side not in ("in", "out"):  # the factor that this side does not read
            for update in itertools.chain(*rows):
                require_finite(update, "A" if side == "B" else "B")
        before = None
        if side == "delta-A":
            before = [[chosen[n].initial[name] for n in places] for name in chunk]
        solved = solve(rows, side, device, before)
        storing = tuple(n for n in places if n in stored)
        initial: Sequence[Solved | None] = [None] * len(chunk)
        if len(storing) > 1:
            wrapped = [
                [wrap_initial_a(name, chosen[n].initial[name], labels[n]) for n in storing]
                for name in chunk
            ]
            initial = solve(wrapped, "A", device)
        return [
            ModulePairs.of(places, one, [is_zero(u) for u in row], by, k, storing, first)
            for one, row, first in zip(solved, rows, initial, strict=True)
        ]

    chunks = chunk_alike(holders, chosen)
    parts: list[list[ModulePairs]] = []
    for some in _batches(chunks, holders, chosen):
        parts += over_chunks(some, work, progress=progress)
    by_name = dict(zip(itertools.chain(*chunks), itertools.chain(*parts), strict=True))
    pairs = summarise_pairs([by_name[name] for name in holders], labels, by, level, stored)
    order, linkage = order_by_linkage(_measure_apart(pairs, by, len(labels)), labels)
    return SimilarityMatrix(
        adapters=labels,
        by=by,
        side=side,
        k=k,
        level=level,
        pairs=pairs,
        order=order,
        linkage=linkage,
        notes=(
            *matrix_notes.note_all(adapters, labels, pairs, side, stored),
            *note_same_rows(adapters, labels),
        ),
    )


def _check(adapters: Sequence[Adapter], by: By, k: int | None, level: float) -> None:
    if not 2 <= len(adapters) <= MOST:
        raise ArgumentError(
            f"{len(adapters) or 'no'} adapter{'s were' if len(adapters) > 1 else ' was'} given; a "
            f"matrix is of 2 to {MOST}"
        )
    if by not in BY:
        raise ArgumentError(f"by is {by!r}; it is one of {', '.join(BY)}")
    if not 0 < level < 1:
        raise ArgumentError(f"level is {level!r}; it is a probability between 0 and 1")
    if k is not None and by == "agreeing":
        raise ArgumentError(
            f"k = {k!r} is for phi and distance: agreeing asks every direction; leave k out"
        )
    if k is not None and (isinstance(k, bool) or not isinstance(k, int) or k < 1):
        raise ArgumentError(f"k is {k!r}; it counts directions, from 1")


def _find_common(
    k: int | None,
    holders: Mapping[str, tuple[int, ...]],
    adapters: Sequence[Adapter],
    labels: Sequence[str],
    side: Side,
) -> int:
    """Return k, or the smallest rank that there is; a rank is at most the side's dimension."""

    def rank(name: str, n: int) -> int:
        info = adapters[n].updates[name]
        return min(info.rank, info.shape[0 if side in ("B", "out") else 1])

    least, n, name = min(
        (rank(name, n), n, name) for name, places in holders.items() for n in places
    )
    if k is not None and k > least:
        raise ArgumentError(
            f"k is {k}, and {labels[n]!r} has {least} directions in {name!r}: give a k up to "
            f"{least}, or leave that adapter or module out"
        )
    return least if k is None else k


def _batches(
    chunks: Sequence[list[str]],
    holders: Mapping[str, tuple[int, ...]],
    adapters: Sequence[Adapter],
) -> Iterator[Sequence[list[str]]]:
    """Yield as many chunks as may be in memory at once."""
    widths = {
        chunk[0]: sum(adapters[n].updates[chunk[0]].rank for n in holders[chunk[0]])
        for chunk in chunks
    }
    widest = max(widths, key=lambda name: widths[name])
    if widths[widest] > _DIRECTIONS:
        raise ArgumentError(
            f"the ranks of {len(holders[widest])} adapters add up to {widths[widest]} in "
            f"{widest!r}, more than the {_DIRECTIONS} that are compared at once; give fewer"
        )
    size = max(len(chunk) for chunk in chunks) * widths[widest] ** 2
    step = max(1, _AT_ONCE // max(size, 1))
    for at in range(0, len(chunks), step):
        yield chunks[at : at + step]


def _measure_apart(pairs: Sequence[PairSimilarity], by: By, n: int) -> Array:
    """(n, n): how far two adapters are apart, in [0, 1]; NaN where undefined."""
    apart = np.zeros((n, n))
    for (a, b), pair in zip(itertools.combinations(range(n), 2), pairs, strict=True):
        alike = pair.value / pair.largest
        apart[a, b] = apart[b, a] = pair.value if by == "distance" else 1 - alike
    return apart
