"""Table 7 of the paper: an update amplifies what W has but does not emphasise."""

from __future__ import annotations

import itertools
import math
from statistics import median
from typing import TYPE_CHECKING

from subspace.findings.amplification import OUTSIDE, TOO_MANY, Outside
from subspace.findings.claims.verdicts import at_rank, every
from subspace.findings.numbers import modules, number, tail
from subspace.findings.paper import TABLE7
from subspace.results import Claim

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from subspace.results import Amplification, ModuleAmplification

    Value = Callable[[ModuleAmplification], float]
    Rows = Sequence[ModuleAmplification]

# A median factor from here on is far above 1.
FAR_ABOVE = 5.0
# How many times what a random update meets, so that it is clearly more: the paper has 16 and 6.
CLEARLY = 2.0
# Share of what W's own top directions hold, below which the update's are not those.
NOT_THE_TOP = 0.5


def check_falling_factor(table7: Sequence[Amplification]) -> Claim:
    """Table 7: the factor is far above 1 at a small rank, and falls with it.

    In part where one of the two holds. Open without two ranks that ascend.

    >>> check_falling_factor(()).here
    'Undefined: no adapter was held against its base'
    """
    (low, small), (high, large) = TABLE7.items()
    paper = (
        f"The factor is far above 1 at small rank and falls with it: {small.factor:g} at "
        f"r = {low}, {large.factor:g} at r = {high}"
    )
    tables = _select_rows(table7, _factor)
    if not tables:
        return Claim("Table 7", paper, _count_undefined(table7, "factor"), "open")
    parts = [
        f"{_median(rows, _factor):.3g} at {_at(rows)} "
        f"({min(map(_factor, rows)):.3g} to {max(map(_factor, rows)):.3g} in {modules(len(rows))}; "
        f"a random update of that size {_median(rows, _chance_factor):.3g})"
        for rows in tables
    ]
    unscaled = "" if all(result.scaled for result in table7) else ", alpha / r left out,"
    here = f"the median factor{unscaled} is {', and '.join(parts)}{_name_missing(table7, tables)}"
    sizes = [max(row.rank for row in rows) for rows in tables]
    if len(tables) < 2 or any(b <= a for a, b in itertools.pairwise(sizes)):
        return Claim("Table 7", paper, f"{here}; no larger rank to compare with", "open")
    middles = [_median(rows, _factor) for rows in tables]
    falls = all(b < a for a, b in itertools.pairwise(middles))
    return Claim("Table 7", paper, here, every([falls, middles[0] >= FAR_ABOVE]))


def check_more_than_random(table7: Sequence[Amplification]) -> Claim:
    """Table 7: an update meets more of W than a random one does.

    An adapter has it where more modules than chance puts there lie above their range, and not more
    than chance puts there below (binomial, level `TOO_MANY` each), and the median over modules is
    `CLEARLY` more. In part where some of that holds. Agrees and does not are of all adapters.

    >>> check_more_than_random(()).verdict
    'open'
    """
    paper = "The update meets more of W than random directions do, in ‖UᵀWV‖: " + ", ".join(
        f"{column.in_delta:.2f} against {column.in_random:.2f} at r = {rank}"
        for rank, column in TABLE7.items()
    )
    tables: list[Rows] = []
    holds: list[bool] = []
    parts: list[str] = []
    for outside in map(Outside.of, table7):
        rows = outside.defined
        if not rows:
            continue
        tables.append(rows)
        # Half of what is outside lies on either side.
        more, less = (
            tail(count, len(rows), OUTSIDE / 2) <= TOO_MANY
            for count in (outside.more, outside.less)
        )
        holds += [more, more and not less, more and _median(rows, _quotient) >= CLEARLY]
        parts.append(
            f"{_median(rows, _quotient):.2f} at {_at(rows)} (outside the central "
            f"{100 * (1 - OUTSIDE):g} % of chance more in {outside.more}, less in {outside.less} "
            f"of {modules(len(rows))}, each {OUTSIDE / 2 * len(rows):.2g} by chance)"
        )
    if not tables:
        return Claim("Table 7", paper, _count_undefined(table7, "factor"), "open")
    here = (
        "the median of ‖UᵀWV‖ over a random update's is "
        f"{', and '.join(parts)}{_name_missing(table7, tables)}"
    )
    return Claim("Table 7", paper, here, every(holds))


def check_not_the_top(table7: Sequence[Amplification]) -> Claim:
    """Table 7: ... but not the directions that W itself emphasises.

    Agrees where the median of what the update meets is below `NOT_THE_TOP` of what W's own top
    directions hold, in every adapter; in part where in some.

    >>> check_not_the_top(()).verdict
    'open'
    """
    paper = "It is not W's own top directions that the update meets, in ‖UᵀWV‖: " + ", ".join(
        f"{column.in_delta:.2f} where they hold {column.in_w:.2f} at r = {rank}"
        for rank, column in TABLE7.items()
    )
    tables = _select_rows(table7, _share)
    if not tables:
        return Claim(
            "Table 7", paper, _count_undefined(table7, "share of W's own top directions"), "open"
        )
    parts = [
        f"{number(_median(rows, _share))} at {_at(rows)} "
        f"({number(min(map(_share, rows)))} to {number(max(map(_share, rows)))} in "
        f"{modules(len(rows))}; a random update {number(_median(rows, _random_share))})"
        for rows in tables
    ]
    here = (
        "of what W's own top directions hold, the update meets a median of "
        f"{', and '.join(parts)}{_name_missing(table7, tables)}"
    )
    return Claim(
        "Table 7", paper, here, every(_median(rows, _share) < NOT_THE_TOP for rows in tables)
    )


def _factor(row: ModuleAmplification) -> float:
    return row.factor


def _chance_factor(row: ModuleAmplification) -> float:
    return row.null_factor


def _quotient(row: ModuleAmplification) -> float:
    return row.null_ratio


def _share(row: ModuleAmplification) -> float:
    return row.w_in_delta / row.w_in_w if row.w_in_w > 0 else math.nan


def _random_share(row: ModuleAmplification) -> float:
    return row.w_in_random / row.w_in_w if row.w_in_w > 0 else math.nan


def _select_rows(table7: Sequence[Amplification], value: Value) -> list[list[ModuleAmplification]]:
    """Return the rows of each adapter where `value` is defined; no adapter without one."""
    rows = [[row for row in result if math.isfinite(value(row))] for result in table7]
    return [amplified for amplified in rows if amplified]


def _median(rows: Rows, value: Value) -> float:
    finite = [x for x in map(value, rows) if math.isfinite(x)]
    return median(finite) if finite else math.nan


def _at(rows: Rows) -> str:
    return at_rank(row.rank for row in rows)


def _name_missing(table7: Sequence[Amplification], tables: Sequence[Rows]) -> str:
    out = sum(map(len, table7)) - sum(map(len, tables))
    return f"; left out as undefined: {modules(out)}" if out else ""


def _count_undefined(table7: Sequence[Amplification], what: str) -> str:
    if not table7:
        return "Undefined: no adapter was held against its base"
    notes = "; ".join(sorted({row.note for result in table7 for row in result if row.note}))
    return f"Undefined: no module has a {what}" + (f" ({notes})" if notes else "")
