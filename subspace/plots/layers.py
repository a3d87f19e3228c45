"""Figures 6 and 7: many layers at once, one small heatmap a module."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from subspace.errors import ArgumentError, UnknownModuleError
from subspace.plots.figure3 import heading
from subspace.plots.heatmap import (
    LABEL_SIZE,
    TICK_SIZE,
    TITLE_SIZE,
    phi_heatmap,
    undefined_cells,
)
from subspace.plots.names import (
    Place,
    chosen,
    kind_labels,
    layer_words,
    literal,
    module_label,
    place,
)
from subspace.plots.panels import EM, characters, check_width, finish

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from matplotlib.axes import Axes

    from subspace.results import Similarity

    Row = tuple[str, int | None]

_MOST_PANELS = 512  # a page of stamps: beyond this nothing can be read, and drawing takes minutes
# Inches.
_TALLEST = 8.2  # of all panels: a page, with what stands above and below
_LARGEST, _SMALLEST, _LEAST = 2.2, 0.42, 0.15  # a panel's side: the smallest if the width allows
_BAR, _BAR_THICK, _BAR_TALL = 0.78, 0.12, 4.0  # room for the colour bar, and the bar
_FOOT = 0.3  # tick labels and j
_EDGE = 0.05


def layers_figure(
    similarity: Similarity,
    *,
    modules: str | Sequence[str] | None = None,
    layers: Collection[int] | None = None,
    p: float | None = 0.01,
    above_chance: bool = False,
    title: str | None = None,
    width: float = 7.0,
) -> Figure:
    """Draw phi(i, j) of many modules: a row a layer, a column a kind of module.

    Hu et al. 2021, arXiv:2106.09685, appendix H.1, Figures 6 and 7 (layers 1, 32, 64 and 96).
    Every panel is a square, whatever its ranks. Where panels get larger or the figure less tall by
    it, the rows go on in further blocks at the right.
    A control is not drawn here: pass `similarity.control` to a call of its own.

    Parameters
    ----------
    similarity
        Two adapters compared.
    modules
        The module paths to draw; default: all.
    layers
        The layers to draw, as their number stands in the module's path; default: all.
    p, above_chance, title, width
        As in `subspace.plots.figure3.figure3`.

    Returns
    -------
    Figure
        Of matplotlib, outside pyplot.

    Raises
    ------
    UnknownModuleError
        A module or layer is not in `similarity`, or it has none.
    ArgumentError
        More than 512 panels, more kinds than fit side by side, a p outside 0 to 1, or a width
        that no page has.
    """
    check_width(width)
    names = _names(similarity, modules, layers)
    spots = {name: place(name) for name in names}
    layered = any(spot.layer is not None for spot in spots.values())
    if not layered:  # each is a row of its own: side by side they would not fit
        spots = {name: Place(name, None, "") for name in names}
    rows: list[Row] = list(dict.fromkeys((s.prefix, s.layer) for s in spots.values()))
    kinds = list(dict.fromkeys(s.kind for s in spots.values()))
    words, heads = layer_words(rows), kind_labels(kinds)
    if not layered:
        words = {row: module_label(row[0], 16) for row in rows}
    shapes = {similarity[name].phi.shape for name in names}
    grid = _arranged(
        len(rows),
        len(kinds),
        width,
        digits=(max(len(str(r)) for r, _ in shapes), max(len(str(r)) for _, r in shapes)),
        word=max(map(len, words.values())),
        shared=len(shapes) == 1,
    )
    # Placed by hand, for no layout of matplotlib's keeps panels both square and side by side.
    figure = Figure(figsize=(width, grid.height))
    axes: dict[tuple[int, int], Axes] = {}  # by (row of the page, column of the page)
    few = 4 if grid.side > 0.75 else 2
    stand = max(map(len, heads.values())) * EM * TITLE_SIZE / 72 > grid.step[0]
    for name in names:
        block, y = divmod(rows.index((spots[name].prefix, spots[name].layer)), grid.down)
        x = kinds.index(spots[name].kind)
        axes[y, block * len(kinds) + x] = ax = figure.add_axes((0, 0, 1, 1), label=name)
        phi_heatmap(
            similarity[name],
            ax=ax,
            p=p,
            above_chance=above_chance,
            title="",
            most_ticks=(few, few),
            most_characters=characters(grid.side, LABEL_SIZE),
        )
        # The adapters' names would drown the picture: they are in the title.
        below = grid.down * block + y + 1
        ends = y + 1 == grid.down or below >= len(rows)
        _quiet(ax, row=words[rows[below - 1]] if x == 0 else "", ends=ends, shared=grid.shared)
        if y == 0:
            head = literal(heads[spots[name].kind], 24)
            ax.set_title(
                head,
                fontsize=TITLE_SIZE,
                pad=3,
                va="bottom" if stand else "baseline",
                rotation=90 if stand else 0,
                usetex=False,
            )
    bar = figure.add_axes((0, 0, 1, 1), label="_bar")
    finish(
        figure,
        list(axes.values()),
        title=heading(similarity, title, width),
        note="",
        p=p,
        undefined=any(undefined_cells(similarity[name]).any() for name in names),
        above_chance=above_chance,
        bar=bar,
    )
    _place(figure, grid, axes, bar)
    return figure


def _names(
    similarity: Similarity, modules: str | Sequence[str] | None, layers: Collection[int] | None
) -> tuple[str, ...]:
    names = chosen(similarity, list(similarity) if modules is None else modules, most=10**9)
    if layers is not None:
        have = {place(name).layer for name in names}
        missing = [layer for layer in layers if layer not in have]
        if missing or not layers:
            raise UnknownModuleError(
                f"no layer {missing[0] if missing else 'at all'} in this comparison; it has "
                + ", ".join(str(layer) for layer in sorted(x for x in have if x is not None))
            )
        names = tuple(name for name in names if place(name).layer in layers)
    if len(names) > _MOST_PANELS:
        raise ArgumentError(
            f"{len(names)} modules are more than the {_MOST_PANELS} panels that one figure holds; "
            "choose some with modules= or layers="
        )
    return names


@dataclass(frozen=True)
class _Grid:
    """Where panels stand, in inches: blocks of `down` rows, a panel a kind in each row."""

    blocks: int
    down: int
    kinds: int
    side: float  # of a panel
    step: tuple[float, float]  # (x, y) from one panel to the next
    margin: float  # at the left of each block: the row's word, i and the tick labels
    shared: bool  # all panels have the same ranks: the ticks of one hold for its neighbours

    @property
    def width(self) -> float:
        """Of all blocks."""
        block = self.margin + (self.kinds - 1) * self.step[0] + self.side
        return self.blocks * block

    @property
    def height(self) -> float:
        """Of a block."""
        return (self.down - 1) * self.step[1] + self.side

    def corner(self, y: int, column: int) -> tuple[float, float]:
        """Return (x, y) of a panel's top left corner, from the top left one of all blocks."""
        block, x = divmod(column, self.kinds)
        return (
            (block + 1) * (self.width / self.blocks)
            - self.side
            - (self.kinds - 1 - x) * self.step[0],
            y * self.step[1],
        )


