"""The gallery's section 'Learned or inherited?': runs beside their starts, and beside controls."""

from __future__ import annotations

import math
from statistics import median
from typing import TYPE_CHECKING

from subspace.results import Shared, SharedByRuns

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from subspace.adapters import Adapter
    from subspace.gallery.runs import Runs
    from subspace.results import Side, Similarity

SIDES: tuple[Side, ...] = ("A", "delta-A", "in", "B", "out")


def inherited(runs: Runs, done: Iterable[Similarity] = ()) -> tuple[tuple[SharedByRuns, ...], str]:
    """Compare runs on every side: two ranks, two seeds, and with shuffled labels where there are.

    The first pair of ranks is of two seeds, the second of one if both have it. No two runs are
    compared twice, and a comparison that is `done` is not made again. Returned are the pairs, and
    what they say.
    """
    from subspace.measures.similarity.measure import similarity

    known = {(one.adapters, one.side): one for one in done}
    pairs = {(a.name, b.name): (a, b) for a, b in _pairs(runs)}
    held = {
        names: {
            side: known[names, side] if (names, side) in known else similarity(*pair, side=side)
            for side in SIDES
        }
        for names, pair in pairs.items()
    }
    found = []
    for names, by_side in held.items():
        start = next((r.initial for r in by_side.values() if r.initial is not None), None)
        sides = {side: _shared(result) for side, result in by_side.items()}
        found.append(SharedByRuns(names, sides, None if start is None else _shared(start)))
    return tuple(found), " ".join(_said(runs, held))


def table(found: Sequence[SharedByRuns]) -> tuple[list[str], list[list[str]]]:
    """Return the header and a line a pair."""
    header = ["runs", *(f"side {side}" for side in SIDES), "initial A"]
    rows = [
        [" and ".join(p.runs), *(_words(p.sides[side]) for side in SIDES), _words(p.initial)]
        for p in found
    ]
    return header, rows


def _pairs(runs: Runs) -> Iterator[tuple[Adapter, Adapter]]:
    yield (runs.small, runs.large)
    yield (runs.small, runs.twin)
    if {runs.large.name, runs.twin.name} != {run.name for run in runs.seeds}:
        yield (runs.large, runs.twin)
    yield runs.seeds
    if runs.control_of_seeds is not None:
        yield (runs.seeds[0], runs.control_of_seeds)
    if len(runs.controls) > 1:
        yield (runs.controls[0], runs.controls[1])


def _said(runs: Runs, held: Mapping[tuple[str, str], Mapping[Side, Similarity]]) -> Iterator[str]:
    small, large, twin = (run.name for run in (runs.small, runs.large, runs.twin))
    other, another = (run.name for run in runs.seeds)
    ranks, seeds = held[small, large], held[other, another]
    yield (
        f"Of two ranks the directions that agree are a median of {_agree(ranks['A'])} on side A "
        f"and {_agree(ranks['delta-A'])} with the start taken out, of two seeds "
        f"{_agree(seeds['A'])} and {_agree(seeds['delta-A'])}: what A keeps of its start is shared "
        "with no other run, and side A counts it as unshared."
    )
    one = held[small, twin]
    start = one["A"].initial
    if twin != large and start is not None:
        yield (
            f"Two ranks of one seed are at φ(1,1) {_first(one['A'])} where two seeds are at "
            f"{_first(ranks['A'])}, and their initial A at {_first(start)}: what one seed gives "
            "beside A's start, such as the order of the texts, is in the directions too."
        )
    if len(runs.controls) > 1:
        control = held[runs.controls[0].name, runs.controls[1].name]["delta-A"]
        yield (
            f"Two seeds on shuffled labels share {_agree(control)} on side delta-A, two of the "
            f"task {_agree(seeds['delta-A'])}: runs of one training find the same directions, "
            "whatever it has to teach, so that the rank recommended above is not owed to the task "
            "alone."
        )
    if runs.control_of_seeds is not None:
        crossed = held[other, runs.control_of_seeds.name]
        yield (
            f"A run of the task and one on shuffled labels share {_agree(crossed['delta-A'])}, at "
            f"φ(1,1) {_first(crossed['A'])} on side A where two of the task are at "
            f"{_first(seeds['A'])}: so much is owed to the texts and the model alone, and what is "
            "beyond it to the labels."
        )


def _shared(result: Similarity) -> Shared:
    phi = [float(m.phi[0, 0]) for m in result.values() if m.phi[0, 0] == m.phi[0, 0]]
    agree = [m.agreeing for m in result.values() if m.agreeing is not None]
    return Shared(
        median(phi) if phi else math.nan,
        # Modules in which φ is undefined have no directions to count either.
        float(median(agree)) if agree and phi else math.nan,
    )


def _first(result: Similarity) -> str:
    phi = _shared(result).phi
    return f"{phi:.3f}" if phi == phi else "undefined"


def _agree(result: Similarity) -> str:
    agree = [m.agreeing for m in result.values() if m.agreeing is not None]
    most = max((min(m.rank_a, m.rank_b) for m in result.values()), default=0)
    return f"{median(agree):g} of {most}" if agree else "an undefined number"


def _words(shared: Shared | None) -> str:
    if shared is None:
        return "-"
    first = f"{shared.phi:.3f}" if shared.phi == shared.phi else "undefined"
    return first + (f"; {shared.agreeing:g}" if shared.agreeing == shared.agreeing else "")
