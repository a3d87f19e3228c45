"""Which adapters are alike: every pair as a cell, alike ones side by side, the tree beside."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.colors import Normalize
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from subspace.plots.parts.cells import STRIPES, UNDEFINED, UNDEFINED_HATCH
from subspace.plots.parts.colour_end import end_words, round_end
from subspace.plots.parts.colours import PHI_MAP
from subspace.plots.parts.module_grid import (
    NUMBER,
    NumberGrid,
    inches,
    number_cells,
    paint,
    upright,
)
from subspace.plots.parts.names import distinct, literal
from subspace.plots.parts.page import (
    HEAD_SIZE,
    LABEL_SIZE,
    TICK_SIZE,
    add_legend_below,
    characters,
    check_width,
    new_figure,
    style_axes,
    wrap,
)
from subspace.plots.parts.tree import tree

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

    from subspace.results import SimilarityMatrix

_PAGE = 7.0  # inches: the narrowest that `width` is by default
_CELL = 0.55  # inches: the largest one
_NUMBERED = 0.29  # a cell that holds two digits in brackets, and a line of text
_LINE = 0.112  # a cell beside which a name has a line of its own
_TREE = 0.9
_NAME = 1.5  # inches: a longer name is shortened in its middle
# Black around white: one of the two stands out from any colour of the map.
_DOT: dict[str, Any] = {
    "marker": "o",
    "color": "white",
    "markeredgecolor": "black",
    "markeredgewidth": 0.4,
    "linewidth": 0,
}


def matrix_figure(
    result: SimilarityMatrix, *, clustered: bool = True, width: float | None = None
) -> Figure:
    """Draw the matrix with its numbers, and the tree that orders it at its right.

    Parameters
    ----------
    result
        Of `subspace.similarities`.
    clustered
        Alike ones side by side, with the tree; otherwise as the adapters were given, without it.
    width
        In inches; by default 7, or as many as the numbers (up to about 40 adapters) and the names
        need.

    Returns
    -------
    Figure
        Of matplotlib, outside pyplot: the Axes of the matrix, of the tree, and of the colour bar.

    Raises
    ------
    ArgumentError
        A width that no page has.

    Examples
    --------
    >>> from subspace.results import PairSimilarity, SimilarityMatrix
    >>> pair = PairSimilarity(adapters=("a", "b"), value=0.25, null_mean=0.1, largest=1.0,
    ...                       modules=2, undefined=0, significant=1, same_initial=None)
    >>> matrix = SimilarityMatrix(adapters=("a", "b"), by="phi", side="A", k=4, level=0.01,
    ...                           pairs=(pair,), order=(1, 0), linkage=((0, 1, 0.75, 2),))
    >>> figure = matrix_figure(matrix)
    >>> figure.axes[0].images[0].get_array().tolist()
    [[None, 0.25], [0.25, None]]
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['0.25', '0.25']
    """
    n = len(result.adapters)
    check_width(_PAGE if width is None else width)
    page = width or _PAGE
    room = min(max(0.3, _longest(result)), _NAME, 0.22 * page)
    beside = min(_TREE, 0.15 * page)
    around = room + 0.4 + (beside if clustered else 0.0)
    if width is None:
        width = max(_PAGE, min(n * _NUMBERED, 12.0) + around, n * _LINE + around)
    cell = min(_CELL, max(0.01, (width - around)) / n)
    names = _names(result, characters(room, TICK_SIZE), clustered=clustered)
    heads = inches(names) if upright(names, cell) else 0.1
    used = min(width, max(3.0, n * cell + around))
    title = wrap(_write_title(result), characters(width - 0.2, HEAD_SIZE))
    fits = characters(width - 0.5, TICK_SIZE)
    handles = _make_handles(result, cell, fits)
    labels = [str(handle.get_label()) for handle in handles]
    across = 2 if sum(map(len, labels)) + 12 < fits else 1
    below = sum(label.count("\n") + 1 for label in labels) if across == 1 else 1
    end = _norm(result).vmax or 1.0
    short = result.by == "phi" and end < 1
    note = end_words(end, above_chance=False) if short else ""
    lines = title.count("\n") + 5 + below + short
    figure = new_figure(width, n * cell + heads + 0.14 * lines + 0.5)
    figure.suptitle(title, fontsize=HEAD_SIZE, usetex=False)
    engine = figure.get_layout_engine()
    if isinstance(engine, ConstrainedLayoutEngine):
        engine.set(rect=(0.5 - used / width / 2, 0, used / width, 1))
    columns = 2 if clustered else 1
    spec = figure.add_gridspec(
        2, columns, height_ratios=(n * cell, 0.1), width_ratios=(n * cell, beside)[:columns]
    )
    ax = matrix_map(
        result, ax=figure.add_subplot(spec[0, 0]), clustered=clustered, cell=cell, names=names
    )
    if clustered:
        tree(result, ax=figure.add_subplot(spec[0, 1], sharey=ax))
    _bar(result, ax.images[0], figure.add_subplot(spec[1, 0]))
    add_legend_below(figure, handles, note=note, columns=across)
    return figure


def matrix_map(
    result: SimilarityMatrix,
    *,
    ax: Axes,
    clustered: bool = True,
    cell: float | None = None,
    names: Sequence[str] | None = None,
) -> Axes:
    """Draw one cell a pair, on both sides of a blank diagonal; brackets or a dot: within chance.

    Bright is alike in every matrix: the colours of a distance are turned round.

    Parameters
    ----------
    result
        Of `subspace.similarities`.
    ax
        What is drawn into, and returned.
    clustered
        Alike ones side by side, or as given.
    cell
        Inches of one cell's side, which settle whether numbers fit. Default: as `ax` is now.
    names
        Of the adapters as they are ordered and are to be written.

    Returns
    -------
    Axes
        `ax`. Its first image holds the values, masked on the diagonal and where undefined, which is
        striped; its texts are the numbers, in brackets where no module is above chance; where none
        fit its line is made of dots there.
    """
    grid = _grid(result, clustered=clustered)
    if names is None:
        names = _names(result, characters(_NAME, TICK_SIZE), clustered=clustered)
    grid = replace(grid, rows=tuple(names), columns=tuple(names))
    if cell is None:
        cell = ax.get_window_extent().width / ax.figure.dpi / len(names)
    reverse = "_r" * (result.by == "distance")
    image = paint(grid, ax, cmap=f"{PHI_MAP}{reverse}", norm=_norm(result), cell=(cell, cell))
    ax.set_xlabel("")
    within = np.isfinite(grid.values) & ~grid.finding
    if digits := _count_digits(result, cell):
        number_cells(grid, image, _list_findings(result, grid, digits))
    elif within.any():
        y, x = np.nonzero(within)
        ax.plot(x + 1, y + 1, markersize=min(2.5, 20 * cell), **_DOT)
    return ax


def _order(result: SimilarityMatrix, *, clustered: bool) -> Sequence[int]:
    return result.order if clustered else range(len(result.adapters))


def _names(result: SimilarityMatrix, most: int, *, clustered: bool) -> list[str]:
    return distinct([result.adapters[n] for n in _order(result, clustered=clustered)], most)


def _longest(result: SimilarityMatrix) -> float:
    return inches([literal(name) for name in result.adapters])


def _grid(result: SimilarityMatrix, *, clustered: bool) -> NumberGrid:
    values = result.square(clustered=clustered)
    beyond = result.square("significant", clustered=clustered)
    undefined = np.isnan(values) & ~np.eye(len(values), dtype=bool)
    blank = ("",) * len(values)
    return NumberGrid(
        values=values,
        finding=~np.isnan(values) & (beyond > 0),
        undefined=undefined,
        rows=blank,
        columns=blank,
        layers="x",
    )


def _norm(result: SimilarityMatrix) -> Normalize:
    largest = max((p.value for p in result.pairs if not math.isnan(p.value)), default=0.0)
    if result.by == "phi":
        return Normalize(0, round_end(largest))
    return Normalize(0, 1 if result.by == "distance" else max(1.0, largest))


def _count_digits(result: SimilarityMatrix, cell: float) -> int:
    """Return how many digits, 3 or 2, of every number fit; 0: none."""
    grid = _grid(result, clustered=True)
    fits = (n for n in (3, 2) if inches(_list_findings(result, grid, n)) <= 0.95 * cell)
    return next(fits, 0) if cell >= NUMBER[1] else 0


def _list_findings(result: SimilarityMatrix, grid: NumberGrid, digits: int) -> list[str]:
    """Return the numbers row by row.

    Two digits leave the nought before the point out: .12; 1.0 is as long.
    """
    findings = grid.finding[np.isfinite(grid.values)]
    words = []
    for value, beyond in zip(grid.numbers, findings, strict=True):
        word = f"{value:g}" if result.by == "agreeing" else f"{value:.2f}"
        if digits == 2 and result.by != "agreeing":
            word = word[1:] if word.startswith("0") else word[:3]
        words.append(word if beyond else f"({word})")
    return words


def _write_title(result: SimilarityMatrix) -> str:
    what = {
        "phi": f"φ({result.k}, {result.k})",
        "distance": f"projection distance of the leading {result.k} directions",
    }.get(result.by, "agreeing directions")
    shared = [pair.modules for pair in result.pairs if pair.modules]
    low, high = min(shared, default=0), max(shared, default=0)
    counted = f"{low} module{'s' * (low != 1)}" if low == high else f"{low} to {high} modules"
    title = f"{what} of {len(result.adapters)} adapters, side {result.side}, median over {counted}"
    chances = sorted(
        {f"{p.null_mean:.2g}" for p in result.pairs if not math.isnan(p.null_mean)}, key=float
    )
    if chances:
        span = chances[0] if len(chances) == 1 else f"{chances[0]} to {chances[-1]}"
        title += f"; chance gives {span}"
    return title


def _bar(result: SimilarityMatrix, image: AxesImage, ax: Axes) -> None:
    bar = ax.figure.colorbar(image, cax=ax, orientation="horizontal")
    bar.ax.xaxis.set_major_locator(
        MaxNLocator(4, steps=[1, 2, 2.5, 5, 10], integer=result.by == "agreeing")
    )
    bar.minorticks_off()
    style_axes(ax)
    bar.outline.set_linewidth(0.6)
    end = image.get_clim()[1]
    upto = f", up to {end:g}" if end < 1 else ""
    words = {"phi": f"φ({result.k}, {result.k}){upto}", "distance": "distance"}
    bar.set_label(words.get(result.by, "agreeing directions"), fontsize=LABEL_SIZE, usetex=False)


def _make_handles(result: SimilarityMatrix, cell: float, fits: int) -> list[Artist]:
    level = f"(level {result.level:g}, Benjamini-Hochberg)"
    numbers, style = bool(_count_digits(result, cell)), dict[str, Any](linewidth=0)
    handles: list[Artist] = []
    pairs = [pair for pair in result.pairs if pair.finding is not None]
    if pairs:
        within = any(not pair.finding for pair in pairs)
        label = f"every pair is significant in some module {level}"
        if within:
            label = f"{'in brackets: ' * numbers}no module significant {level}"
            style = style if numbers else _DOT | {"markersize": 2.5}
        handles.append(Line2D([], [], label=wrap(label, fits), **style))
    if len(pairs) < len(result.pairs):
        handles.append(
            Patch(
                facecolor=UNDEFINED,
                edgecolor=UNDEFINED_HATCH,
                hatch=STRIPES,
                linewidth=0,
                label=wrap("undefined: no shared module, or no such directions", fits),
            )
        )
    return handles
