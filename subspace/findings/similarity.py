"""Three findings on what two comparisons show, chosen from the numbers by stated thresholds.

The comparisons are those of section 7.2 of Hu et al. 2021, arXiv:2106.09685: two ranks (Figure 3)
and two seeds of one rank (Figure 4). Every number stands beside the null.
"""

from __future__ import annotations

import math
from statistics import median
from typing import TYPE_CHECKING

from subspace.findings.comparison import (
    Rest,
    count_alike,
    count_leaning,
    describe_control,
    describe_first,
    describe_initial,
    describe_left_out,
    describe_others,
    describe_outside,
    describe_spread,
    describe_undefined,
    describe_whole,
    list_counts,
    quote_names,
    select_defined,
)
from subspace.findings.numbers import Middle, modules, of_modules, write_sentences

if TYPE_CHECKING:
    from collections.abc import Sequence

    from subspace.results import ModuleSimilarity, Similarity

# Agreement in fewer modules than this fraction of the defined ones is called 'only'.
MOST = 0.5
# Excess, (value - chance) / (1 - chance), up to which the remaining directions are at chance.
NEAR_CHANCE = 0.05
# Excess from which the remaining directions are said to agree too.
AGREE_TOO = 0.5
# Medians less than this many directions apart are called about as many.
AS_MANY = 1.0


def describe_similarity(ranks: Similarity, seeds: Similarity) -> tuple[str, str, str]:
    """Say in three findings what two ranks share, whether the rest agrees, and what seeds share.

    Parameters
    ----------
    ranks
        Two adapters of different rank, such as r = 8 and r = 64.
    seeds
        Two adapters of one rank from two seeds.

    Returns
    -------
    tuple of three str
        (1) How many leading directions the two ranks share above chance, and phi(1, 1). With a
        control or initial A in `ranks`, what those give. (2) Whether the directions after those
        agree, and phi of all against all. (3) How many directions the two seeds share, and
        whether more than the ranks do. One printable line each; modules left out are counted.

    Notes
    -----
    The words follow from the constants of this file. Chance is that of independent random
    subspaces; only a control with shuffled labels tells what is owed to the task.

    Examples
    --------
    >>> from subspace.results import Similarity
    >>> nothing = Similarity(adapters=("r8", "r64"), side="A", modules={}, level=0.01)
    >>> describe_similarity(nothing, nothing)[0]
    "Undefined: 'r8' and 'r64' have no module in common."
    """
    return _describe_shared(ranks), _describe_rest(ranks), _describe_seeds(seeds, ranks)


def _describe_shared(ranks: Similarity) -> str:
    compared = select_defined(ranks)
    if not compared:
        return describe_undefined(ranks)
    a, b = quote_names(ranks)
    some = sum(count > 0 for count in list_counts(compared))
    if not some and (other := describe_others(compared)):
        sentence = (
            f"In {of_modules(0, len(compared))} do {a} and {b} agree from the first direction on "
            f"(level {ranks.level:g}), but {other}"
        )
    elif not some and (alike := count_alike(ranks, compared)):
        sentence = (
            f"In {of_modules(0, len(compared))} is one direction alone shared by {a} and {b} "
            f"(level {ranks.level:g}), but as whole spaces they overlap above chance in {alike}"
        )
    elif not some and (lean := count_leaning(ranks, compared)):
        sentence = (
            f"In {of_modules(0, len(compared))} do {a} and {b} share a whole leading direction "
            f"(level {ranks.level:g}), though the first ones lean together above chance in {lean}"
        )
    elif not some:
        sentence = (
            f"Nothing above chance: in {of_modules(0, len(compared))} do {a} and {b} share a "
            f"leading direction (level {ranks.level:g})"
        )
    else:
        only = "Only in" if 0 < some < MOST * len(compared) else "In"
        sentence = (
            f"{only} {of_modules(some, len(compared))} {a} and {b} share leading directions "
            f"above chance (level {ranks.level:g}): {describe_spread(compared)}"
        )
    return write_sentences(
        sentence,
        describe_first(compared),
        describe_control(ranks),
        describe_initial(ranks),
        describe_left_out(ranks, compared),
    )


