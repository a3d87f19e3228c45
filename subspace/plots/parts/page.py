"""What every figure has: letters, its page, a legend below, ticks, grey frames."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from subspace.errors import ArgumentError
from subspace.plots.parts.names import literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

TICK_SIZE, LABEL_SIZE, TITLE_SIZE = 6.5, 7.0, 7.5  # points, at the figure's own size
HEAD_SIZE = 8.0  # points
NARROW = 5.0  # inches: below this a figure is one column of a journal page
# Width of one character in em of DejaVu Sans, matplotlib's own font: measured on names and
# sentences, rounded up.
EM = 0.58
FRAME = "#b0b0b0"
_FINE = (1, 1.2, 1.4, 1.6, 1.8, 2, 2.2, 2.5, 3, 3.5, 4, 4.5, 5, 5.5, 6, 7, 8, 9)  # of a decade


def characters(inches: float, size: float) -> int:
    """Return how many characters of `size` points fit into `inches`."""
    return max(6, int(inches * 72 / (EM * size)))


def wrap(text: str, most: int) -> str:
    """Wrap every line at blanks; a no-break space (in "d = 384") and a hyphen hold together."""
    return "\n".join(
        piece
        for line in text.splitlines()
        for piece in textwrap.wrap(line, most, break_on_hyphens=False)
    )


def check_width(width: float) -> None:
    """Refuse a width that no page and no screen has.

    Raises
    ------
    ArgumentError
        It is not between 3 and 40 inches.
    """
    if not (math.isfinite(width) and 3 <= width <= 40):
        raise ArgumentError(f"width = {width!r}: a figure is 3 to 40 inches wide")


def new_figure(width: float, height: float) -> Figure:
    """Make a figure outside pyplot."""
    engine = ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.04, wspace=0.02, hspace=0.03)
    return Figure(figsize=(width, height), layout=engine)


def add_legend_below(
    figure: Figure, handles: Sequence[Artist], *, note: str = "", columns: int = 1
) -> None:
    """Put a legend outside, below everything, under a note; wrapped to its width."""
    columns = max(1, min(columns, len(handles)))
    down = math.ceil(len(handles) / columns)  # matplotlib fills column by column
    longest = [max(len(str(h.get_label())) for h in handles[k : k + down])
               for k in range(0, len(handles), down or 1)]  # fmt: skip
    if sum(longest) + 8 * columns > characters(figure.get_figwidth(), TICK_SIZE):
        fits = characters(figure.get_figwidth() / columns - 0.5, TICK_SIZE)
        for handle in handles:
            handle.set_label(wrap(str(handle.get_label()), fits))
    legend = figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=columns,
        fontsize=TICK_SIZE,
        title=wrap(note, characters(figure.get_figwidth() - 0.3, TICK_SIZE)),
        title_fontsize=TICK_SIZE,
        frameon=False,
        borderaxespad=0.1,
        handlelength=1.8,
    )
    legend.get_title().set_multialignment("center")


def ticks(n: int, most: int = 9) -> list[int]:
    """Return 1-based tick positions: all up to 8, else 1 and the multiples of a power of two.

    >>> ticks(4), ticks(64), ticks(64, 5)
    ([1, 2, 3, 4], [1, 8, 16, 24, 32, 40, 48, 56, 64], [1, 16, 32, 48, 64])
    """
    if n <= min(8, most):
        return list(range(1, n + 1))
    step = 2
    while n // step + 1 > max(most, 2):
        step *= 2
    return [1, *range(step, n + 1, step)]


def log_ticks(low: float, high: float) -> list[float]:
    """Return ticks for a log scale from `low` to `high` > 0: decades, else 1-2-5, else finer.

    >>> log_ticks(3, 2e3), log_ticks(3, 60), log_ticks(2.2, 4.5)
    ([10.0, 100.0, 1000.0], [5.0, 10.0, 20.0, 50.0], [2.2, 2.5, 3.0, 3.5, 4.0, 4.5])
    """
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    values: list[float] = []
    for steps in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8), _FINE):
        values = [float(f"{step}e{n}") for n in decades for step in steps]
        values = [tick for tick in values if low <= tick <= high]
        if len(values) >= 3:
            break
    return values


def style_axes(ax: Axes) -> None:
    """Give the ticks and the frame the size and the grey that every figure has."""
    ax.tick_params(labelsize=TICK_SIZE, length=2, pad=1.5, width=0.6)
    ax.tick_params(which="minor", length=1.2, width=0.4)
    for spine in ax.spines.values():
        spine.set(linewidth=0.6, edgecolor=FRAME)


def write_undefined(ax: Axes, note: str) -> Axes:
    """Write why there is nothing to draw."""
    ax.set(xticks=[], yticks=[])
    fits = characters(0.9 * ax.get_window_extent().width / ax.figure.dpi, LABEL_SIZE)
    ax.text(
        0.5,
        0.5,
        textwrap.fill(literal(note or "undefined", 120), min(36, fits)),
        transform=ax.transAxes,
        ha="center",
        va="center",
        fontsize=LABEL_SIZE,
        usetex=False,
    )
    style_axes(ax)
    return ax
