"""What is said of one comparison of two adapters, in the sentences and the claims alike.

A part of a sentence each, from the modules that are defined; every number beside its chance level.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from subspace.errors import printable
from subspace.findings.numbers import Middle, excess, modules, of_modules, pvalue

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from subspace.results import ModuleSimilarity, Similarity

# Excess of phi between two initial A from which they are called the same.
SAME_INITIAL = 0.9
# Median phi of all directions from which two updates are said to span one space.
SAME_SPACE = 0.999


def select_defined(similarity: Similarity) -> list[ModuleSimilarity]:
    """Return the modules where agreeing directions could be counted."""
    return [m for m in similarity.values() if m.agreeing is not None]


def list_counts(compared: Iterable[ModuleSimilarity]) -> list[int]:
    """Return how many leading directions agree, of each."""
    return [m.agreeing for m in compared if m.agreeing is not None]


def quote_names(similarity: Similarity) -> tuple[str, str]:
    """Return both adapters' names, quoted and printable."""
    a, b = (f"'{printable(name)}'" for name in similarity.adapters)
    return a, b


def count_leaning(similarity: Similarity, compared: Sequence[ModuleSimilarity]) -> int:
    """Count the modules whose phi(1, 1) alone is above chance, by Bonferroni over modules.

    Two first directions may lean together far above chance, 1/d, and still lie too little within
    all of the other's, r/d, to count as agreeing.
    """
    return sum(bool(m.pvalue[0, 0] <= similarity.level / len(compared)) for m in compared)


def describe_others(compared: Sequence[ModuleSimilarity]) -> str:
    """Say how many directions are shared in another order than that of their strength."""
    several = [m for m in compared if m.shared]
    if not several:
        return ""
    sizes = [min(m.numerical_rank_a, m.numerical_rank_b) for m in several]
    many = median(m.shared or 0 for m in several)
    return (
        f"in {len(several)} they share others above chance: a median of {many:g} "
        f"of {_span(sizes)}, in any order"
    )


def describe_outside(above: int, below: int, of: int) -> str:
    """Say in how many modules something is significantly above chance, or below it."""
    words = f"above chance in {of_modules(above, of)}"
    return f"{words}, below it in {below}" if below else words


def count_alike(similarity: Similarity, compared: Sequence[ModuleSimilarity]) -> int:
    """Count the modules in which phi of all directions is above chance, by Bonferroni over them."""
    bar = similarity.level / max(len(compared), 1)
    return sum(bool(m.pvalue[find_end(m)] <= bar) for m in compared)


def _span(sizes: Sequence[int]) -> str:
    return f"{min(sizes)}" if min(sizes) == max(sizes) else f"{min(sizes)} to {max(sizes)}"


def describe_first(compared: Sequence[ModuleSimilarity]) -> str:
    """Say what the median phi(1, 1) is."""
    phi = Middle.of(m.phi[0, 0] for m in compared)
    chance = Middle.of(m.null_mean[0, 0] for m in compared)
    p = Middle.of(m.pvalue[0, 0] for m in compared).value
    tail = "" if math.isnan(p) else f" (median p {pvalue(p)})"
    return f"the median φ(1,1) is {phi}, where chance gives {chance}{tail}"


def find_end(m: ModuleSimilarity) -> tuple[int, int]:
    """Return the cell of all real directions against all."""
    return m.numerical_rank_a - 1, m.numerical_rank_b - 1


def describe_whole(similarity: Similarity, compared: Sequence[ModuleSimilarity]) -> str:
    """Say how all of the first adapter's directions agree with all of the second's."""
    phi = Middle.of(m.phi[find_end(m)] for m in compared)
    chance = Middle.of(m.null_mean[find_end(m)] for m in compared)
    above = sum(bool(m.pvalue[find_end(m)] <= similarity.level) for m in compared)
    sign = (
        "; φ does not see a sign, and ΔW and -ΔW have the same directions (`subspace interference` "
        "tells them apart)"
        if phi.value > SAME_SPACE
        else ""
    )
    return (
        f"all against all, the median φ is {phi}, where chance gives {chance} "
        f"(p ≤ {similarity.level:g} in {of_modules(above, len(compared) - phi.missing)}){sign}"
    )


