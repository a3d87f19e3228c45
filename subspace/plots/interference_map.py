"""Where two adapters meet: the cosine of their updates over layers and kinds of module."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.colors import Normalize
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from subspace.errors import UnknownModuleError
from subspace.plots.parts.cells import STRIPES, UNDEFINED, UNDEFINED_HATCH
from subspace.plots.parts.colours import DIFFERENCE_MAP
from subspace.plots.parts.module_grid import inches, number_cells, paint, place_modules, upright
from subspace.plots.parts.names import distinct, literal
from subspace.plots.parts.page import (
    HEAD_SIZE,
    NARROW,
    TICK_SIZE,
    TITLE_SIZE,
    add_legend_below,
    characters,
    check_width,
    new_figure,
    style_axes,
    wrap,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage
    from numpy.typing import NDArray

    from subspace.plots.parts.module_grid import NumberGrid
    from subspace.results import Interference

    Pair = tuple[str, str]

MOST = 6  # pairs of one figure: all of four adapters
_CELL = (1.0, 0.3)  # inches, (width, height): the largest one
_TALLEST = 7.4  # inches of cells on a page
_BAR = 3.0  # inches: the narrowest scale, so that the words at its ends fit
_LEAST = 0.05  # the colours span at least -0.05 ... 0.05: noise must not look like a finding
_DOT = "#4d4d4d"


def interference_figure(result: Interference, *, width: float = 7.0) -> Figure:
    """Draw the cosine of every module and pair: its layer one way, its kind the other.

    Parameters
    ----------
    result
        Two or more adapters. Of more than six pairs those six with the largest cosine over the
        whole model, of either sign, are drawn, and the title says so.
    width
        In inches.

    Returns
    -------
    Figure
        Of matplotlib, outside pyplot; an Axes a pair, the last Axes is the colour bar.

    Raises
    ------
    UnknownModuleError
        `result` has no module.
    ArgumentError
        A width that no page has, or more than 1000 layers or kinds.

    Examples
    --------
    >>> from subspace.results import Interference, ModuleInterference, PairInterference
    >>> from subspace.results import SpaceOverlap, WholePair
    >>> space = SpaceOverlap(0.5, 0.0, 0.2, 1e-3)
    >>> both = dict(adapters=("a", "b"))
    >>> numbers = dict(cosine=-0.5, error=0.0, null_std=0.01, p=1e-9)
    >>> pair = PairInterference(**both, **numbers, finding=True, rows=space, columns=space)
    >>> merged = dict(norms=(1, 1), energy=0.5, energy_error=0.0, energy_std=0.01, kept=(0.5, 0.5))
    >>> module = ModuleInterference(module="h.0.q", shape=(9, 9), **both, ranks=(2, 2),
    ...                             weights=(1, 1), pairs=(pair,), **merged)
    >>> whole = WholePair(**both, **numbers, modules=1, same=0, opposite=1)
    >>> merge = Interference(**both, weights=(1.0, 1.0), level=0.01, modules={"h.0.q": module},
    ...                      pairs=(whole,), **merged)
    >>> figure = interference_figure(merge)
    >>> figure.axes[0].images[0].get_array().tolist(), figure.axes[-1].get_title(loc="left")
    ([[-0.5]], 'against each other')
    """
    check_width(width)
    if not result:
        raise UnknownModuleError("there is no module to draw: no two adapters share one")
    drawn = sorted(result.pairs, key=lambda pair: -abs(pair.cosine))[:MOST]
    pairs = [pair.adapters for pair in result.pairs if pair in drawn and pair.modules]
    pairs = pairs or [result.pairs[0].adapters]
    grids = [_grid(result, pair, width) for pair in pairs]
    norm = _norm(grids)
    across = 1 if grids[0].layers == "x" else _measure_width(grids, width)
    down = math.ceil(len(grids) / across)
    rows = max(len(grid.rows) for grid in grids)
    columns = max(len(grid.columns) for grid in grids)
    margin = max(0.2, *(inches(grid.rows) for grid in grids)) + 0.15
    cell = (
        min(_CELL[0], ((width - 0.1) / across - margin) / columns),
        min(_CELL[1], _TALLEST / rows / down),
    )
    heads = max(inches(g.columns) if upright(g.columns, cell[0]) else 0.1 for g in grids)
    title, handles = _write_title(result, len(pairs), width), _make_handles(result, grids, cell)
    end = norm.vmax or 1.0
    note = f"The colours end at ±{end:.2g}, not at ±1." if end < 0.995 else ""
    lines = title.count("\n") + 4 + (len(handles) if width < NARROW else 1) + bool(note)
    names = 0.0 if len(pairs) == 1 else 0.2
    figure = new_figure(width, down * (rows * cell[1] + heads + names + 0.2) + 0.14 * lines + 0.3)
    figure.suptitle(title, fontsize=HEAD_SIZE, usetex=False)
    used = min(width, max(_BAR, across * (columns * cell[0] + margin)))
    engine = figure.get_layout_engine()
    if isinstance(engine, ConstrainedLayoutEngine):
        engine.set(rect=(0.5 - used / width / 2, 0, used / width, 1))
    spec = figure.add_gridspec(down + 1, across, height_ratios=(*[rows * cell[1]] * down, 0.1))
    for n, (pair, grid) in enumerate(zip(pairs, grids, strict=True)):
        ax = _draw(grid, figure.add_subplot(spec[n // across, n % across]), norm, cell)
        if len(pairs) > 1:
            name = _named(result, pair, cell[0] * columns + margin)
            ax.set_title(name, fontsize=TITLE_SIZE, usetex=False)
    _bar(figure.axes[0].images[0], figure.add_subplot(spec[-1, :]), used - margin)
    add_legend_below(figure, handles, note=note, columns=1 if width < NARROW else 2)
    return figure


def interference_map(
    result: Interference,
    *,
    ax: Axes,
    pair: Pair | None = None,
    cell: tuple[float, float] | None = None,
) -> Axes:
    """Draw one cell a module: its colour is the cosine, brackets or a dot say within chance.

    The cosine is ``<w1 dW1, w2 dW2> / (|w1 dW1| |w2 dW2|)``: red where a merge reinforces, blue
    where it cancels, white at 0, and the colours end at the largest of them, of either sign.

    Parameters
    ----------
    result
        Two or more adapters.
    ax
        What is drawn into, and returned. Layers run downwards, or rightwards where they are few.
    pair
        Which two adapters; the first two by default.
    cell : (width, height), optional
        Inches of one cell, which settle whether numbers and labels fit. Default: as `ax` is now.

    Returns
    -------
    Axes
        `ax`. Its first image holds the cosines, masked where there is none; its texts are the
        numbers, in brackets where within chance; where no numbers fit its line is made of the
        dots. Undefined cells are striped, those of no module blank.

    Raises
    ------
    UnknownModuleError
        `result` has no module, or none in which the two meet.
    ArgumentError
        More than 1000 layers or kinds.
    """
    if not result:
        raise UnknownModuleError("there is no module to draw: no two adapters share one")
    box, dpi = ax.get_window_extent(), ax.figure.dpi
    grid = _grid(result, pair or result.pairs[0].adapters, box.width / dpi)
    if cell is None:
        cell = (box.width / dpi / len(grid.columns), box.height / dpi / len(grid.rows))
    return _draw(grid, ax, _norm([grid]), cell)


def _grid(result: Interference, pair: Pair, width: float) -> NumberGrid:
    meetings = {name: m.pair(pair) for name, m in result.items()}
    cells = {name: (p.cosine, bool(p.finding)) for name, p in meetings.items() if p is not None}
    if not cells:
        raise UnknownModuleError(f"{pair[0]!r} and {pair[1]!r} have no module in common to draw")
    return place_modules(cells, width, "subspace.interference")


def _norm(grids: Sequence[NumberGrid]) -> Normalize:
    most = max((abs(x) for grid in grids for x in grid.numbers), default=1.0)
    return Normalize(-max(most, _LEAST), max(most, _LEAST))


def _draw(grid: NumberGrid, ax: Axes, norm: Normalize, cell: tuple[float, float]) -> Axes:
    image = paint(grid, ax, cmap=DIFFERENCE_MAP, norm=norm, cell=cell)
    within = _within(grid)
    if digits := grid.fitting(cell, _widest):
        numbers = zip(grid.numbers, within[np.isfinite(grid.values)], strict=True)
        number_cells(grid, image, [_format_value(x, digits, inside=bool(w)) for x, w in numbers])
    elif within.any():
        y, x = np.nonzero(within)
        ax.plot(x + 1, y + 1, ".", color=_DOT, markersize=min(4.0, 30 * min(cell)), linewidth=0)
    return ax


def _within(grid: NumberGrid) -> NDArray[np.bool_]:
    inside: NDArray[np.bool_] = np.isfinite(grid.values) & ~grid.finding
    return inside


def _format_value(cosine: float, digits: int, *, inside: bool) -> str:
    """Return a cosine for a cell, so many digits after the point less one.

    >>> _format_value(-0.1234, 3, inside=False), _format_value(0.004, 3, inside=True)
    ('−0.12', '(0.00)')
    """
    word = f"{abs(cosine):.{digits - 1}f}"
    word = f"\N{MINUS SIGN}{word}" if cosine < 0 and float(word) else word
    return f"({word})" if inside else word


def _widest(cosine: float, digits: int) -> str:
    return _format_value(-abs(cosine), digits, inside=True)


def _measure_width(grids: Sequence[NumberGrid], width: float) -> int:
    """Return how many maps whose layers run downwards fit side by side."""
    wide = max(inches(grid.rows) + 0.35 + 0.3 * len(grid.columns) for grid in grids)
    return max(1, min(len(grids), int((width - 0.1) / wide)))


def _write_title(result: Interference, drawn: int, width: float) -> str:
    fits = characters(width - 0.2, HEAD_SIZE)
    names = [literal(name, max(8, fits // 3)) for name in result.adapters]
    if drawn < len(result.pairs):
        what = f"{drawn} of {len(result.pairs)} pairs, those with the largest cosine"
    elif len(names) == 2:
        what = " and ".join(names)
    else:
        what = f"{len(names)} adapters, pair by pair"
    chances = [p.null_std for m in result.values() for p in m.pairs]
    low, high = min(chances), max(chances)
    spread = f"{low:.2g}" if f"{low:.2g}" == f"{high:.2g}" else f"{low:.2g} to {high:.2g}"
    weighted = "weighted " * any(w < 0 for w in result.weights)
    return wrap(f"cosine of the {weighted}updates of {what}; chance gives 0 ± {spread}", fits)


def _named(result: Interference, pair: Pair, wide: float) -> str:
    names = distinct(result.adapters, max(6, characters(wide, TITLE_SIZE) // 2 - 2))
    return " + ".join(names[result.adapters.index(name)] for name in pair)


def _bar(image: AxesImage, ax: Axes, wide: float) -> None:
    """Draw the scale into `ax`, with words at both ends."""
    bar = ax.figure.colorbar(image, cax=ax, orientation="horizontal")
    high = image.get_clim()[1]
    step = next(s for s in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5) if high / s <= max(2, wide / 0.9))
    count = int(high / step + 1e-9)
    ticks = [n * step for n in range(-count, count + 1)]
    labels = [f"{x:g}".replace("-", "\N{MINUS SIGN}") if n else "0" for n, x in
              zip(range(-count, count + 1), ticks, strict=True)]  # fmt: skip
    bar.set_ticks(ticks, labels=labels, usetex=False)
    bar.minorticks_off()
    style_axes(ax)
    bar.outline.set_linewidth(0.6)
    ax.set_title("against each other", loc="left", fontsize=TICK_SIZE, pad=2.5, usetex=False)
    ax.set_title("the same way", loc="right", fontsize=TICK_SIZE, pad=2.5, usetex=False)


def _make_handles(
    result: Interference, grids: Sequence[NumberGrid], cell: tuple[float, float]
) -> list[Artist]:
    level = f"(level {result.level:g}, Benjamini-Hochberg)"
    label, dot = f"every cosine is significant {level}", ""
    if any(_within(grid).any() for grid in grids):
        numbers = any(grid.fitting(cell, _widest) for grid in grids)
        label, dot = f"{'in brackets: ' * numbers}within chance {level}", "" if numbers else "."
    handles: list[Artist] = []
    if any(grid.numbers for grid in grids):
        handles.append(Line2D([], [], color=_DOT, marker=dot, linewidth=0, label=label))
    if any(grid.undefined.any() for grid in grids):
        handles.append(
            Patch(
                facecolor=UNDEFINED,
                edgecolor=UNDEFINED_HATCH,
                hatch=STRIPES,
                linewidth=0,
                label="undefined: an update is zero",
            )
        )
    return handles
