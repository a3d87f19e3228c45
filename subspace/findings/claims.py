"""The claims of the paper's section 7, each beside our numbers and a verdict by fixed rules.

Hu et al. 2021, arXiv:2106.09685, section 7 and appendix H. The rules are the constants of
`claims_table6` (Table 6), `claims_subspaces` (Figures 3, 4 and 8) and `claims_amplified` (Table 7).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from subspace.errors import printable
from subspace.findings import claims_amplified, claims_subspaces, claims_table6
from subspace.results import Claim, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from subspace.results import Amplification, Similarity, Table6

__all__ = ["Claim", "Verdict", "claims"]


def claims(
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
        As `ranks` on side delta-A, without the start of A; None if that is not known.

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
    >>> nothing = Similarity(("r8", "r64"), "A", {}, 0.01)
    >>> for claim in claims(Table6((), ()), nothing, nothing, (), ())[-4:]:
    ...     print(f"{claim.where}: {claim.verdict}: {claim.here}")
    Figure 8: open: Undefined: no update was placed in its base.
    Table 7: open: Undefined: no adapter was held against its base.
    Table 7: open: Undefined: no adapter was held against its base.
    Table 7: open: Undefined: no adapter was held against its base.
    """
    found = [
        *claims_table6.of_rank(table),
        claims_subspaces.top_directions(ranks),
        claims_subspaces.further_directions(ranks, moved),
        claims_subspaces.two_seeds(seeds),
        *claims_subspaces.query_against_value(seeds),
        claims_subspaces.within_w(placed),
        claims_amplified.falling_factor(table7),
        claims_amplified.more_than_random(table7),
        claims_amplified.not_the_top(table7),
    ]
    return tuple(
        replace(claim, paper=_sentence(claim.paper), here=_sentence(claim.here)) for claim in found
    )


def _sentence(text: str) -> str:
    return printable(f"{text.rstrip('.')}.")
