"""Several heatmaps in one figure: one colour scale, one legend, one stated origin."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from subspace.errors import ArgumentError
from subspace.plots.heatmap import phi_heatmap
from subspace.plots.parts.cells import outlined_whole
from subspace.plots.parts.colour_end import colour_end, end_words
from subspace.plots.parts.page import (
    FRAME,
    HEAD_SIZE,
    LABEL_SIZE,
    NARROW,
    TICK_SIZE,
    TITLE_SIZE,
    add_legend_below,
    characters,
    new_figure,
    wrap,
)
from subspace.plots.parts.phi_words import ORIGIN, legend_handles, undefined_cells

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from subspace.results import ModuleSimilarity, Similarity


@dataclass(frozen=True)
class PhiPanel:
    """One heatmap and what is written on it. ``result`` None leaves the words alone."""

    result: ModuleSimilarity | None
    names: tuple[str, str]
    title: str
    cells: tuple[int, int] | None = None
    triangle: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of cells that are drawn."""
        if self.cells is not None or self.result is None:
            return self.cells or (1, 1)
        return self.result.phi.shape[0], self.result.phi.shape[1]


def variants(similarity: Similarity, *, initial: bool) -> list[tuple[str, Similarity]]:
    """Return what is drawn beside each other: the comparison, its control, the initial A.

    Raises
    ------
    ArgumentError
        The initial A is asked for and was not stored with both adapters.
    """
    drawn = [("", similarity)]
    if similarity.control is not None:
        drawn.append(("control: ", similarity.control))
    if initial:
        if similarity.initial is None:
            raise ArgumentError(
                "initial=True needs the initial A of both adapters, which were not stored; "
                "`subspace train` stores them"
            )
        drawn.append(("initial A: ", similarity.initial))
    return drawn


def draw_panels(
    rows: Sequence[Sequence[PhiPanel]],
    *,
    width: float,
    title: str,
    note: str = "",
    contour: float | None,
    above_chance: bool,
) -> Figure:
    """Lay rows of panels out, with a colour bar, a legend and the origin in words.

    Parameters
    ----------
    rows
        Rows of equal length; the first one settles the widths of the columns.
    width
        Of the figure in inches; letters keep their size, so print it at 100 %.
    """
    if width < NARROW:  # one column of a page: two panels a row
        rows = [row[k : k + 2] for row in rows for k in range(0, len(row), 2)]
    columns = max(len(row) for row in rows)
    ratios = [
        max(min(1.5, max(1.0, r.shape[1] / r.shape[0])) for r in rows_of)
        for rows_of in ([row[k] for row in rows if k < len(row)] for k in range(columns))
    ]
    usable = width - 0.8 - 0.3 * columns  # inches left by labels, ticks and the colour bar
    widths = [usable * ratio / sum(ratios) for ratio in ratios]
    tall = min(2.2, max(1.15, min(widths)))
    figure = new_figure(width, len(rows) * (tall + 0.55) + 1.0)
    axes = figure.subplots(len(rows), columns, squeeze=False, width_ratios=ratios)
    for y, row in enumerate(rows):
        for x in range(columns):
            if x < len(row):
                again = x > 0 and row[x].names == row[x - 1].names
                _draw(row[x], axes[y, x], (widths[x], tall), again, contour, above_chance)
            else:
                axes[y, x].set_axis_off()
    drawn = [panel.result for row in rows for panel in row if panel.result is not None]
    finish(
        figure,
        list(axes.ravel()),
        title=title,
        note=note,
        contour=contour,
        undefined=any(undefined_cells(result).any() for result in drawn),
        above_chance=above_chance,
    )
    return figure


def _draw(
    panel: PhiPanel,
    ax: Axes,
    inches: tuple[float, float],
    again: bool,
    contour: float | None,
    above_chance: bool,
) -> None:
    fits = characters(inches[0] + 0.15, TITLE_SIZE)  # a title may use half of the gap beside it
    if panel.result is None:
        ax.set_axis_off()
        words = wrap(panel.title, fits)
        ax.text(0.5, 0.5, words, ha="center", va="center", fontsize=LABEL_SIZE, usetex=False)
        return
    phi_heatmap(
        panel.result,
        ax=ax,
        contour=contour,
        above_chance=above_chance,
        cells=panel.cells,
        triangle=panel.triangle,
        names=panel.names,
        title=wrap(panel.title, fits),
        most_ticks=(
            min(9, int(inches[1] * 72 / (1.5 * TICK_SIZE))),
            min(9, int(inches[0] * 72 / ((0.64 * len(str(panel.shape[1])) + 0.45) * TICK_SIZE))),
        ),
        most_characters=characters(min(inches), LABEL_SIZE) - 4,
    )
    if again:  # the panel at the left says it
        ax.set_ylabel("")


def finish(
    figure: Figure,
    axes: list[Axes],
    *,
    title: str,
    note: str,
    contour: float | None,
    undefined: bool,
    above_chance: bool,
    bar: Axes | None = None,
) -> None:
    """Add the colour bar that all panels share, the title, the legend and the notes.

    The layout makes room for the colour bar, unless `bar` is where it stands.
    """
    width = figure.get_figwidth()
    images = [ax.images[0] for ax in axes if ax.images]
    end = colour_end(images)
    short = end < 1
    for image in images if short else []:
        image.set_clim(-end if above_chance else 0, end)
    if bar is None:
        scale = figure.colorbar(images[0], ax=axes, fraction=0.04, pad=0.01, aspect=25)
    else:
        scale = figure.colorbar(images[0], cax=bar)
    words = "φ(i, j) − chance" if above_chance else "φ(i, j)"
    scale.set_label(
        words + (f", up to {end:g}" if short else ""), fontsize=LABEL_SIZE, usetex=False
    )
    scale.ax.tick_params(labelsize=TICK_SIZE, length=2, pad=1.5, width=0.6)
    scale.outline.set_linewidth(0.6)
    figure.suptitle(
        wrap(title, characters(width - 0.2, HEAD_SIZE)), fontsize=HEAD_SIZE, usetex=False
    )
    notes = [ORIGIN, note, end_words(end, above_chance=above_chance) if short else ""]
    add_legend_below(
        figure,
        legend_handles(contour=contour, undefined=undefined, whole=any(map(outlined_whole, axes))),
        note="\n".join(filter(None, notes)),
        columns=1 if width < NARROW else 2,
    )
    for ax in axes:
        for spine in ax.spines.values():
            # Grey: a panel that passes as a whole has a black outline where others have none.
            spine.set(linewidth=0.6, edgecolor=FRAME)


def with_zoom(panels: Sequence[PhiPanel]) -> list[PhiPanel]:
    """Append, for each whole grid, its zoom: the triangle j <= i of the first min(r_a, r_b)."""
    zooms = []
    for panel in panels:
        k = min(panel.shape)
        title = panel.title if panel.result is None else f"zoom: {panel.title.rsplit(', d', 1)[0]}"
        zooms.append(replace(panel, title=title, cells=(k, k), triangle=True))
    return [*panels, *zooms]
