"""One sentence on what adapters amplify, written from the comparison with chance alone.

Table 7 of Hu et al. 2021, arXiv:2106.09685: a factor above 1 is what any small random update has,
so that the words rest on how many modules lie outside chance, never on the factor.
"""

from __future__ import annotations

import math
from statistics import median
from typing import TYPE_CHECKING

from subspace.errors import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from subspace.results import Amplification, ModuleAmplification

OUTSIDE = 0.05
"""Probability with which a random update lies outside its central 95 %."""

TOO_MANY = 0.05
"""Modules outside chance count as a finding when as many by chance are less likely than this."""


def amplified(results: Sequence[Amplification]) -> str:
    """Say in one sentence whether updates meet more or less of W than random ones would.

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

    >>> amplified([])
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
        close = (
            "a factor above 1 alone shows nothing, since chance has one too, "
            "but so many modules outside chance are not by chance"
        )
    elif verdicts == {"undefined"}:
        close = "nothing was added, so there is nothing to amplify"
    else:
        close = "large as the factors are, a random update of that size has the same"
    return printable(f"Of W's directions, {'; '.join(parts)}: {close}.")


def _one(result: Amplification) -> tuple[str, str]:
    name = f"{result.adapter!r}"
    defined = [row for row in result if row.finding is not None]
    if not defined:
        return f"{name} has no factor in any of its {_modules(len(result))}", "undefined"
    more = sum(bool(row.finding) and row.quotient > 1 for row in defined)
    less = sum(bool(row.finding) and row.quotient < 1 for row in defined)
    beyond = _tail(more + less, len(defined)) <= TOO_MANY
    counts = " and ".join(
        f"{word} than a random update in {count}"
        for count, word in ((more, "more"), (less, "less"))
        if count
    )
    words = (
        f"{name} meets {counts or 'neither more nor less than a random update in any'} of "
        f"{_modules(len(defined))}"
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
        f"{median(row.chance_factor for row in rows):.3g}"
    )


def _tail(count: int, of: int) -> float:
    """P(at least `count` of `of` modules lie outside) by chance alone, independent modules."""
    return sum(
        math.comb(of, k) * OUTSIDE**k * (1 - OUTSIDE) ** (of - k) for k in range(count, of + 1)
    )


def _modules(count: int) -> str:
    return f"{count} module" if count == 1 else f"{count} modules"
