"""All that a gallery draws and says, measured once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from subspace.reports.gather import Comparison, Request, Runs, gather

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from subspace.adapters import Adapter
    from subspace.findings.inheritance import BySide
    from subspace.gallery.runs import ComparedAdapters
    from subspace.pretrained import Pretrained
    from subspace.reports.gather import Gathered
    from subspace.results import (
        Amplification,
        Claim,
        Profile,
        Rank,
        SharedByRuns,
        Side,
        Similarity,
        Table6,
    )
    from subspace.training.sweep.run import SweepRun


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What was found, in sentences by section of the page."""

    enough: tuple[str, ...]
    ranks: tuple[str, ...]
    seeds: tuple[str, ...]
    amplified: tuple[str, ...]
    shared: str
    moved: str
    rates: str  # empty where no rate is at an end of what was tried


@dataclass(frozen=True, kw_only=True)
class GalleryResults:
    """All that the gallery draws and says."""

    table: Table6
    ranks: Similarity  # two ranks, two seeds, and a control
    seeds: Similarity  # two seeds of the larger rank, and a control
    placed: tuple[Similarity, Similarity]  # of the smaller and of the larger rank
    table7: tuple[Amplification, Amplification]  # likewise
    curve: Amplification  # the larger rank, cut to each smaller one
    profile: Profile  # the smaller rank
    real: Rank  # all seeds of the larger rank, side delta-A
    shared: tuple[SharedByRuns, ...]
    claims: tuple[Claim, ...]
    findings: Findings


def measure_runs(
    trained: Sequence[SweepRun], runs: ComparedAdapters, base: Pretrained
) -> GalleryResults:
    """Measure the compared adapters and their sweep, and write the findings.

    Parameters
    ----------
    trained
        The runs of Table 6, finished ones.
    runs
        Those that are compared.
    base
        The checkpoint that all were trained on.
    """
    from subspace.findings import (
        check_claims,
        describe_amplification,
        describe_rank,
        describe_similarity,
    )
    from subspace.findings.inheritance import (
        SIDES,
        describe_inheritance,
        describe_movement,
        summarise_pair,
    )
    from subspace.findings.table6 import describe_enough, describe_rates
    from subspace.measures.similarity.initial import compare_with_initial
    from subspace.training.sweep.summary import make_table6

    small, large, twin, (other, another) = runs.small, runs.large, runs.twin, runs.seeds
    pairs = list(_list_pairs(runs))
    measured = gather(
        Request(
            comparisons=[
                Comparison(small, large, control=runs.control_of_ranks),
                Comparison(other, another, control=runs.control_of_seeds),
                *(Comparison(a, b, side) for a, b in pairs for side in SIDES),
            ],
            ranks=[Runs(runs.same_rank, "delta-A")],
            amplified=(small, large),
            cuts=range(1, highest_rank(large) + 1),
            placed=(small, large),
            profiled=(small,),
        ),
        base,
    )
    table = make_table6(trained)
    by_side = {(a.name, b.name): _take(measured, a, b, SIDES) for a, b in pairs}
    ranks = measured.similarities[small.name, large.name, "A"]
    seeds = measured.similarities[other.name, another.name, "A"]
    (real,) = measured.ranks.values()
    one, two = (measured.amplifications[a.name] for a in (small, large))
    placed = (measured.placements[small.name], measured.placements[large.name])
    moved = measured.similarities[small.name, large.name, "delta-A"]
    of_ranks, rest, of_seeds = describe_similarity(ranks, seeds)
    distances, from_initial = compare_with_initial(large)
    return GalleryResults(
        table=table,
        ranks=ranks,
        seeds=seeds,
        placed=placed,
        table7=(one, two),
        curve=measured.curves[large.name],
        profile=measured.profiles[small.name],
        real=real,
        shared=tuple(summarise_pair(names, pair) for names, pair in by_side.items()),
        claims=check_claims(table, ranks, seeds, placed, (one, two), moved=moved),
        findings=Findings(
            enough=tuple(describe_enough(each, table) for each in table.nearly_enough),
            ranks=(of_ranks, rest),
            seeds=(of_seeds, *describe_rank(real)),
            amplified=(describe_amplification((one, two)),),
            shared=" ".join(
                describe_inheritance(
                    by_side[small.name, large.name],
                    by_side[other.name, another.name],
                    one_seed=by_side[small.name, twin.name],
                    shuffled=_find(by_side, *runs.controls[:2]),
                    crossed=_find(by_side, other, runs.control_of_seeds),
                )
            ),
            moved=describe_movement(large.name, list(distances.values()), from_initial),
            rates=describe_rates(table),
        ),
    )


def highest_rank(adapter: Adapter) -> int:
    """Return the largest rank of any module."""
    return max(info.rank for info in adapter.updates.values())


def _list_pairs(runs: ComparedAdapters) -> Iterator[tuple[Adapter, Adapter]]:
    """Yield the pairs of the section on what was inherited, no two runs twice.

    The first pair of ranks is of two seeds, the second of one if both ranks have it.
    """
    yield (runs.small, runs.large)
    yield (runs.small, runs.twin)
    if {runs.large.name, runs.twin.name} != {run.name for run in runs.seeds}:
        yield (runs.large, runs.twin)
    yield runs.seeds
    if runs.control_of_seeds is not None:
        yield (runs.seeds[0], runs.control_of_seeds)
    if len(runs.controls) > 1:
        yield (runs.controls[0], runs.controls[1])


def _take(measured: Gathered, a: Adapter, b: Adapter, sides: Sequence[Side]) -> BySide:
    return {side: measured.similarities[a.name, b.name, side] for side in sides}


def _find(by_side: Mapping[tuple[str, str], BySide], *pair: Adapter | None) -> BySide | None:
    """Return the comparison of a pair; None where one of the two is not there."""
    names = tuple(adapter.name for adapter in pair if adapter is not None)
    return by_side[names[0], names[1]] if len(names) == 2 else None
