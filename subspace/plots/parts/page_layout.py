"""Where square panels stand on a page: blocks of rows side by side, and what surrounds them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from subspace.errors import ArgumentError
from subspace.plots.parts.page import EM, LABEL_SIZE, TICK_SIZE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Inches.
_TALLEST = 8.2  # of all panels: a page, with what stands above and below
_LARGEST, _SMALLEST, _LEAST = 2.2, 0.42, 0.15  # a panel's side: the smallest if the width allows
_BAR, _BAR_THICK, _BAR_TALL = 0.78, 0.12, 4.0  # room for the colour bar, and the bar
_TOO_TALL = 1.3  # widths
_FOOT = 0.3  # tick labels and j
_EDGE = 0.05


@dataclass(frozen=True, kw_only=True)
class PageLayout:
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


def arrange(
    rows: int, kinds: int, width: float, *, digits: tuple[int, int], word: int, shared: bool
) -> PageLayout:
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
            grids.append(
                PageLayout(
                    blocks=blocks,
                    down=down,
                    kinds=kinds,
                    side=side,
                    step=steps,
                    margin=margin,
                    shared=shared,
                )
            )
    if not grids:
        raise ArgumentError(
            f"{kinds} kinds of module side by side do not fit into {width:g} inches; choose some "
            "with modules=, or a larger width"
        )
    best = max(grid.side for grid in grids)
    for least in (0.85, 0.5):  # smaller panels only against a figure that is too tall for its width
        chosen = min((g for g in grids if g.side >= least * best), key=lambda g: g.height)
        if chosen.height <= _TOO_TALL * width:
            break
    return chosen


def place_panels(
    figure: Figure, grid: PageLayout, axes: dict[tuple[int, int], Axes], bar: Axes
) -> None:
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
