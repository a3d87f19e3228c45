"""What every figure of phi says: whose directions, where the origin is, what its marks mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from subspace.plots.parts.cells import STRIPES, UNDEFINED, UNDEFINED_HATCH

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from numpy.typing import NDArray

    from subspace.results import ModuleSimilarity, Side

    Mask: TypeAlias = NDArray[np.bool_]

SIDE_WORDS: dict[Side, str] = {
    "A": "right-singular vectors of A",
    "B": "left-singular vectors of B",
    "in": "right-singular vectors of ΔW = BA",
    "out": "left-singular vectors of ΔW = BA",
    "delta-A": "right-singular vectors of A minus its initial value",
}
# Of a placement (appendix H.3, Figure 8) i counts W's vectors and j the update's.
BASE_WORDS: dict[Side, str] = {
    "in": "right-singular vectors of W (i) and of ΔW = BA (j)",
    "out": "left-singular vectors of W (i) and of ΔW = BA (j)",
}
# Nothing is corrected for there being many cells: by chance a share p of them is outlined too.
UNCORRECTED = "each cell by itself, uncorrected"
# The paper's zoom looks flipped to many readers; one origin, said on the figure, settles it.
ORIGIN = "Origin: (i, j) = (1, 1) is the top left cell of every panel; i counts down, j rightwards."


def legend_handles(*, contour: float | None, undefined: bool, whole: bool = False) -> list[Artist]:
    """Return what a legend needs to say: the outline's level, and the hatch where it is drawn.

    `whole`: some panel is outlined as a whole, which looks like a frame.
    """
    handles: list[Artist] = []
    if contour is not None:
        label = f"outline: p ≤ {contour:g} against random subspaces, {UNCORRECTED}"
        label += "; around a panel: all its cells" if whole else ""
        handles.append(Line2D([], [], color="black", linewidth=1.0, label=label))
    if undefined:
        handles.append(
            Patch(
                facecolor=UNDEFINED,
                edgecolor=UNDEFINED_HATCH,
                hatch=STRIPES,
                linewidth=0,
                label="undefined (beyond the numerical rank, or tied singular values)",
            )
        )
    return handles


def undefined_cells(result: ModuleSimilarity) -> Mask:
    """(r_a, r_b): where phi has no value."""
    return np.asarray(~np.isfinite(result.phi) | result.masked)