def _arranged(
    rows: int, kinds: int, width: float, *, digits: tuple[int, int], word: int, shared: bool
) -> _Grid:
    """Choose the blocks: of those with nearly the largest panels the least tall.

    `digits` are those of the longest tick label on (i, j), `word` the characters of the longest
    row's word.
    """
    digit = EM * TICK_SIZE / 72
    margin = 0.42 + digits[0] * digit
    # The last tick label of a panel and the first of the next stand side by side.
    across = (0.5 * digits[1] + 0.5) * digit + 0.06 if shared else 0.12 + digits[0] * digit
    between = 0.12 if shared else 0.2
    least = word * EM * LABEL_SIZE / 72 + 0.06  # a row's word stands upright beside its panel
    grids = []
    for blocks in range(1, rows + 1):
        down = math.ceil(rows / blocks)
        if blocks != math.ceil(rows / down):
            continue  # the last one would be empty
        room = width - _BAR - _EDGE - blocks * (margin + (kinds - 1) * across)
        wide = room / (blocks * kinds)
        tall = max(_SMALLEST, _TALLEST / down - between)
        side = min(wide, tall, _LARGEST)
        steps = (side + across, max(side + between, least))
        if side >= _LEAST:
            grids.append(_Grid(blocks, down, kinds, side, steps, margin, shared))
    if not grids:
        raise ArgumentError(
            f"{kinds} kinds of module side by side do not fit into {width:g} inches; choose some "
            "with modules=, or a larger width"
        )
    best = max(grid.side for grid in grids)
    return min((g for g in grids if g.side >= 0.85 * best), key=lambda g: g.height)


def _place(figure: Figure, grid: _Grid, axes: dict[tuple[int, int], Axes], bar: Axes) -> None:
    """Give the page its height and all that stands on it its place."""
    title, legend, dpi = figure.texts[0], figure.legends[0], figure.dpi
    heads = [ax.title.get_window_extent().height for (y, _), ax in axes.items() if y == 0]
    above = title.get_window_extent().height / dpi + max(heads, default=0.0) / dpi + 0.19
    below = legend.get_window_extent().height / dpi + _FOOT + 0.12
    width, height = figure.get_figwidth(), above + grid.height + below
    figure.set_size_inches(width, height)
    title.set_y(1 - 0.06 / height)
    left = max(_EDGE, (width - grid.width - _BAR) / 2)
    side = grid.side
    for (y, column), ax in axes.items():
        x, down = grid.corner(y, column)
        bottom = height - above - down - side
        ax.set_position(((left + x) / width, bottom / height, side / width, side / height))
    tall = min(grid.height, _BAR_TALL)
    bottom = height - above - (grid.height + tall) / 2
    x = (left + grid.width + 0.1) / width
    bar.set_position((x, bottom / height, _BAR_THICK / width, tall / height))


def _quiet(ax: Axes, *, row: str, ends: bool, shared: bool) -> None:
    """Keep labels at the left of a block and below its last row, ticks where they differ."""
    ax.set_ylabel(f"{row}\ni" if row else "", fontsize=LABEL_SIZE, labelpad=2, usetex=False)
    ax.set_xlabel("j" if ends else "", fontsize=LABEL_SIZE, labelpad=1, usetex=False)
    ax.tick_params(labelbottom=ends or not shared, labelleft=bool(row) or not shared)
