"""The first sentences of a report: the first pair, two seeds, what is amplified, the ranks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from subspace.findings.amplification import describe_amplification
from subspace.findings.rank import describe_rank
from subspace.findings.similarity import describe_similarity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from subspace.results import Amplification, Rank, Similarity

MOST = 3
"""Sentences after which those on the ranks are left out."""

_NO_RUNS = (
    "No replicable rank: it takes two runs of one configuration that differ in their seed, and no "
    "two of these adapters are such; the table of ranks has each spectrum alone."
)


def describe_report(
    pairs: Sequence[Similarity],
    table7: Sequence[Amplification],
    replicable: Sequence[Rank],
    ranks: Sequence[Rank],
) -> tuple[str, ...]:
    """Choose the findings that a report begins with.

    Parameters
    ----------
    pairs
        The compared adapters, the first pair first.
    table7
        What each adapter amplifies; empty without a base.
    replicable
        The ranks of runs of one configuration.
    ranks
        Each adapter's spectrum alone.

    Returns
    -------
    tuple of str
        Two sentences on the first pair, one on two runs of one configuration if that is another
        pair, one on Table 7, and up to `MOST` in all on the ranks. One printable line each.
    """
    sentences = list(describe_similarity(pairs[0], pairs[0])[:2]) if pairs else []
    groups = [set(each.adapters) for each in replicable]
    of_seeds = next((p for p in pairs if any(set(p.adapters) <= group for group in groups)), None)
    if of_seeds is not None and of_seeds is not pairs[0]:
        sentences.append(describe_similarity(pairs[0], of_seeds)[2])
    sentences += [describe_amplification(table7)] if table7 else []
    if len(sentences) >= MOST:
        return tuple(sentences)
    if len(ranks) > 1 and not replicable:
        return (*sentences, _NO_RUNS)
    return (*sentences, *describe_rank((*replicable, ranks[0])[0])[: MOST - len(sentences)])
