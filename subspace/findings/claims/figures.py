"""Figures 3, 4 and 8 of the paper: which directions are shared, and whether W has them already."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from subspace.findings.claims.verdicts import at_rank
from subspace.findings.comparison import (
    Rest,
    count_same_initial,
    describe_control,
    describe_first,
    describe_initial,
    describe_left_out,
    describe_spread,
    describe_undefined,
    describe_whole,
    find_end,
    list_counts,
    quote_names,
    select_defined,
)
from subspace.findings.numbers import Middle, excess, modules
from subspace.findings.paper import FIGURE3, FIGURE8, FIGURE8_TOP, query_or_value
from subspace.findings.similarity import AGREE_TOO, AS_MANY, MOST, NEAR_CHANCE
from subspace.results import Claim, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from subspace.results import ModuleSimilarity, Similarity

# Excess over chance of phi between W's top directions and all of an update's, up to which these are
# hardly in it: the paper's 0.2, where a tenth of W's directions gives 0.1 by chance.
HARDLY = excess(FIGURE8, FIGURE8_TOP)
# Pairs of a query and a value of which the query has more, over those of which it has fewer.
OFTEN = 2.0
# So much more excess at the largest rank than at the smallest, and it takes in more of W's own.
TAKES_IN = NEAR_CHANCE


def check_top_directions(ranks: Similarity) -> Claim:
    """Figure 3: the first directions of two ranks agree, phi(1, 1) > 0.5.

    Agrees where that holds in half of the modules and a control has less; in part where it does in
    some, and phi(1, 1) is in half of them above chance (Bonferroni over modules) and above the
    control's median.

    >>> from subspace.results import Similarity
    >>> nothing = Similarity(adapters=("r8", "r64"), side="A", modules={}, level=0.01)
    >>> check_top_directions(nothing).verdict
    'open'
    """
    paper = (
        f"The first directions of r = 8 and r = 64 agree, φ(1,1) above {FIGURE3:g}, for Wq and Wv"
    )
    compared = [m for m in select_defined(ranks) if math.isfinite(m.phi[0, 0])]
    if not compared:
        return Claim("Figure 3", paper, _nothing(ranks, "φ(1,1)"), "open")
    base = _find_control_phi(ranks)
    far = sum(bool(m.phi[0, 0] > FIGURE3) for m in compared)
    level = ranks.level / len(compared)
    beyond = sum(bool(m.pvalue[0, 0] <= level and not m.phi[0, 0] <= base) for m in compared)
    enough = MOST * len(compared)
    middle = median(float(m.phi[0, 0]) for m in compared)
    verdict: Verdict = (
        "agrees"
        if far >= enough and not middle <= base
        else "in part"
        if beyond >= enough and far
        else "does not"
    )
    a, b = quote_names(ranks)
    than = "chance" if math.isnan(base) else "chance and the control"
    here = (
        f"φ(1,1) of {a} and {b} is above {FIGURE3:g} in {far} of "
        f"{modules(len(compared))}, and above "
        f"{than} in {beyond} (level {ranks.level:g} over them); "
        f"{describe_first(compared)}{describe_control(ranks)}"
    )
    return _describe_closed("Figure 3", paper, here, verdict, ranks, compared)


def check_further_directions(ranks: Similarity, moved: Similarity | None = None) -> Claim:
    """Figure 3: the directions after the first that agree are not shared.

    By the median excess over chance of their overlap: agrees up to `NEAR_CHANCE`, in part below
    `AGREE_TOO`; in part too where those that agree are half of them in half of the modules, for
    then most are not noise. A module where all of several directions agree counts as shared.
    `moved` is the same pair on side delta-A: where that shares half of its directions in half of
    the modules, it is in part at most.

    >>> from subspace.results import Similarity
    >>> nothing = Similarity(adapters=("r8", "r64"), side="A", modules={}, level=0.01)
    >>> check_further_directions(nothing).verdict
    'open'
    """
    paper = "The further directions of r = 8 are not shared with r = 64: they are mostly noise"
    compared = select_defined(ranks)
    rest = Rest.of(compared)
    full = sum(m.agreeing == m.numerical_rank_a > 1 for m in compared)
    middle = Middle.of([*rest.excesses, *[1.0] * full]).value
    a, b = quote_names(ranks)
    if not compared:
        return Claim("Figure 3", paper, describe_undefined(ranks), "open")
    if math.isnan(middle):
        here = f"Undefined: no further direction of {a} can be held against {b}"
        return _describe_closed("Figure 3", paper, here, "open", ranks, compared)
    many = sum((m.agreeing or 0) >= MOST * m.numerical_rank_a > 1 for m in compared)
    few = many < MOST * len(compared)
    verdict: Verdict = (
        "agrees"
        if middle <= NEAR_CHANCE and few
        else "in part"
        if middle < AGREE_TOO
        else "does not"
    )
    share = (
        f"the share within {b} of a direction of {a} beyond the leading ones that agree, "
        f"{describe_spread(compared)}, {rest}"
        if rest.shares
        else f"all directions of {a} agree with {b} in {modules(full)}"
    )
    here = f"{share}; {describe_whole(ranks, compared)}"
    learned = select_defined(moved) if moved is not None else []
    if learned:
        whole_too = sum((m.agreeing or 0) >= MOST * m.numerical_rank_a for m in learned)
        here += f"; of what A moved by (side delta-A) they share {describe_spread(learned)}"
        if verdict == "agrees" and whole_too >= MOST * len(learned):
            # Side A holds the initial A that each run keeps: what is noise there may be that alone.
            verdict = "in part"
            here += ", so that what they do not share is initial A rather than noise of training"
    return _describe_closed("Figure 3", paper, here, verdict, ranks, compared)


def check_two_seeds(seeds: Similarity) -> Claim:
    """Figure 4: two seeds share directions, random matrices none.

    Agrees where at least half of the modules share one above chance, in part where some do.

    >>> from subspace.results import Similarity
    >>> nothing = Similarity(adapters=("r64", "r64-seed1"), side="A", modules={}, level=0.01)
    >>> check_two_seeds(nothing).verdict
    'open'
    """
    paper = "Two seeds of r = 64 share leading directions, two random matrices none"
    compared = select_defined(seeds)
    if not compared:
        return Claim("Figure 4", paper, describe_undefined(seeds), "open")
    some = sum(map(bool, list_counts(compared)))
    verdict: Verdict = (
        "agrees" if some >= MOST * len(compared) else "in part" if some else "does not"
    )
    a, b = quote_names(seeds)
    here = (
        f"{a} and {b} share leading directions in {some} of {modules(len(compared))}, "
        f"{describe_spread(compared)}, where chance gives 0 (level {seeds.level:g}); "
        f"{describe_first(compared)}"
        f"{describe_control(seeds)}"
    )
    return _describe_closed("Figure 4", paper, here, verdict, seeds, compared)


def check_query_against_value(seeds: Similarity) -> list[Claim]:
    """Figure 4: two seeds share more directions of Wq than of Wv; empty where there is neither.

    Agrees where the median count of the query modules is higher by `AS_MANY` and a query has more
    than a value in `OFTEN` times as many pairs as it has fewer, in part where the median is higher
    alone. Open where both medians are 0.

    >>> from subspace.results import Similarity
    >>> nothing = Similarity(adapters=("r64", "r64-seed1"), side="A", modules={}, level=0.01)
    >>> check_query_against_value(nothing)
    []
    """
    if not any(map(query_or_value, seeds)):
        return []
    paper = "Wq has the higher intrinsic rank: two seeds share more directions of it than of Wv"
    compared = [m for m in select_defined(seeds) if query_or_value(m.module)]
    q, v = ([m for m in compared if query_or_value(m.module) == part] for part in "qv")
    if not q or not v:
        both = f"{modules(len(q))} of queries and {len(v)} of values are defined"
        return [Claim("Figure 4", paper, f"Undefined: {both}, so that none compare", "open")]
    more = median(list_counts(q)) - median(list_counts(v))
    pairs = [(one, other) for one in list_counts(q) for other in list_counts(v)]
    above, below = sum(a > b for a, b in pairs), sum(a < b for a, b in pairs)
    here = (
        f"shared leading directions of queries: {describe_spread(q)}; of values: "
        f"{describe_spread(v)}; a query has "
        f"more than a value in {above}, fewer in {below} of {len(pairs)} pairs of modules (chance "
        f"gives 0 to each, level {seeds.level:g})"
    )
    often = above >= OFTEN * below
    verdict: Verdict = (
        "agrees" if more >= AS_MANY and often else "in part" if more > 0 else "does not"
    )
    if not median(list_counts(q)) and not median(list_counts(v)):
        here, verdict = f"both medians are 0, too few to rank them: {here}", "open"
    return [_describe_closed("Figure 4", paper, here, verdict, seeds, compared)]


@dataclass(frozen=True)
class _Placed:
    """W's top directions against all of one update's."""

    rank: int
    excess: float
    words: str

    @classmethod
    def of(cls, placed: Similarity) -> _Placed | None:
        compared = [
            m
            for m in placed.values()
            if m.numerical_rank_a and m.numerical_rank_b and math.isfinite(m.phi[find_end(m)])
        ]
        if not compared:
            return None
        phi = [float(m.phi[find_end(m)]) for m in compared]
        chance = [float(m.null_mean[find_end(m)]) for m in compared]
        level = placed.level / len(compared)
        beyond = sum(bool(m.pvalue[find_end(m)] <= level) for m in compared)
        ranks = [m.rank_b for m in compared]
        words = (
            f"{median(phi):.3f} at {at_rank(ranks)} where chance gives {median(chance):.3f} "
            f"(above it in {beyond} of {modules(len(compared))}"
            f"{describe_left_out(placed, compared)})"
        )
        over = Middle.of(excess(p, c) for p, c in zip(phi, chance, strict=True)).value
        return cls(max(ranks), over, words)


def check_within_w(placed: Sequence[Similarity]) -> Claim:
    """Figure 8: W's top directions are hardly in an update of small rank, more in a larger one's.

    Of the medians over modules of the excess over chance of phi(all of W's compared directions,
    all of the update's): the smallest rank has at most `HARDLY`, and the largest `TAKES_IN` more.
    In part where one of the two holds.

    >>> check_within_w(()).here
    'Undefined: no update was placed in its base'
    """
    paper = (
        f"W's top directions are hardly in an update of small rank (φ at most about {FIGURE8:g} "
        f"at r = 4, where chance gives {FIGURE8_TOP:g}); one of larger rank takes in more of them"
    )
    if not placed:
        return Claim("Figure 8", paper, "Undefined: no update was placed in its base", "open")
    placements = [one for one in map(_Placed.of, placed) if one is not None]
    if not placements:
        return Claim("Figure 8", paper, describe_undefined(placed[0]), "open")
    here = "φ between W's top directions and all of an update's has the median " + ", and ".join(
        one.words for one in placements
    )
    small, large = placements[0], placements[-1]
    if not math.isfinite(small.excess + large.excess):
        why = "they fill the space in which they are compared"
        return Claim("Figure 8", paper, f"{here}; {why}", "open")
    if small.rank >= large.rank:
        return Claim("Figure 8", paper, f"{here}; no larger rank to compare with", "open")
    holds = small.excess <= HARDLY, large.excess - small.excess >= TAKES_IN
    verdict: Verdict = "agrees" if all(holds) else "in part" if any(holds) else "does not"
    return Claim("Figure 8", paper, here, verdict)


def _nothing(ranks: Similarity, what: str) -> str:
    return (
        describe_undefined(ranks)
        if not select_defined(ranks)
        else f"Undefined: {what} is defined in no module"
    )


def _find_control_phi(similarity: Similarity) -> float:
    """Return the control's median phi(1, 1); NaN without one."""
    if similarity.control is None:
        return math.nan
    return Middle.of(m.phi[0, 0] for m in select_defined(similarity.control)).value


def _describe_closed(
    where: str,
    paper: str,
    here: str,
    verdict: Verdict,
    similarity: Similarity,
    compared: Sequence[ModuleSimilarity],
) -> Claim:
    """Add what was left out; two runs that began with one A leave open what they learned."""
    here += describe_left_out(similarity, compared)
    same, of = count_same_initial(similarity)
    if same and same >= MOST * of:
        return Claim(where, paper, here + describe_initial(similarity), "open")
    return Claim(where, paper, here + (describe_initial(similarity) if same else ""), verdict)
