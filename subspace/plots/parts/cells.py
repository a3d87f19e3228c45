"""Marks along the cells of a grid: stripes on the undefined ones, an outline around some.

Coordinates are the paper's: the cell (i, j) is the unit square centred on x = j, y = i.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from matplotlib.collections import LineCollection, PolyCollection

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    Mask: TypeAlias = NDArray[np.bool_]

UNDEFINED = "#d9d9d9"
UNDEFINED_HATCH = "#8c8c8c"
STRIPES = "//////"


def runs(row: Mask) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of every run of True.

    >>> list(runs(np.array([True, True, False, True])))
    [(0, 2), (3, 4)]
    """
    steps = np.diff(np.concatenate(([False], row, [False])).astype(np.int8))
    yield from zip(
        np.flatnonzero(steps == 1).tolist(), np.flatnonzero(steps == -1).tolist(), strict=True
    )


def hatch(ax: Axes, undefined: Mask) -> None:
    """Cover the True cells in grey stripes, which no value of a colour map looks like."""
    boxes = [
        [
            (start + 0.5, y + 0.5),
            (stop + 0.5, y + 0.5),
            (stop + 0.5, y + 1.5),
            (start + 0.5, y + 1.5),
        ]
        for y, row in enumerate(undefined)
        for start, stop in runs(row)
    ]
    if boxes:
        ax.add_collection(
            PolyCollection(
                boxes,
                facecolors=UNDEFINED,
                edgecolors=UNDEFINED_HATCH,
                hatch=STRIPES,
                linewidths=0,
                label="_undefined",
            ),
            autolim=False,
        )


def outline(ax: Axes, inside: Mask) -> None:
    """Draw the boundary of `inside` along the edges of its cells."""
    edges = outline_edges(inside)
    if not edges:
        return
    # White beneath black: one of the two stands out from any colour of the map. Thinner where a
    # cell of a panel in print is narrower than the line.
    thin = 0.8 if max(inside.shape) > 32 else 1.0
    for colour, width, label in (
        ("white", 2.0 * thin, "_casing"),
        ("black", 0.9 * thin, "_outline"),
    ):
        ax.add_collection(
            LineCollection(
                edges,
                colors=colour,
                linewidths=width,
                capstyle="projecting",
                zorder=3,
                clip_on=False,  # the grid's own border is part of the outline
                label=label,
            ),
            autolim=False,
        )


def outlined_whole(ax: Axes) -> bool:
    """Whether `outline` went around every cell: then it looks like a frame.

    >>> from matplotlib.figure import Figure
    >>> ax = Figure().add_subplot(xlim=(0.5, 2.5), ylim=(2.5, 0.5))
    >>> outlined_whole(ax), outline(ax, np.ones((2, 2), bool)), outlined_whole(ax)
    (False, None, True)
    """
    frame = {*ax.get_xlim()}, {*ax.get_ylim()}
    for lines in ax.collections:
        if lines.get_label() == "_outline" and isinstance(lines, LineCollection):
            corners = np.concatenate(lines.get_segments())
            if len(corners) == 8 and frame == ({*corners[:, 0]}, {*corners[:, 1]}):
                return True
    return False


def outline_edges(inside: Mask) -> list[list[tuple[float, float]]]:
    """Return the boundary of the True cells as straight lines between (x, y) = (j, i) corners.

    >>> len(outline_edges(np.array([[True, True], [True, False]])))  # six sides of an L
    6
    """
    padded = np.pad(inside, 1)
    flat = padded[1:, 1:-1] != padded[:-1, 1:-1]  # (k+1, m) between a cell and the one below
    upright = padded[1:-1, 1:] != padded[1:-1, :-1]  # (k, m+1) between a cell and the next
    lines = [
        [(start + 0.5, y + 0.5), (stop + 0.5, y + 0.5)]
        for y, row in enumerate(flat)
        for start, stop in runs(row)
    ]
    lines += [
        [(x + 0.5, start + 0.5), (x + 0.5, stop + 0.5)]
        for x, column in enumerate(upright.T)
        for start, stop in runs(column)
    ]
    return lines
