"""Three sentences on what two comparisons show, chosen from the numbers by stated thresholds.

The comparisons are those of section 7.2 of Hu et al. 2021, arXiv:2106.09685: two ranks (Figure 3)
and two seeds of one rank (Figure 4). Every number stands beside what chance gives.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from subspace.errors import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from subspace.results import ModuleSimilarity, Similarity

# Agreement in fewer modules than this fraction of the defined ones is called 'only'.
MOST = 0.5
# Excess, (value - chance) / (1 - chance), up to which the remaining directions are at chance.
NEAR_CHANCE = 0.05
# Excess from which the remaining directions are said to agree too.
AGREE_TOO = 0.5
# Excess of phi between two initial A from which they are called one start.
SAME_START = 0.9
# Medians less than this many directions apart are called about as many.
AS_MANY = 1.0
# Below this a p-value is printed as '< 1e-12': the null's tail is not known any better.
SMALLEST_P = 1e-12


def findings(ranks: Similarity, seeds: Similarity) -> tuple[str, str, str]:
    """Say in three sentences what two ranks share, whether the rest agrees, and what seeds share.

    Parameters
    ----------
    ranks
        Two adapters of different rank, such as r = 8 and r = 64.
    seeds
        Two adapters of one rank from two seeds.

    Returns
    -------
    tuple of three str
        (1) How many leading directions the two ranks share beyond chance, and phi(1, 1). With a
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
    >>> nothing = Similarity(("r8", "r64"), "A", {}, 0.01)
    >>> findings(nothing, nothing)[0]
    "Undefined: 'r8' and 'r64' have no module in common."
    """
    return _shared(ranks), _rest(ranks), _seeds(seeds, ranks)


@dataclass(frozen=True)
class _Middle:
    """The median of the finite values, and how many there were not."""

    value: float
    missing: int

    @classmethod
    def of(cls, values: Iterable[float]) -> _Middle:
        every = [float(v) for v in values]
        finite = [v for v in every if math.isfinite(v)]
        return cls(median(finite) if finite else math.nan, len(every) - len(finite))

    def __str__(self) -> str:
        if math.isnan(self.value):
            return "undefined in every module"
        return _number(self.value) + (f" (undefined in {self.missing})" if self.missing else "")


def _shared(ranks: Similarity) -> str:
    defined = _defined(ranks)
    if not defined:
        return _undefined(ranks)
    a, b = _names(ranks)
    some = sum(count > 0 for count in _counts(defined))
    if not some and (near := _near(ranks, defined)):
        said = (
            f"In none of {_modules(len(defined))} do {a} and {b} share a whole leading direction "
            f"(level {ranks.level:g}), though the first ones lean together beyond chance in "
            f"{near}: {_first(defined)}"
        )
    elif not some:
        said = (
            f"Nothing beyond chance: in none of {_modules(len(defined))} do {a} and {b} share a "
            f"leading direction (level {ranks.level:g}), and {_first(defined)}"
        )
    else:
        only = "Only in" if some < MOST * len(defined) else "In"
        said = (
            f"{only} {some} of {_modules(len(defined))} {a} and {b} share leading directions "
            f"beyond chance (level {ranks.level:g}): {_spread(defined)}, and {_first(defined)}"
        )
    return said + _control(ranks) + _start(ranks) + _left_out(ranks, defined) + "."


def _rest(ranks: Similarity) -> str:
    defined = _defined(ranks)
    if not defined:
        return "Undefined: without directions to compare there is no rest that could agree."
    a, b = _names(ranks)
    shares: list[float] = []  # a module each: mean energy of a's further directions within b
    chances: list[float] = []
    for m in defined:
        further = [float(e) for e in m.overlap_a[m.agreeing : m.numerical_rank_a]]
        if further:
            shares.append(sum(further) / len(further))
            chances.append(m.numerical_rank_b / m.d)
    after = f"; {_whole(ranks, defined)}{_left_out(ranks, defined)}."
    if not shares:
        return f"No direction of {a} is left over: all of them agree with {b}{after}"
    excess = _Middle.of(_excess(s, c) for s, c in zip(shares, chances, strict=True)).value
    if math.isnan(excess):
        verdict = "cannot be judged, for they fill the space in which they are compared"
    elif excess < -NEAR_CHANCE:
        verdict = "overlap less than chance gives"
    elif excess <= NEAR_CHANCE:
        verdict = "are close to chance"
    elif excess < AGREE_TOO:
        verdict = "agree in part"
    else:
        verdict = "agree too"
    which = "Beyond those" if any(_counts(defined)) else "Taken one by one"
    full = _modules(len(defined) - len(shares))
    none = f" ({full} with none left not counted)" if len(shares) < len(defined) else ""
    return (
        f"{which} the directions of {a} {verdict}: the share of one that lies within {b} "
        f"has the median {_Middle.of(shares)}, chance gives {_Middle.of(chances)}{none}{after}"
    )


def _seeds(seeds: Similarity, ranks: Similarity) -> str:
    defined = _defined(seeds)
    if not defined:
        return _undefined(seeds)
    a, b = _names(seeds)
    sizes = {rank for m in defined for rank in (m.rank_a, m.rank_b)}
    at = f"at rank {sizes.pop()}" if len(sizes) == 1 else "of several ranks"
    some = sum(map(bool, _counts(defined)))
    said = f"Two seeds {at} ({a} and {b}) agree "
    if not some:
        near = _near(seeds, defined)
        lean = f", though the first ones lean together beyond chance in {near}" if near else ""
        whole = "in a whole direction" if near else "beyond chance"
        said += f"{whole} in none of {_modules(len(defined))}{lean}"
    else:
        only = "only in" if some < MOST * len(defined) else "in"
        said += f"beyond chance {only} {some} of {_modules(len(defined))}: {_spread(defined)}"
    said += f"{_relation(defined, _defined(ranks))}; {_first(defined)}"
    return said + _control(seeds) + _start(seeds) + _left_out(seeds, defined) + "."


def _relation(seeds: Sequence[ModuleSimilarity], ranks: Sequence[ModuleSimilarity]) -> str:
    """Compare the two counts on the modules that both comparisons define."""
    both = {m.module for m in seeds} & {m.module for m in ranks}
    if not both:
        return ", which no module allows to compare with the two ranks"
    mine = median(_counts(m for m in seeds if m.module in both))
    theirs = median(_counts(m for m in ranks if m.module in both))
    if not mine and not theirs:
        words = "as few as"
    elif abs(mine - theirs) < AS_MANY:
        words = "about as many as"
    else:
        words = "more than" if mine > theirs else "fewer than"
    on = "" if len(both) == len(seeds) == len(ranks) else f", on the {_modules(len(both))} of both"
    return f", {words} the two ranks (median {mine:g} against {theirs:g}{on})"


def _near(similarity: Similarity, defined: Sequence[ModuleSimilarity]) -> int:
    """Count the modules whose phi(1, 1) alone is beyond chance, by Bonferroni over modules.

    Two first directions may lean together far beyond chance, 1/d, and still lie too little within
    all of the other's, r/d, to count as agreeing.
    """
    return sum(bool(m.pvalue[0, 0] <= similarity.level / len(defined)) for m in defined)


def _first(defined: Sequence[ModuleSimilarity]) -> str:
    phi = _Middle.of(m.phi[0, 0] for m in defined)
    chance = _Middle.of(m.null_mean[0, 0] for m in defined)
    p = _Middle.of(m.pvalue[0, 0] for m in defined).value
    tail = "" if math.isnan(p) else f" (median p {_pvalue(p)})"
    return f"the median φ(1,1) is {phi}, where chance gives {chance}{tail}"


def _whole(ranks: Similarity, defined: Sequence[ModuleSimilarity]) -> str:
    """Say how all of the first adapter's directions agree with all of the second's."""
    ends = [(m, (m.numerical_rank_a - 1, m.numerical_rank_b - 1)) for m in defined]
    phi = _Middle.of(m.phi[end] for m, end in ends)
    chance = _Middle.of(m.null_mean[end] for m, end in ends)
    above = sum(bool(m.pvalue[end] <= ranks.level) for m, end in ends)
    return (
        f"all against all, the median φ is {phi}, where chance gives {chance} "
        f"(p ≤ {ranks.level:g} in {above} of {_modules(len(ends) - phi.missing)})"
    )


def _spread(defined: Sequence[ModuleSimilarity]) -> str:
    counts = _counts(defined)
    sizes = [min(m.numerical_rank_a, m.numerical_rank_b) for m in defined]
    of = f"{min(sizes)}" if min(sizes) == max(sizes) else f"{min(sizes)} to {max(sizes)}"
    return f"a median of {median(counts):g} of {of} (range {min(counts)} to {max(counts)})"


def _control(similarity: Similarity) -> str:
    """Say what the first adapter shares with one that had nothing to learn."""
    if similarity.control is None:
        return ""
    name = _names(similarity.control)[1]
    defined = _defined(similarity.control)
    if not defined:
        return f"; the control {name} is undefined"
    return f"; with the control {name} the count is {_spread(defined)}, and {_first(defined)}"


def _start(similarity: Similarity) -> str:
    """Say whether the two runs began with one A: the same seed and rank do, in peft."""
    if similarity.initial is None:
        return ""
    modules = _defined(similarity.initial)
    if not modules:
        return "; the initial A is undefined"
    same = sum(_closest(m) >= SAME_START for m in modules)
    phi = _Middle.of(m.phi[0, 0] for m in modules)
    if same:
        return (
            f"; caution: in {same} of {_modules(len(modules))} both began with the same A "
            f"(median initial φ(1,1) {phi}), so that agreement there need not be learned"
        )
    return f"; between the initial A the median φ(1,1) was {phi}"


def _closest(m: ModuleSimilarity) -> float:
    # An A made of another (cut, padded, rotated) agrees as a whole where (1, 1) need not.
    corners = [(0, 0), (m.numerical_rank_a - 1, m.numerical_rank_b - 1)]
    found = [_excess(m.phi[c], m.null_mean[c]) for c in corners]
    return max((x for x in found if math.isfinite(x)), default=0.0)


def _excess(value: float, chance: float) -> float:
    """0 at chance, 1 at identity; NaN where chance alone gives 1."""
    return (float(value) - float(chance)) / (1 - float(chance)) if chance < 1 else math.nan


def _defined(similarity: Similarity) -> list[ModuleSimilarity]:
    return [m for m in similarity.values() if m.agreeing is not None]


def _counts(modules: Iterable[ModuleSimilarity]) -> list[int]:
    return [m.agreeing for m in modules if m.agreeing is not None]


def _undefined(similarity: Similarity) -> str:
    a, b = _names(similarity)
    if not similarity:
        return f"Undefined: {a} and {b} have no module in common."
    notes = "; ".join(sorted({m.note for m in similarity.values() if m.note}))
    why = f" ({printable(notes)})" if notes else ""
    return (
        f"Undefined: none of {_modules(len(similarity))} has directions in both {a} and {b}{why}."
    )


def _left_out(similarity: Similarity, defined: Sequence[ModuleSimilarity]) -> str:
    out = len(similarity) - len(defined)
    return f"; left out as undefined: {out} of {_modules(len(similarity))}" if out else ""


def _modules(n: int) -> str:
    return f"{n} module{'' if n == 1 else 's'}"


def _names(similarity: Similarity) -> tuple[str, str]:
    a, b = (f"'{printable(name)}'" for name in similarity.adapters)
    return a, b


def _number(x: float) -> str:
    return f"{x:.2f}" if abs(x) >= 0.1 else f"{x:.2g}"


def _pvalue(p: float) -> str:
    return "< 1e-12" if p < SMALLEST_P else f"{p:.2g}"
