"""Two findings on how many directions are real: the rank that follows, and what it leaves open.

The replicable rank is the number of leading directions that runs of one configuration share
(section 7.2 of Hu et al. 2021, arXiv:2106.09685). The words follow from the constants of this file.
"""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from subspace.errors import printable
from subspace.findings.numbers import modules, of_modules, write_sentences

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from subspace.results import ModuleRank, Rank

# Agreement in fewer modules than this fraction of the defined ones is called 'only'.
MOST = 0.5
# docs/meaning.md has the same: two runs on different shufflings agree, and on side out any two.
_NOT_THE_TASK = (
    "The count is not owed to the task alone: chance is that of random subspaces, and runs on the "
    "same texts share directions whatever the labels, on side out even runs of unrelated tasks"
)
# So many modules that need more than the recommended rank are named; the others are counted.
NAMED = 3


def describe_rank(result: Rank) -> tuple[str, str]:
    """Say in two findings which rank follows from the directions that runs share, and what not.

    Parameters
    ----------
    result
        The ranks of one or more runs.

    Returns
    -------
    tuple of two str
        (1) How many leading directions the runs share, what the spectrum alone would say, and the
        recommended rank with the modules it is enough for. (2) What neither shows. One printable
        line each; modules left out are counted.

    Notes
    -----
    A module's recommended rank is its replicable rank rounded up, and 1 at least; that of the
    whole adapter is enough for nine in ten modules.

    >>> from subspace.results import Rank
    >>> fields = dict(adapters=("r8",), side="in", level=0.01, modules={}, pairs=())
    >>> describe_rank(Rank(**fields, recommended=None))[0]
    'Undefined: there is no module.'
    """
    first, second = _describe_result(result), _open(result)
    return printable(first), printable(second)


def _describe_result(result: Rank) -> str:
    if not result:
        return "Undefined: there is no module."
    if not result.pairs:
        spectrum = _describe_spectrum(result.values())
        return f"No replicable rank from one run, only its spectrum: {spectrum}."
    ranked = [m for m in result.values() if m.replicable is not None]
    if not ranked:
        why = "; ".join(sorted({m.note for m in result.values() if m.note}))
        return f"Undefined: no replicable rank in any of {modules(len(result))} ({why})."
    counts = [float(m.replicable or 0) for m in ranked]
    some = sum(count > 0 for count in counts)
    runs = f"{len(result.adapters)} runs"
    at = f"side {result.side}, level {result.level:g}"
    others = [m for m in ranked if m.shared]
    if not some and others:
        many = median(m.shared or 0 for m in others)
        sentence = (
            f"In {of_modules(0, len(ranked))} do {runs} agree from the first direction on, but "
            f"in {len(others)} they share others above chance, a median of {many:g} in any order "
            f"({at}), while {_describe_spectrum(ranked)}: a count from the first says nothing here"
        )
    elif not some:
        sentence = (
            f"In {of_modules(0, len(ranked))} do {runs} share a leading direction above chance "
            f"({at}), though {_describe_spectrum(ranked)}: nothing here speaks for a rank above 1"
        )
    else:
        only = "Only in" if some < MOST * len(ranked) else "In"
        sentence = (
            f"{only} {of_modules(some, len(ranked))} {runs} share leading directions above "
            f"chance: {_spread(counts)}{at}), while {_describe_spectrum(ranked)}"
        )
    out = len(result) - len(ranked)
    left = f"left out as undefined: {out} of {modules(len(result))}" if out else ""
    return write_sentences(sentence, _describe_recommended(result, ranked) if some else "", left)


def _spread(counts: Sequence[float]) -> str:
    if min(counts) == max(counts):
        return f"{counts[0]:g}{' in each' if len(counts) > 1 else ''} ("
    return f"a median of {median(counts):g} (range {min(counts):g} to {max(counts):g}; "


def _describe_spectrum(ranked: Iterable[ModuleRank]) -> str:
    trained = [m for m in ranked if m.numerical]
    if not trained:
        return "there is none, for nothing was trained"
    sizes = [m.energy90.median for m in trained]
    of = {m.nominal for m in trained}
    rank = f"{min(of)}" if len(of) == 1 else f"{min(of)} to {max(of)}"
    if min(sizes) == max(sizes):
        return f"90 % of the energy lies in {sizes[0]:g} of {rank} directions"
    return (
        f"90 % of the energy lies in a median of {median(sizes):g} of {rank} directions "
        f"(range {min(sizes):g} to {max(sizes):g})"
    )


def _describe_recommended(result: Rank, ranked: Sequence[ModuleRank]) -> str:
    whole = result.recommended or 1
    beyond = [m for m in ranked if (m.recommended or 0) > whole]
    sentence = f"rank {whole} is enough for what they share in "
    if not beyond:
        sentence += f"all {len(ranked)}" if len(ranked) > 1 else "it"
    else:
        named = sorted(beyond, key=lambda m: -(m.recommended or 0))[:NAMED]
        more = f" and {len(beyond) - NAMED} more" if len(beyond) > NAMED else ""
        which = ", ".join(f"{m.module} {m.recommended}" for m in named)
        sentence += f"{len(ranked) - len(beyond)} of them (not in {which}{more})"
    full = sum(m.full for m in ranked)
    if full:
        sentence += (
            f"; in {modules(full)} all directions are shared, so that the count ends at the rank "
            "trained: a larger one may hold more"
        )
    return sentence


def _open(result: Rank) -> str:
    if not result.pairs:
        return (
            "Not shown: whether another seed finds these directions again; train a second one. "
            "Energy says what training moved, not what was learned."
        )
    same = len(result.same_initial)
    pairs = len(result.pairs)
    caution = (
        f"; caution: {same} of {pairs} pair{'' if pairs == 1 else 's'} of runs had the same "
        "initial A, which they then share unlearned"
        if same
        else ""
    )
    return (
        "Not shown: that this rank does for the task (train at it and compare), and directions "
        "that are shared in another order, for a count ends at the first that is not. "
        f"{_NOT_THE_TASK}{caution}."
    )
