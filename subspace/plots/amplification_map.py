"""Table 7 of a whole model at a glance: amplification over layers and kinds of module."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from matplotlib.colors import LogNorm
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from subspace.plots.parts.amplification_grid import TITLES, amplification_grid, ranks_drawn, written
from subspace.plots.parts.amplification_rows import describe_source
from subspace.plots.parts.cells import STRIPES, UNDEFINED, UNDEFINED_HATCH, outline
from subspace.plots.parts.colours import DIFFERENCE_MAP, PHI_MAP
from subspace.plots.parts.module_grid import NUMBER, inches, number_cells, paint, upright
from subspace.plots.parts.page import (
    HEAD_SIZE,
    NARROW,
    TICK_SIZE,
    add_legend_below,
    characters,
    check_width,
    log_ticks,
    new_figure,
    style_axes,
    wrap,
)
from subspace.plots.parts.phi_words import UNCORRECTED

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

    from subspace.plots.parts.amplification_grid import Value
    from subspace.plots.parts.module_grid import NumberGrid
    from subspace.results import Amplification

_ENDS: dict[Value, tuple[str, str]] = {
    "null_ratio": ("meets less of W than chance", "more"),
    "factor": ("amplifies less", "more"),
}
_CELL = (1.2, 0.3)  # inches, (width, height): the largest one
_TALLEST = 7.4  # inches of cells on a page
_BAR = 3.0  # inches: the narrowest map, so that the words at the colour bar's ends fit
_WIDEST = 32.0  # colours end at this many times chance: one outlier must not pale the others


def map_figure(result: Amplification, *, value: Value = "null_ratio", width: float = 7.0) -> Figure:
    """Draw the amplification of every module: its layer one way, its kind the other.

    Table 7 of Hu et al. 2021, arXiv:2106.09685, section 7.3, for a whole model and with what
    chance gives: see `amplification_map`. Few layers run rightwards; many run downwards, and go
    on in a second block at the right where the page ends.

    Parameters
    ----------
    result
        Table 7 of one adapter. Of a module with several ranks the largest one is drawn.
    value
        ``"null_ratio"``: how many times more of W the update meets than a random one, 1 in the
        middle of the colours. ``"factor"``: the paper's |delta W|_F / |U^T W V|_F.
    width
        In inches.

    Returns
    -------
    Figure
        Of matplotlib, outside pyplot; its last Axes is the colour bar.

    Raises
    ------
    UnknownModuleError
        `result` has no row.
    ArgumentError
        Another value, a width that no page has, or more than 1000 layers or kinds.

    Examples
    --------
    >>> from dataclasses import fields
    >>> from subspace.results import Amplification, ModuleAmplification
    >>> ones = dict.fromkeys((f.name for f in fields(ModuleAmplification)), 1.0)
    >>> ones |= {"module": "h.0.q", "rank": 1, "shape": (4, 4), "directions": (), "note": ""}
    >>> row = ModuleAmplification(**ones)
    >>> table7 = Amplification(
    ...     adapter="r1", base="toy", scaled=True, seed=0, rows=(row,))
    >>> figure = map_figure(table7, width=3.3)
    >>> figure.axes[0].images[0].get_array().tolist(), figure.axes[-1].get_title(loc="left")
    ([[1.0]], 'meets less of W than chance')
    """
    check_width(width)
    grid = amplification_grid(result, value, width)
    norm, columns = _norm(grid, value), len(grid.columns)
    margin = max(0.2, inches(grid.rows)) + 0.15
    room = max(1, int((width - 0.1) / (margin + NUMBER[0] * columns)))
    a_block = math.ceil(
        len(grid.rows) / min(room, math.ceil(len(grid.rows) * NUMBER[1] / _TALLEST))
    )
    blocks = math.ceil(len(grid.rows) / a_block)
    cell = (
        min(_CELL[0], ((width - 0.1) / blocks - margin) / columns),
        min(_CELL[1], _TALLEST / a_block),
    )
    fits = characters(width - 0.2, HEAD_SIZE)
    first = wrap(f"{TITLES[value]}; {ranks_drawn(result)}", fits)
    title, handles = f"{first}\n{describe_source(result, fits)}", _make_handles(grid, cell)
    lines = title.count("\n") + 4 + (len(handles) if width < NARROW else 1)
    heads = inches(grid.columns) if upright(grid.columns, cell[0]) else 0.1
    figure = new_figure(width, a_block * cell[1] + heads + 0.14 * lines + 0.4)
    figure.suptitle(title, fontsize=HEAD_SIZE, usetex=False)
    used = min(width, max(_BAR, blocks * (columns * cell[0] + margin)))
    engine = figure.get_layout_engine()
    if isinstance(engine, ConstrainedLayoutEngine):
        # A few columns stand in the middle of the page: stretched over it they look like stripes.
        engine.set(rect=(0.5 - used / width / 2, 0, used / width, 1))
    spec = figure.add_gridspec(2, blocks, height_ratios=(a_block * cell[1], 0.1))
    for n in range(blocks):
        part = grid[n * a_block : (n + 1) * a_block]
        ax = _draw(part, figure.add_subplot(spec[0, n]), value, norm, cell)
        ax.set_ylim(a_block + 0.5, 0.5)  # a shorter last block has cells of the same height
        if n:
            ax.set_ylabel("")
    _bar(figure.axes[0].images[0], figure.add_subplot(spec[1, :]), value, used - margin)
    add_legend_below(figure, handles, columns=1 if width < NARROW else 2)
    return figure


def amplification_map(
    result: Amplification,
    *,
    ax: Axes,
    value: Value = "null_ratio",
    cell: tuple[float, float] | None = None,
) -> Axes:
    """Draw one cell a module: its colour is the null ratio or factor, an outline says finding.

    With U, V the singular vectors of delta W, the factor is |delta W|_F / |U^T W V|_F, and the
    null ratio is |U^T W V|_F over its root mean square for random U, V (Hu et al. 2021,
    arXiv:2106.09685, section 7.3, Table 7). The null ratio's colours are logarithmic, blue below 1
    (chance) and red above, and end at the largest of them or its inverse, between 2 and 32.

    Parameters
    ----------
    result
        Table 7 of one adapter. Of a module with several ranks the largest one is drawn.
    ax
        What is drawn into, and returned. Layers run downwards, or rightwards where they are few.
    value
        ``"null_ratio"`` or ``"factor"``.
    cell : (width, height), optional
        Inches of one cell, which settle whether numbers and labels fit. Default: as `ax` is now.

    Returns
    -------
    Axes
        `ax`. Its first image holds the drawn values, masked where there is none; its texts are
        the numbers. Cells outside the central 95 % of chance are outlined, undefined ones striped,
        and those of no module blank.

    Raises
    ------
    UnknownModuleError
        `result` has no row.
    ArgumentError
        Another value, or more than 1000 layers or kinds.

    Examples
    --------
    >>> from dataclasses import fields
    >>> from matplotlib.figure import Figure
    >>> from subspace.results import Amplification, ModuleAmplification
    >>> values = dict.fromkeys((f.name for f in fields(ModuleAmplification)), float("nan"))
    >>> values |= {"module": "h.0.q", "rank": 1, "shape": (4, 4), "directions": (), "note": ""}
    >>> values |= {"factor": 20.0, "null_factor": 60.0, "null_low": 40.0, "null_high": 90.0}
    >>> row = ModuleAmplification(**values)
    >>> table7 = Amplification(
    ...     adapter="r1", base="toy", scaled=True, seed=0, rows=(row,))
    >>> ax = amplification_map(table7, ax=Figure().subplots())
    >>> ax.images[0].get_array().tolist(), ax.texts[0].get_text()
    ([[3.0]], '3.00')
    """
    box = ax.get_window_extent()
    dpi = ax.figure.dpi
    grid = amplification_grid(result, value, box.width / dpi)
    if cell is None:
        cell = (box.width / dpi / len(grid.columns), box.height / dpi / len(grid.rows))
    return _draw(grid, ax, value, _norm(grid, value), cell)


def _norm(grid: NumberGrid, value: Value) -> LogNorm:
    numbers = grid.numbers or [1.0]
    low, high = min(numbers), max(numbers)
    if value == "null_ratio":
        most = min(_WIDEST, max(2.0, high, 1 / low))
        return LogNorm(1 / most, most)
    return LogNorm(low, high) if high > 1.1 * low else LogNorm(low / 1.5, high * 1.5)


def _draw(
    grid: NumberGrid, ax: Axes, value: Value, norm: LogNorm, cell: tuple[float, float]
) -> Axes:
    cmap = DIFFERENCE_MAP if value == "null_ratio" else PHI_MAP
    image = paint(grid, ax, cmap=cmap, norm=norm, cell=cell)
    outline(ax, grid.finding)
    if digits := grid.fitting(cell, written):
        number_cells(grid, image, [written(x, digits) for x in grid.numbers], bold=True)
    return ax


def _bar(image: AxesImage, ax: Axes, value: Value, wide: float) -> None:
    """Draw the scale into `ax`, with words at both ends."""
    low, high = image.get_clim()
    extend = "both" if value == "null_ratio" and high >= _WIDEST else "neither"
    bar = ax.figure.colorbar(image, cax=ax, orientation="horizontal", extend=extend)
    if value == "null_ratio":
        most = int(math.log2(high) + 1e-9)
        step = 1 if (2 * most + 1) * 0.45 <= wide else 2
        powers = [n for n in range(-most, most + 1) if n % step == 0]
        ticks = [2.0**n for n in powers]
        labels = [f"1/{2**-n}" if n < 0 else "1 = chance" if n == 0 else f"{2**n}" for n in powers]
    else:
        ticks = log_ticks(low, high)
        labels = [f"{tick:g}" for tick in ticks]
    bar.set_ticks(ticks, labels=labels, usetex=False)
    bar.minorticks_off()
    style_axes(ax)
    bar.outline.set_linewidth(0.6)
    less, more = _ENDS[value]
    ax.set_title(less, loc="left", fontsize=TICK_SIZE, pad=2.5, usetex=False)
    ax.set_title(more, loc="right", fontsize=TICK_SIZE, pad=2.5, usetex=False)


def _make_handles(grid: NumberGrid, cell: tuple[float, float]) -> list[Artist]:
    handles: list[Artist] = []
    if grid.finding.any():
        mark = "outlined, bold" if grid.fitting(cell, written) else "outlined"
        label = f"{mark}: outside the central 95 % of chance, {UNCORRECTED}"
        handles.append(Line2D([], [], color="black", linewidth=1.0, label=label))
    if grid.undefined.any():
        handles.append(
            Patch(
                facecolor=UNDEFINED,
                edgecolor=UNDEFINED_HATCH,
                hatch=STRIPES,
                linewidth=0,
                label="undefined: ΔW or W is zero",
            )
        )
    return handles
