"""phi(i, j) of one module as a heatmap: the panel that every figure is made of."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from subspace.errors import ArgumentError, ShapeError
from subspace.plots.parts.cells import hatch, outline
from subspace.plots.parts.colours import DIFFERENCE_MAP, PHI_MAP
from subspace.plots.parts.names import in_two_lines, literal, module_label
from subspace.plots.parts.page import LABEL_SIZE, TICK_SIZE, TITLE_SIZE, ticks
from subspace.plots.parts.phi_words import undefined_cells
from subspace.results import ModuleSimilarity

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    Array: TypeAlias = NDArray[np.float64]
    Mask: TypeAlias = NDArray[np.bool_]


def phi_heatmap(
    phi: ModuleSimilarity | Array,
    *,
    ax: Axes,
    contour: float | None = 0.01,
    above_chance: bool = False,
    cells: tuple[int, int] | None = None,
    triangle: bool = False,
    names: tuple[str, str] = ("a", "b"),
    title: str | None = None,
    most_ticks: tuple[int, int] = (9, 9),
    most_characters: int = 24,
) -> Axes:
    """Draw phi(i, j) with i downwards and j rightwards from (1, 1) at the top left.

    One panel of Figures 3, 4, 6 and 7 of Hu et al. 2021, arXiv:2106.09685. Data coordinates are
    the paper's i and j: the cell (i, j) is centred on x = j, y = i.

    Parameters
    ----------
    phi : ModuleSimilarity or (r_a, r_b) array
        A bare array has no null: it gets no contour, and `above_chance` is refused.
    ax
        What is drawn into, and returned.
    contour
        Cells with a p-value at or below this are outlined; None draws no outline.
    above_chance
        Draw phi - null_mean, on a diverging scale from -1 to 1, instead of phi on 0 to 1.
    cells : (k, m), optional
        Show i <= k and j <= m alone.
    triangle
        Show j <= i alone: the lower-left triangle of the paper's zoom. Other cells stay blank.
    names
        What the two adapters are called on the axes.
    title
        Default: the module's layer and kind, and d.
    most_ticks : (y, x)
        At most about so many tick labels on each axis.
    most_characters
        A longer name takes two lines; what is longer still is shortened in its middle.

    Returns
    -------
    Axes
        `ax`. Its first image holds the drawn values, masked where nothing is drawn; undefined
        cells are hatched.

    Raises
    ------
    ArgumentError
        `contour` is not between 0 and 1, `cells` is not within the grid, or a bare array is to
        be drawn above chance.
    ShapeError
        The array is not two-dimensional, or empty.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> ax = phi_heatmap(np.array([[0.9, 0.5], [0.1, np.nan]]), ax=Figure().add_subplot())
    >>> [float(edge) for edge in ax.get_ylim()]  # i = 1 on top
    [2.5, 0.5]
    >>> ax.images[0].get_array().tolist()
    [[0.9, 0.5], [0.1, None]]
    """
    values, inside, undefined = _read(phi, contour=contour, above_chance=above_chance)
    k, m = _checked_cells(cells, values.shape)
    values, inside, undefined = values[:k, :m], inside[:k, :m], undefined[:k, :m]
    blank = np.triu(np.ones((k, m), dtype=bool), 1) if triangle else np.zeros((k, m), dtype=bool)
    undefined, inside = undefined & ~blank, inside & ~blank

    low, high, cmap = (-1.0, 1.0, DIFFERENCE_MAP) if above_chance else (0.0, 1.0, PHI_MAP)
    ax.imshow(
        np.ma.masked_array(values, mask=undefined | blank | ~np.isfinite(values)),
        cmap=cmap,
        vmin=low,
        vmax=high,
        origin="upper",
        extent=(0.5, m + 0.5, k + 0.5, 0.5),
        aspect="auto",
        interpolation="nearest",  # never mix two cells into a value that neither has
    )
    hatch(ax, undefined)
    outline(ax, inside)
    if (undefined | blank).all():
        note = phi.note if isinstance(phi, ModuleSimilarity) else ""
        ax.text(
            0.5,
            0.5,
            "\n".join(textwrap.wrap(literal(note or "undefined", 80), max(8, most_characters))),
            transform=ax.transAxes,
            ha="center",
            va="center",
            fontsize=LABEL_SIZE,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
            usetex=False,
        )

    ax.set_xticks(ticks(m, most_ticks[1]))
    ax.set_yticks(ticks(k, most_ticks[0]))
    ax.tick_params(labelsize=TICK_SIZE, length=2, pad=1.5, width=0.6)
    a, b = (in_two_lines(name, most_characters) for name in names)
    ax.set_ylabel(f"i ({a})", fontsize=LABEL_SIZE, labelpad=2, usetex=False)
    ax.set_xlabel(f"j ({b})", fontsize=LABEL_SIZE, labelpad=2, usetex=False)
    if title is None and isinstance(phi, ModuleSimilarity):
        title = f"{module_label(phi.module, most_characters)}, d = {phi.d}"
    ax.set_title(title or "", fontsize=TITLE_SIZE, pad=4, usetex=False)
    return ax


def _read(
    phi: ModuleSimilarity | Array, *, contour: float | None, above_chance: bool
) -> tuple[Array, Mask, Mask]:
    """Return what to draw, which cells to outline and which have no value, each (r_a, r_b)."""
    if contour is not None and not 0 < contour < 1:
        raise ArgumentError(
            f"contour = {contour!r}: a p-value to outline lies between 0 and 1; None for none"
        )
    if isinstance(phi, ModuleSimilarity):
        values = phi.phi - phi.null_mean if above_chance else phi.phi
        undefined = undefined_cells(phi)
        # A comparison with NaN is False: an undefined cell is never outlined.
        inside = ~undefined & (
            phi.pvalue <= contour if contour is not None else np.zeros(values.shape, bool)
        )
        return values, inside, undefined
    values = np.asarray(phi, dtype=np.float64)
    if values.ndim != 2 or not values.size:
        raise ShapeError(f"expected a grid (r_a, r_b) of phi, got shape {values.shape}")
    if above_chance:
        raise ArgumentError(
            "above_chance needs the null mean: pass the ModuleSimilarity, not its phi alone"
        )
    return values, np.zeros(values.shape, dtype=bool), ~np.isfinite(values)


def _checked_cells(cells: tuple[int, int] | None, shape: tuple[int, ...]) -> tuple[int, int]:
    k, m = shape if cells is None else cells
    if not (1 <= k <= shape[0] and 1 <= m <= shape[1]):
        raise ArgumentError(f"cells = {cells} reaches outside the grid of {shape[0]} x {shape[1]}")
    return k, m
