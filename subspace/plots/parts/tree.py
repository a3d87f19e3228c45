"""The tree of average linkage beside a matrix: who is joined to whom, and how far apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.collections import LineCollection
from matplotlib.ticker import MaxNLocator

from subspace.plots.parts.page import LABEL_SIZE, style_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from subspace.results import SimilarityMatrix

_INK = "#4d4d4d"


def tree(result: SimilarityMatrix, *, ax: Axes) -> Axes:
    """Draw the tree of `result`, its leaves at y = 1 … n in the order of the rows.

    Returns
    -------
    Axes
        `ax`, whose collection has one path a merger: a bar at its distance, and two arms.
    """
    n = len(result.adapters)
    at = {leaf: (0.0, float(place)) for place, leaf in enumerate(result.order, 1)}  # distance, y
    lines = []
    heights = [height for _, _, height, _ in result.linkage]
    for number, (a, b, height, _) in enumerate(result.linkage, n):
        (x_a, y_a), (x_b, y_b) = at[a], at[b]
        lines.append([(x_a, y_a), (height, y_a), (height, y_b), (x_b, y_b)])
        at[number] = (height, (y_a + y_b) / 2)
    ax.add_collection(LineCollection(lines, colors=_INK, linewidths=0.8, label="_tree"))
    low, high = min(heights), max(heights)
    # Where all are far apart the arms would be all there is to see: the scale says where it starts.
    start = low - 0.3 * (high - low) if 0 < 0.5 * high < low < high else 0.0
    ax.set_xlim(start, (high + 0.05 * (high - start)) or 1.0)
    ax.xaxis.set_major_locator(MaxNLocator(2, prune=None))
    style_axes(ax)
    ax.tick_params(axis="y", left=False, labelleft=False)
    words = {"phi": "1 − φ", "distance": "distance"}.get(result.by, "1 − share of r")
    ax.set_xlabel(words, fontsize=LABEL_SIZE, labelpad=2, usetex=False)
    for side in ("top", "left", "right"):
        ax.spines[side].set_visible(False)
    return ax
