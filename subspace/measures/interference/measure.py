"""What would a merge do? Whether the updates of several adapters add up, cancel or do not meet.

A merge by weighted sum is ``W + sum_k w_k dW_k``; all that is said of it follows from inner
products of the updates (the cosines of task arithmetic: Ilharco et al. 2023, arXiv:2212.04089).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import TYPE_CHECKING

from subspace.adapters import align
from subspace.errors import ArgumentError
from subspace.measures.agreement import LEVEL
from subspace.measures.initial import collect_initial_a, note_same_rows, wrap_initial_a
from subspace.measures.interference import notes as interference_notes
from subspace.measures.interference.inner_products import Products
from subspace.measures.interference.merged import Merged, sum_modules
from subspace.measures.interference.modules import (
    ModuleComparison,
    adjust,
    build_module,
    compare_whole,
)
from subspace.measures.labels import label_distinctly
from subspace.measures.shared import check_shapes, chunk_alike, find_holders, mark_unknown
from subspace.results import Interference, SharedInitial
from subspace.spectra import over_chunks, solve, solve_sides, usable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import torch

    from subspace.adapters import Adapter
    from subspace.results import ModuleInterference
    from subspace.spectra import Solved


def interference(
    adapters: Sequence[Adapter],
    *,
    weights: Sequence[float] | None = None,
    modules: str | None = None,
    level: float = LEVEL,
    device: str | torch.device = "cpu",
    progress: Callable[[int], None] | None = None,
) -> Interference:
    """Say what adding adapters to one base would do, from their factors alone.

    For every pair and module the energy cosine ``<dW1, dW2>_F / (|dW1| |dW2|)``, by the trace of
    ``(A2 A1^T) (B1^T B2)``, beside its null; the overlap phi(r1, r2)
    of their row and column spaces; and of all adapters together how much energy the sum has,
    ``|sum w_k dW_k|^2 / sum |w_k dW_k|^2`` (1 where they are orthogonal, less where they cancel),
    and what is left of each, ``<sum, dW_k> / |dW_k|^2``.

    Parameters
    ----------
    adapters
        Two or more adapters of one base model; ranks and modules may differ.
    weights
        w_k of the sum, 1 each by default; a negative one subtracts. The cosines are of w_k dW_k.
    modules
        A shell-style pattern; without it, all modules.
    level
        False discovery rate over modules at which a cosine is significant, for each pair.
    device
        Where to compute: any torch device with float64.
    progress
        Called with the number of modules that were finished.

    Returns
    -------
    `Interference`: a mapping from the path of each module that two adapters share, with the sums
    over the whole model.

    Raises
    ------
    ArgumentError
        Fewer than two adapters, weights that do not fit them or are zero or not finite, a level
        that is no probability, a device that this machine lacks.
    UnknownModuleError
        No two adapters share a module, or none of one adapter matches `modules`.
    ShapeError
        A shared module has different dimensions.
    NonFiniteError
        A factor holds NaN or infinity.

    Notes
    -----
    It is about the sum of the updates delta W, as merging one after the other into the base gives
    it, or peft's ``add_weighted_adapter`` with "cat" (and "svd", as far as its rank holds it).
    Peft's "linear" adds A and B each for themselves, which is another update.

    >>> import torch
    >>> from subspace import Adapter, LowRankUpdate
    >>> A, B = torch.eye(2, 5), torch.ones(2, 2)
    >>> x = Adapter.from_updates({"q": LowRankUpdate("q", A, B, 1.0)}, name="x")
    >>> y = Adapter.from_updates({"q": LowRankUpdate("q", A, -B, 0.5)}, name="y")
    >>> merge = interference([x, y])
    >>> merge["q"].pairs[0].cosine, merge["q"].energy, merge["q"].kept
    (-1.0, 0.2, (0.5, -1.0))
    """
    adapters = align(adapters)
    by = _weights(adapters, weights)
    if not 0 < level < 1:
        raise ArgumentError(f"level is {level!r}; it is a probability between 0 and 1")
    device = usable(device)
    labels = label_distinctly(adapters)
    chosen = [x.select(modules) for x in adapters]
    holders = find_holders(chosen, labels)
    for name, places in holders.items():
        check_shapes([chosen[n] for n in places], name)
    shared = [name for name, places in holders.items() if len(places) > 1]
    initial_a = collect_initial_a(chosen, shared)

    def work(chunk: list[str]) -> list[ModuleComparison]:
        places = holders[chunk[0]]  # of all in the chunk
        rows = [[chosen[n][name] for n in places] for name in chunk]
        if len(places) == 1:
            return [
                ModuleComparison(
                    shape=row[0].shape, places=places, products=Products.of(row, device)
                )
                for row in rows
            ]
        solved = solve_sides(rows, ("in", "out"), device)
        initial: Sequence[Solved | None] = [None] * len(chunk)
        if initial_a is not None:
            wrapped = [
                [wrap_initial_a(name, chosen[n].initial[name], labels[n]) for n in places]
                for name in chunk
            ]
            initial = solve(wrapped, "A", device)
        return [
            ModuleComparison.of(places, row, Products.of(row, device), (inner, outer), first)
            for row, inner, outer, first in zip(
                rows, solved["in"], solved["out"], initial, strict=True
            )
        ]

    chunks = chunk_alike(holders, chosen)
    parts = over_chunks(chunks, work, progress=progress)
    by_name = dict(zip(itertools.chain(*chunks), itertools.chain(*parts), strict=True))
    compared = {name: by_name[name] for name in holders}
    pairs = list(itertools.combinations(range(len(adapters)), 2))
    named = [(labels[a], labels[b]) for a, b in pairs]
    results = adjust(
        {name: build_module(name, compared[name], by, labels) for name in shared}, named, level
    )
    of_all = sum_modules([one.share() for one in compared.values()], len(adapters))
    merged = Merged.of(of_all[0], by, of_all[1])
    alone = tuple(
        tuple(name for name, places in holders.items() if places == (n,))
        for n in range(len(adapters))
    )
    same = {
        name: sum(pair in compared[module].same_initial_a for module in shared)
        for name, pair in zip(named, pairs, strict=True)
    }
    same_initial_a = None if initial_a is None else same
    return Interference(
        adapters=labels,
        weights=tuple(by),
        level=level,
        modules={row.module: row for row in mark_unknown(results.values(), adapters)},
        pairs=tuple(
            replace(
                compare_whole(pair, labels, by, of_all, compared.values(), results.values()),
                compared=_share_compared(pair, labels, results, of_all[0].norms.tolist()),
            )
            for pair in pairs
        ),
        norms=tuple(of_all[0].norms.tolist()),
        energy=merged.energy,
        energy_error=merged.error,
        energy_std=merged.std,
        kept=merged.kept,
        alone=alone,
        same_initial=None
        if same_initial_a is None
        else tuple(SharedInitial(pair, count) for pair, count in same_initial_a.items()),
        notes=(
            *interference_notes.note_all(adapters, labels, alone, len(shared), same_initial_a),
            *note_same_rows(adapters, labels),
        ),
    )


def _share_compared(
    pair: tuple[int, int],
    labels: Sequence[str],
    modules: Mapping[str, ModuleInterference],
    norms: Sequence[float],
) -> tuple[float, float]:
    """Return of two adapters the share of |delta W|^2 that lies in modules which both have."""

    def share(n: int) -> float:
        both = (m for m in modules.values() if {labels[k] for k in pair} <= set(m.adapters))
        inside = math.fsum((m.norms[m.adapters.index(labels[n])] / norms[n]) ** 2 for m in both)
        return min(1.0, inside)

    first, second = (share(n) if norms[n] else math.nan for n in pair)
    return first, second


def _weights(adapters: Sequence[Adapter], weights: Sequence[float] | None) -> list[float]:
    if len(adapters) < 2:
        raise ArgumentError(
            f"{len(adapters) or 'no'} adapter was given; interference is between two or more"
        )
    given = [1.0] * len(adapters) if weights is None else [float(w) for w in weights]
    if len(given) != len(adapters):
        raise ArgumentError(
            f"{len(given)} weights for {len(adapters)} adapters; give one each, in their order"
        )
    for adapter, weight in zip(adapters, given, strict=True):
        if not math.isfinite(weight) or weight == 0:
            way = "leave that adapter out" if weight == 0 else "give a number"
            raise ArgumentError(f"the weight of {adapter.name!r} is {weight:g}; {way}")
    return given
