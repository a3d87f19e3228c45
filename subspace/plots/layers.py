"""Figures 6 and 7: many layers at once, one small heatmap a module."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from subspace.errors import ArgumentError, UnknownModuleError
from subspace.modules.place import Place, place
from subspace.plots.figure3 import heading
from subspace.plots.heatmap import phi_heatmap
from subspace.plots.parts.colour_end import colour_end, largest
from subspace.plots.parts.names import (
    chosen,
    kind_labels,
    layer_words,
    literal,
    module_label,
)
from subspace.plots.parts.page import EM, LABEL_SIZE, TICK_SIZE, TITLE_SIZE, characters, check_width
from subspace.plots.parts.page_layout import arrange, place_panels
from subspace.plots.parts.phi_panels import finish
from subspace.plots.parts.phi_words import undefined_cells

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from matplotlib.axes import Axes

    from subspace.results import Similarity

    Row = tuple[str, int | None]

_MOST_PANELS = 512  # a page of stamps: beyond this nothing can be read, and drawing takes minutes
_FLAT = 0.2  # of the scale: a panel that nowhere has more is one dark colour


def layers_figure(
    similarity: Similarity,
    *,
    modules: str | Sequence[str] | None = None,
    layers: Collection[int] | None = None,
    contour: float | None = 0.01,
    above_chance: bool = False,
    title: str | None = None,
    width: float = 7.0,
) -> Figure:
    """Draw phi(i, j) of many modules: a row a layer, a column a kind of module.

    Hu et al. 2021, arXiv:2106.09685, appendix H.1, Figures 6 and 7 (layers 1, 32, 64 and 96).
    Every panel is a square, whatever its ranks; one that is flat beside a louder one says the
    largest phi that it has. Where panels get larger or the figure less tall by
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
    contour, above_chance, title, width
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
        More than 512 panels, more kinds than fit side by side, a contour outside 0 to 1, or a width
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
    grid = arrange(
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
            contour=contour,
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
    # Above chance faint is pale, and 0 is a colour of its own.
    flat = [] if above_chance else _flat(list(axes.values()))
    for ax in flat:
        _say_largest(ax)
    finish(
        figure,
        list(axes.values()),
        title=heading(similarity, title, width),
        note="In a dark panel: its largest φ." if flat else "",
        contour=contour,
        undefined=any(undefined_cells(similarity[name]).any() for name in names),
        above_chance=above_chance,
        bar=bar,
    )
    place_panels(figure, grid, axes, bar)
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


def _flat(axes: Sequence[Axes]) -> list[Axes]:
    """Return the panels that are one dark colour, since a louder one sets the scale."""
    end = colour_end([ax.images[0] for ax in axes])
    return [ax for ax in axes if 0 < largest(ax.images[0]) < _FLAT * end]


def _say_largest(ax: Axes) -> None:
    least = math.ceil(1000 * largest(ax.images[0]) - 1e-9) / 1000  # never below it
    ax.text(
        0.05,
        0.06,
        f"≤{least:g}".replace("0.", "."),  # a panel may be a third of an inch
        transform=ax.transAxes,
        fontsize=TICK_SIZE,
        color="white",
        bbox={"facecolor": "black", "alpha": 0.6, "edgecolor": "none", "pad": 0.8},
        zorder=4,
        usetex=False,
    )


def _quiet(ax: Axes, *, row: str, ends: bool, shared: bool) -> None:
    """Keep labels at the left of a block and below its last row, ticks where they differ."""
    ax.set_ylabel(f"{row}\ni" if row else "", fontsize=LABEL_SIZE, labelpad=2, usetex=False)
    ax.set_xlabel("j" if ends else "", fontsize=LABEL_SIZE, labelpad=1, usetex=False)
    ax.tick_params(labelbottom=ends or not shared, labelleft=bool(row) or not shared)