def _describe_rest(ranks: Similarity) -> str:
    compared = select_defined(ranks)
    if not compared:
        return "Undefined: without directions to compare there is no rest that could agree."
    a, b = quote_names(ranks)
    after = describe_whole(ranks, compared), describe_left_out(ranks, compared)
    rest = Rest.of(compared)
    if not rest.shares:
        return write_sentences(
            f"no direction of {a} is left over: all of them agree with {b}", *after
        )
    beyond = Middle.of(rest.excesses).value
    above, below = rest.outside(ranks.level)
    if math.isnan(beyond):
        verdict = "cannot be judged, for they fill the space in which they are compared"
    elif not max(above, below):
        verdict = "are not told apart from chance"
    elif beyond < -NEAR_CHANCE and below:
        verdict = "overlap less than chance gives"
    elif beyond <= NEAR_CHANCE or not above:
        verdict = "are close to chance"
    elif beyond < AGREE_TOO:
        verdict = "agree in part"
    else:
        verdict = "agree too"
    which = "Beyond those" if any(list_counts(compared)) else "Taken one by one"
    sentence = (
        f"{which} the directions of {a} {verdict}: the share of one that lies within {b} {rest}; "
        f"{describe_outside(above, below, len(rest.shares))}"
    )
    return write_sentences(sentence, *after)


def _describe_seeds(seeds: Similarity, ranks: Similarity) -> str:
    compared = select_defined(seeds)
    if not compared:
        return describe_undefined(seeds)
    a, b = quote_names(seeds)
    sizes = {rank for m in compared for rank in (m.rank_a, m.rank_b)}
    at = f"at rank {sizes.pop()}" if len(sizes) == 1 else "of several ranks"
    some = sum(map(bool, list_counts(compared)))
    sentence = f"Two seeds {at} ({a} and {b}) agree "
    if not some and (other := describe_others(compared)):
        sentence += f"from the first direction on in {of_modules(0, len(compared))}, but {other}"
    elif not some and (alike := count_alike(seeds, compared)):
        sentence += (
            f"in one direction alone in {of_modules(0, len(compared))}, but as whole spaces "
            f"above chance in {alike}"
        )
    elif not some:
        close = count_leaning(seeds, compared)
        lean = f", though the first ones lean together above chance in {close}" if close else ""
        how = "in a whole direction" if close else "above chance"
        sentence += f"{how} in {of_modules(0, len(compared))}{lean}"
    else:
        only = "only in" if some < MOST * len(compared) else "in"
        sentence += (
            f"above chance {only} {of_modules(some, len(compared))}: {describe_spread(compared)}"
        )
    sentence += _name_relation(compared, select_defined(ranks))
    return write_sentences(
        sentence,
        describe_first(compared),
        describe_control(seeds),
        describe_initial(seeds),
        describe_left_out(seeds, compared),
    )


def _name_relation(seeds: Sequence[ModuleSimilarity], ranks: Sequence[ModuleSimilarity]) -> str:
    """Compare the two counts on the modules that both comparisons define."""
    both = {m.module for m in seeds} & {m.module for m in ranks}
    if not both:
        return ", which no module allows to compare with the two ranks"
    mine = median(list_counts(m for m in seeds if m.module in both))
    theirs = median(list_counts(m for m in ranks if m.module in both))
    if not mine and not theirs:
        words = "as few as"
    elif abs(mine - theirs) < AS_MANY:
        words = "about as many as"
    else:
        words = "more than" if mine > theirs else "fewer than"
    on = "" if len(both) == len(seeds) == len(ranks) else f", on the {modules(len(both))} of both"
    return f", {words} the two ranks (median {mine:g} against {theirs:g}{on})"
