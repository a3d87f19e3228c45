"""The claims of the paper's section 7, each beside our numbers and a verdict by fixed rules.

Hu et al. 2021, arXiv:2106.09685, section 7 and appendix H. The rules are the constants of
`table6`, `figures` (3, 4 and 8) and `table7`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from subspace.errors import printable
from subspace.findings.claims.figures import (
    check_further_directions,
    check_query_against_value,
    check_top_directions,
    check_two_seeds,
    check_within_w,
)
from subspace.findings.claims.table6 import check_small_rank
from subspace.findings.claims.table7 import (
    check_falling_factor,
    check_more_than_random,
    check_not_the_top,
)
from subspace.results import Claim, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from subspace.results import Amplification, Similarity, Table6

__all__ = ["Claim", "Verdict", "check_claims"]


def check_claims(
    table: Table6,
    ranks: Similarity,
    seeds: Similarity,
    placed: Sequence[Similarity],
    table7: Sequence[Amplification],
    moved: Similarity | None = None,
) -> tuple[Claim, ...]:
    """Hold what the paper says of rank, subspaces and amplification against one's own runs.

    Parameters
    ----------
    table
        A sweep over ranks: two claims for each data set and target set.
    ranks
        Two adapters of different rank, such as r = 8 and r = 64; with a control, it counts too.
    seeds
        Two adapters of one rank from two seeds.
    placed
        `subspace.measures.placement.measure` of adapters of ascending rank.
    table7
        Table 7 of adapters of ascending rank, each module at its full rank.
    moved
        As `ranks` on side delta-A, without initial A; None if that is not stored.

    Returns
    -------
    tuple of `Claim`
        In the paper's order, every field one printable line. That Wq has the higher intrinsic
        rank is left out where `seeds` has neither query nor value modules.

    Notes
    -----
    The paper measured one layer of GPT-3 and gives no chance level; its claims are tested as they
    were made, so that a verdict may be "agrees" where chance does the same: `here` says then what
    chance gives. "open" is no verdict: something is undefined, or too little was trained.

    Examples
    --------
    >>> from subspace.results import Similarity, Table6
    >>> nothing = Similarity(adapters=("r8", "r64"), side="A", modules={}, level=0.01)
    >>> for claim in check_claims(Table6((), ()), nothing, nothing, (), ())[-4:]:
    ...     print(f"{claim.where}: {claim.verdict}: {claim.here}")
    Figure 8: open: Undefined: no update was placed in its base.
    Table 7: open: Undefined: no adapter was held against its base.
    Table 7: open: Undefined: no adapter was held against its base.
    Table 7: open: Undefined: no adapter was held against its base.
    """
    claims = [
        *check_small_rank(table),
        check_top_directions(ranks),
        check_further_directions(ranks, moved),
        check_two_seeds(seeds),
        *check_query_against_value(seeds),
        check_within_w(placed),
        check_falling_factor(table7),
        check_more_than_random(table7),
        check_not_the_top(table7),
    ]
    return tuple(
        replace(claim, paper=_sentence(claim.paper), here=_sentence(claim.here)) for claim in claims
    )


def _sentence(text: str) -> str:
    return printable(f"{text.rstrip('.')}.")
