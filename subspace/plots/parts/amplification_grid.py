"""Table 7 of a whole model as a grid: where each module's number stands, and with what words."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, get_args

from subspace.errors import ArgumentError
from subspace.plots.parts.amplification_rows import rows_by_module
from subspace.plots.parts.module_grid import place_modules

if TYPE_CHECKING:
    from subspace.plots.parts.module_grid import NumberGrid
    from subspace.results import Amplification, ModuleAmplification

Value = Literal["null_ratio", "factor"]

TITLES: dict[Value, str] = {
    "null_ratio": "null ratio: how much of W the update meets, over a random one",
    "factor": "amplification factor |ΔW| / |Uᵀ W V|",
}


def amplification_grid(result: Amplification, value: Value, width: float = 7.0) -> NumberGrid:
    """Place every module's largest rank by its layer and kind, as `place_modules` does.

    Raises
    ------
    UnknownModuleError
        `result` has no row.
    ArgumentError
        Another value, or more than 1000 layers or kinds.
    """
    check_value(value)
    drawn = {module: rows[-1] for module, rows in rows_by_module(result).items()}
    cells = {module: (_number(row, value), bool(row.finding)) for module, row in drawn.items()}
    return place_modules(cells, width, "subspace.amplification")


def check_value(value: str) -> None:
    """Refuse what is no number of a row.

    Raises
    ------
    ArgumentError
        It is neither "null_ratio" nor "factor".
    """
    if value not in get_args(Value):
        raise ArgumentError(f"value = {value!r}: this figure shows 'null_ratio' or 'factor'")


def ranks_drawn(result: Amplification) -> str:
    """Say which ranks the grid shows: of each module its largest.

    >>> from dataclasses import fields
    >>> from subspace.results import Amplification, ModuleAmplification
    >>> ones = dict.fromkeys((f.name for f in fields(ModuleAmplification)), 1.0)
    >>> ones |= {"module": "q", "shape": (4, 4), "directions": (), "note": ""}
    >>> rows = [ModuleAmplification(**ones | {"rank": k}) for k in (1, 4)]
    >>> table7 = Amplification(
    ...     adapter="r4", base="toy", scaled=True, seed=0, rows=tuple(rows))
    >>> ranks_drawn(table7).split()
    ['rank', '4,', 'each', "module's", 'largest']
    """
    modules = rows_by_module(result)
    ranks = sorted({rows[-1].rank for rows in modules.values()})
    some = f"rank\u00a0{ranks[0]}" if len(ranks) == 1 else f"ranks {ranks[0]} to {ranks[-1]}"
    return some if len(result.rows) == len(modules) else f"{some}, each module's largest"


def written(number: float, digits: int = 3) -> str:
    """Return a positive number short enough for a cell.

    >>> [written(x) for x in (0.041, 1.276, 15.34, 9.996, 3583.5, 12345.0, 2e-9)]
    ['0.04', '1.28', '15.3', '10.0', '3584', '1e4', '2e-9']
    """
    if not 10.0 ** (1 - digits) <= number < 9999.5:
        mantissa, power = f"{number:.0e}".split("e")
        return f"{mantissa}e{int(power)}"
    size = math.floor(math.log10(float(f"{number:.{digits - 1}e}")))
    return f"{number:.{min(digits - 1, max(0, digits - 1 - size))}f}"


def _number(row: ModuleAmplification, value: Value) -> float:
    """Return what is drawn, NaN where it has no place on a log scale."""
    number = row.factor if value == "factor" or not row.factor > 0 else row.null_ratio
    return number if 0 < number < math.inf else math.nan
