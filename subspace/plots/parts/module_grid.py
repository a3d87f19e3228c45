"""One number a module as a grid: layers one way, kinds of module the other."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from subspace.errors import ArgumentError
from subspace.modules.place import place
from subspace.plots.parts.cells import hatch
from subspace.plots.parts.names import kind_labels, layer_words, literal
from subspace.plots.parts.page import EM, LABEL_SIZE, TICK_SIZE, characters, style_axes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.image import AxesImage
    from numpy.typing import NDArray

NUMBER = (0.34, 0.11)  # inches, (width, height): the smallest cell that holds a number
_MOST = 1000  # rows or columns: a pixel each in print


@dataclass(frozen=True, kw_only=True)
class NumberGrid:
    """What is drawn: (rows, columns) arrays, and the words along both."""

    values: NDArray[np.float64]  # NaN: undefined, or no such module
    finding: NDArray[np.bool_]  # above chance
    undefined: NDArray[np.bool_]
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    layers: Literal["x", "y"]  # which way they run

    def __getitem__(self, part: slice) -> NumberGrid:
        """Return some of the rows."""
        return replace(
            self,
            values=self.values[part],
            finding=self.finding[part],
            undefined=self.undefined[part],
            rows=self.rows[part],
        )

    @property
    def numbers(self) -> list[float]:
        """Every number, row by row."""
        return [float(x) for x in self.values[np.isfinite(self.values)]]

    def fitting(self, cell: tuple[float, float], write: Callable[[float, int], str]) -> int:
        """Return how many digits, 3 or 2, of every number fit into cells of these inches; 0: none.

        `write` makes a number of so many digits text.
        """
        if cell[1] < NUMBER[1]:
            return 0
        numbers = self.numbers
        widths = ((n, inches([write(x, n) for x in numbers])) for n in (3, 2))
        return next((n for n, wide in widths if wide <= 0.95 * cell[0]), 0)


def place_modules(
    cells: Mapping[str, tuple[float, bool]], width: float, function: str
) -> NumberGrid:
    """Place every module's number by its layer and kind, both in the order given.

    Layers run downwards; rightwards where they fit into `width` inches with a number in each
    cell, or where there are more kinds than layers: kinds are words, and easier to read so.

    Parameters
    ----------
    cells
        Of each module path a number, NaN where it is undefined, and whether it is above chance.
    width
        In inches.
    function
        Whose ``modules=`` chooses fewer, for the error.

    Raises
    ------
    ArgumentError
        More than 1000 layers or kinds.

    >>> grid = place_modules({"h.0.q": (0.5, True), "h.1.q": (float("nan"), False)}, 7.0, "f")
    >>> grid.rows, grid.columns, grid.layers, grid.undefined.tolist()
    (('q',), ('0', '1'), 'x', [[False, True]])
    """
    spots = {module: place(module) for module in cells}
    layers = list(dict.fromkeys((s.prefix, s.layer) for s in spots.values()))
    kinds = list(dict.fromkeys(s.kind for s in spots.values()))
    if max(len(layers), len(kinds)) > _MOST:
        raise ArgumentError(
            f"{len(layers)} layers and {len(kinds)} kinds of module are more than the {_MOST} of "
            f"each that one map holds; choose some with modules= of {function}"
        )
    values = np.full((len(layers), len(kinds)), np.nan)
    finding, undefined = np.zeros((2, *values.shape), dtype=bool)
    at_layer, at_kind = ({name: n for n, name in enumerate(names)} for names in (layers, kinds))
    for module, (number, word) in cells.items():
        cell = at_layer[spots[module].prefix, spots[module].layer], at_kind[spots[module].kind]
        values[cell] = number
        undefined[cell] = math.isnan(number)
        finding[cell] = word and not undefined[cell]
    words, most = kind_labels(kinds), characters(0.4 * width, TICK_SIZE)
    depths = tuple(layer_words(layers, "").values())
    heads = tuple(literal(words[kind], most) for kind in kinds)
    grid = NumberGrid(
        values=values,
        finding=finding,
        undefined=undefined,
        rows=depths,
        columns=heads,
        layers="y",
    )
    if len(kinds) > len(layers) or len(layers) * NUMBER[0] <= width - 0.25 - inches(heads):
        turned = {name: getattr(grid, name).T for name in ("values", "finding", "undefined")}
        return replace(grid, **turned, rows=heads, columns=depths, layers="x")
    return grid


def inches(words: Sequence[str]) -> float:
    """Return about how wide the longest one is as a tick's label."""
    return max(map(len, words), default=0) * EM * TICK_SIZE / 72


