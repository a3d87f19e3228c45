"""Table 7 of a whole model as a grid: where each module's number stands, and with what words."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from subspace.errors import ArgumentError
from subspace.plots.gains import by_module
from subspace.plots.heatmap import TICK_SIZE
from subspace.plots.names import kind_labels, layer_words, literal, place
from subspace.plots.panels import EM, characters

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from subspace.results import Amplification, ModuleAmplification

Value = Literal["quotient", "factor"]

TITLES: dict[Value, str] = {
    "quotient": "how much of W the update meets, × chance",
    "factor": "amplification factor |ΔW| / |Uᵀ W V|",
}
NUMBER = (0.34, 0.11)  # inches, (width, height): the smallest cell that holds a number
_MOST = 1000  # rows or columns: a pixel each in print


@dataclass(frozen=True)
class Grid:
    """What is drawn: (rows, columns) arrays, and the words along both."""

    values: NDArray[np.float64]  # NaN: undefined, or no such module
    finding: NDArray[np.bool_]
    undefined: NDArray[np.bool_]
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    layers: Literal["x", "y"]  # which way they run

    def __getitem__(self, part: slice) -> Grid:
        """Return some of the rows."""
        arrays = (self.values[part], self.finding[part], self.undefined[part])
        return Grid(*arrays, self.rows[part], self.columns, self.layers)

    @property
    def numbers(self) -> list[float]:
        """Every number, row by row."""
        return [float(x) for x in self.values[np.isfinite(self.values)]]

    def digits(self, cell: tuple[float, float]) -> int:
        """Return how many digits of every number fit into cells of these inches; 0: none."""
        if cell[1] < NUMBER[1]:
            return 0
        numbers = self.numbers
        widths = ((n, inches([written(x, n) for x in numbers])) for n in (3, 2))
        return next((n for n, wide in widths if wide <= 0.95 * cell[0]), 0)


def amplification_grid(result: Amplification, value: Value, width: float = 7.0) -> Grid:
    """Place every module's largest rank by its layer and kind, both in the model's order.

    Layers run downwards; rightwards where they fit into `width` inches with a number in each
    cell, or where there are more kinds than layers: kinds are words, and easier to read so.

    Raises
    ------
    UnknownModuleError
        `result` has no row.
    ArgumentError
        Another value, or more than 1000 layers or kinds.
    """
    check_value(value)
    drawn = {module: rows[-1] for module, rows in by_module(result).items()}
    spots = {module: place(module) for module in drawn}
    layers = list(dict.fromkeys((s.prefix, s.layer) for s in spots.values()))
    kinds = list(dict.fromkeys(s.kind for s in spots.values()))
    if max(len(layers), len(kinds)) > _MOST:
        raise ArgumentError(
            f"{len(layers)} layers and {len(kinds)} kinds of module are more than the {_MOST} of "
            "each that one map holds; choose some with modules= of subspace.amplification"
        )
    values = np.full((len(layers), len(kinds)), np.nan)
    finding, undefined = np.zeros((2, *values.shape), dtype=bool)
    at_layer, at_kind = ({name: n for n, name in enumerate(names)} for names in (layers, kinds))
    for module, row in drawn.items():
        cell = at_layer[spots[module].prefix, spots[module].layer], at_kind[spots[module].kind]
        values[cell] = _number(row, value)
        undefined[cell] = math.isnan(values[cell])
        finding[cell] = bool(row.finding) and not undefined[cell]
    words, most = kind_labels(kinds), characters(0.4 * width, TICK_SIZE)
    depths = tuple(layer_words(layers, "").values())
    heads = tuple(literal(words[kind], most) for kind in kinds)
    grid = Grid(values, finding, undefined, depths, heads, "y")
    if len(kinds) > len(layers) or len(layers) * NUMBER[0] <= width - 0.25 - inches(heads):
        turned = {name: getattr(grid, name).T for name in ("values", "finding", "undefined")}
        return replace(grid, **turned, rows=heads, columns=depths, layers="x")
    return grid


def check_value(value: str) -> None:
    """Refuse what is no number of a row.

    Raises
    ------
    ArgumentError
        It is neither "quotient" nor "factor".
    """
    if value not in get_args(Value):
        raise ArgumentError(f"value = {value!r}: this figure shows 'quotient' or 'factor'")


def ranks_drawn(result: Amplification) -> str:
    """Say which ranks the grid shows: of each module its largest.

    >>> from subspace.results import Amplification, ModuleAmplification
    >>> rows = [ModuleAmplification("q", k, (4, 4), *[1.0] * 11, True, 0.5, ()) for k in (1, 4)]
    >>> ranks_drawn(Amplification("r4", "toy", True, 0, tuple(rows))).split()
    ['rank', '4,', 'each', "module's", 'largest']
    """
    modules = by_module(result)
    ranks = sorted({rows[-1].rank for rows in modules.values()})
    some = f"rank\u00a0{ranks[0]}" if len(ranks) == 1 else f"ranks {ranks[0]} to {ranks[-1]}"
    return some if len(result.rows) == len(modules) else f"{some}, each module's largest"


def inches(words: Sequence[str]) -> float:
    """Return about how wide the longest one is as a tick's label."""
    return max(map(len, words), default=0) * EM * TICK_SIZE / 72


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
    number = row.factor if value == "factor" or not row.factor > 0 else row.quotient
    return number if 0 < number < math.inf else math.nan