def describe_spread(compared: Sequence[ModuleSimilarity]) -> str:
    """Say how many leading directions agree: median and range."""
    agreeing = list_counts(compared)
    sizes = [min(m.numerical_rank_a, m.numerical_rank_b) for m in compared]
    of = _span(sizes)
    if min(agreeing) == max(agreeing):
        return f"{agreeing[0]} of {of}" + (" in each" if len(agreeing) > 1 else "")
    return f"a median of {median(agreeing):g} of {of} (range {min(agreeing)} to {max(agreeing)})"


@dataclass(frozen=True)
class Rest:
    """The directions of the first adapter after those that agree, a value a module."""

    shares: list[float]  # mean energy of the further directions within the second adapter
    chances: list[float]
    p: list[float]  # two-sided, between random subspaces
    full: int  # modules with none left over

    @classmethod
    def of(cls, compared: Sequence[ModuleSimilarity]) -> Rest:
        """Take what is left over in each module."""
        left = [m for m in compared if math.isfinite(m.rest)]
        return cls(
            [m.rest for m in left],
            [m.numerical_rank_b / m.d for m in left],
            [m.rest_p for m in left],
            len(compared) - len(left),
        )

    @property
    def excesses(self) -> list[float]:
        """Excess over chance of each module."""
        return [excess(s, c) for s, c in zip(self.shares, self.chances, strict=True)]

    def outside(self, level: float) -> tuple[int, int]:
        """Count the modules significantly above chance and below it, by Bonferroni over them."""
        bar = level / max(len(self.p), 1)
        far = [s - c for s, c, p in zip(self.shares, self.chances, self.p, strict=True) if p <= bar]
        return sum(x > 0 for x in far), sum(x < 0 for x in far)

    def __str__(self) -> str:
        none = f" ({modules(self.full)} with none left not counted)" if self.full else ""
        middles = Middle.of(self.shares), Middle.of(self.chances)
        return f"has the median {middles[0]}, chance gives {middles[1]}{none}"


def describe_control(similarity: Similarity) -> str:
    """Say what the first adapter shares with one that had nothing to learn."""
    if similarity.control is None:
        return ""
    name = quote_names(similarity.control)[1]
    compared = select_defined(similarity.control)
    if not compared:
        return f"; the control {name} is undefined"
    spread, first = describe_spread(compared), describe_first(compared)
    return f"; with the control {name} the count is {spread}, and {first}"


def count_same_initial(similarity: Similarity) -> tuple[int, int]:
    """Count the modules where both had one initial A, and all whose initial A are stored."""
    compared = [] if similarity.initial is None else select_defined(similarity.initial)
    return sum(_find_closest(m) >= SAME_INITIAL for m in compared), len(compared)


def describe_initial(similarity: Similarity) -> str:
    """Say whether the two runs had one initial A: the same seed and rank do, in peft."""
    if similarity.initial is None:
        return ""
    same, of = count_same_initial(similarity)
    if not of:
        return "; the initial A is undefined"
    phi = Middle.of(m.phi[0, 0] for m in select_defined(similarity.initial))
    if same:
        return (
            f"; caution: in {same} of {modules(of)} both had the same initial A "
            f"(median initial φ(1,1) {phi}), so that agreement there need not be learned"
        )
    return f"; between the initial A the median φ(1,1) was {phi}"


def _find_closest(m: ModuleSimilarity) -> float:
    # An A made of another (cut, padded, rotated) agrees as a whole where (1, 1) need not.
    excesses = [excess(m.phi[c], m.null_mean[c]) for c in ((0, 0), find_end(m))]
    return max((x for x in excesses if math.isfinite(x)), default=0.0)


def describe_undefined(similarity: Similarity) -> str:
    """Say why nothing can be said."""
    a, b = quote_names(similarity)
    if not similarity:
        return f"Undefined: {a} and {b} have no module in common."
    notes = "; ".join(sorted({m.note for m in similarity.values() if m.note}))
    why = f" ({printable(notes)})" if notes else ""
    return f"Undefined: none of {modules(len(similarity))} has directions in both {a} and {b}{why}."


def describe_left_out(similarity: Similarity, compared: Sequence[ModuleSimilarity]) -> str:
    """Count the modules of which nothing is said."""
    out = len(similarity) - len(compared)
    return f"; left out as undefined: {out} of {modules(len(similarity))}" if out else ""