def paint(
    grid: NumberGrid, ax: Axes, *, cmap: str, norm: Normalize, cell: tuple[float, float]
) -> AxesImage:
    """Draw the cells, the stripes of undefined ones, and the words along both sides.

    Parameters
    ----------
    cell : (width, height)
        Inches of one cell, which settle how many labels fit.
    """
    y, x = grid.values.shape
    image = ax.imshow(
        np.ma.masked_invalid(grid.values),
        cmap=cmap,
        norm=norm,
        origin="upper",
        extent=(0.5, x + 0.5, y + 0.5, 0.5),
        aspect="auto",
        interpolation="nearest",
    )
    hatch(ax, grid.undefined)
    stand = upright(grid.columns, cell[0])
    ax.set_xticks(*_ticks(grid.columns, cell[0] if stand else math.inf), usetex=False)
    ax.set_yticks(*_ticks(grid.rows, cell[1]), usetex=False)
    ax.xaxis.tick_top()
    ax.xaxis.set_label_position("top")
    if any(grid.columns if grid.layers == "x" else grid.rows):
        set_label = ax.set_xlabel if grid.layers == "x" else ax.set_ylabel
        set_label("layer", fontsize=LABEL_SIZE, labelpad=6 if stand else 3, usetex=False)
    style_axes(ax)
    ax.tick_params(length=0, pad=2)
    ax.tick_params(axis="x", labelrotation=90 if stand else 0)
    ax.spines[:].set_visible(False)  # cells of no module are blank: the map need not be a box
    return image


def number_cells(
    grid: NumberGrid, image: AxesImage, words: Sequence[str], *, bold: bool = False
) -> None:
    """Write a word into every cell that has a number, row by row, in black or white.

    Parameters
    ----------
    bold
        Whether those above chance are.
    """
    colours = image.to_rgba(np.array(grid.numbers))
    places = np.argwhere(np.isfinite(grid.values))
    for (row, column), word, colour in zip(places, words, colours, strict=True):
        image.axes.text(
            column + 1,
            row + 1,
            word,
            ha="center",
            va="center",
            fontsize=TICK_SIZE,
            fontweight="bold" if bold and grid.finding[row, column] else "normal",
            color=readable(colour.tolist()),
            usetex=False,
        )


def readable(colour: Sequence[float]) -> str:
    """Return black or white, whichever has the higher contrast (WCAG 2) on a colour.

    >>> readable([1.0, 1.0, 1.0]), readable([0.0, 0.0, 0.5])
    ('black', 'white')
    """
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
    light = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "black" if light > 0.179 else "white"


def upright(columns: Sequence[str], wide: float) -> bool:
    """Whether the words along the top must stand, in cells of this width in inches."""
    return inches(columns) > wide - 0.06


def _ticks(words: Sequence[str], size: float) -> tuple[list[int], list[str]]:
    """Return places and labels: as many as lines of text fit, the first among them."""
    fits = TICK_SIZE * 1.2 / 72 / size
    step = next(n * 10**power for power in range(9) for n in (1, 2, 5) if n * 10**power >= fits)
    return list(range(1, len(words) + 1, step)), list(words[::step])
