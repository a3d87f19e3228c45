"""One finding on what adapters amplify, written from the comparison with chance alone.

Table 7 of Hu et al. 2021, arXiv:2106.09685: a factor above 1 is what any small random update has,
so that the words rest on how many modules lie outside chance, never on the factor.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from subspace.errors import printable
from subspace.findings.numbers import modules, tail, write_sentences

if TYPE_CHECKING:
    from collections.abc import Sequence

    from subspace.results import Amplification, ModuleAmplification

OUTSIDE = 0.05
"""Probability with which a random update lies outside its central 95 %."""

TOO_MANY = 0.05
"""Modules outside chance count as a finding when as many by chance are less likely than this."""


def describe_amplification(results: Sequence[Amplification]) -> str:
    """Say in one finding whether updates meet more or less of W than random ones would.

    Parameters
    ----------
    results
        Table 7 of one or more adapters of one base, each module at one rank.

    Returns
    -------
    One printable line. Modules without a factor are counted.

    Notes
    -----
    The modules outside the central 95 % of chance are counted, and held against the binomial
    number that chance alone puts there.

    >>> describe_amplification([])
    'Undefined: no adapter was held against its base.'
    """
    if not results:
        return "Undefined: no adapter was held against its base."
    parts, verdicts = [], set()
    for result in results:
        words, verdict = _one(result)
        parts.append(words)
        verdicts.add(verdict)
    if verdicts & {"more", "less", "both"}:
        many = sum(map(len, results)) > 1
        close = "a factor above 1 alone shows nothing, since chance has one too, but " + (
            "so many modules outside chance are not by chance"
            if many
            else "this module lies outside chance"
        )
    elif verdicts == {"undefined"}:
        close = "nothing was added, so there is nothing to amplify"
    else:
        close = "a random update of that norm has factors like these"
    return printable(write_sentences(f"of W's directions, {parts[0]}", *parts[1:], close))


def describe_crossing(rows: Sequence[ModuleAmplification]) -> str:
    """Say from which rank on one module's update meets less of W than a random one does.

    Parameters
    ----------
    rows
        One module at several ranks, ascending.

    Returns
    -------
    One sentence; empty where it never meets significantly less.

    >>> describe_crossing([])
    ''
    """
    less = [bool(row.finding) and row.null_ratio < 1 for row in rows]
    if not any(less):
        return ""
    first = len(less) - less[::-1].index(False) if False in less else 0
    if first == len(less):
        return ""
    start = rows[first]
    return printable(
        f"The update of {start.module} meets less of W than a random one from k = {start.rank} on."
    )


@dataclass(frozen=True)
class Outside:
    """The rows of one adapter that have a factor, and those outside their chance range."""

    defined: list[ModuleAmplification]
    more: int  # meet more of W than the central 95 % of random updates do
    less: int

    @classmethod
    def of(cls, result: Amplification) -> Outside:
        """Count them."""
        rows = [row for row in result if row.finding is not None]
        outside = [row.null_ratio for row in rows if row.finding]
        return cls(rows, sum(q > 1 for q in outside), sum(q < 1 for q in outside))


def _one(result: Amplification) -> tuple[str, str]:
    name = f"{result.adapter!r}"
    outside = Outside.of(result)
    defined, more, less = outside.defined, outside.more, outside.less
    if not defined:
        return f"{name} has no factor in any of its {modules(len(result))}", "undefined"
    beyond = tail(more + less, len(defined), OUTSIDE) <= TOO_MANY
    counts = " and ".join(
        f"{word} than a random update in {count}"
        for count, word in ((more, "more"), (less, "less"))
        if count
    )
    words = (
        f"{name} meets {counts or 'neither more nor less than a random update in any'} of "
        f"{modules(len(defined))}"
    )
    words += f" ({OUTSIDE * len(defined):.2g} expected by chance), {_numbers(defined)}"
    left = len(result) - len(defined)
    if left:
        words += f", {left} without a factor left out"
    if not beyond:
        return words, "chance"
    return words, "both" if more and less else "more" if more else "less"


def _numbers(rows: Sequence[ModuleAmplification]) -> str:
    return (
        f"with the median factor {median(row.factor for row in rows):.3g} where chance gives "
        f"{median(row.null_factor for row in rows):.3g}"
    )
