"""What Table 6's figure draws: the curves and levels of its panels, their scales, their looks."""

from __future__ import annotations

import math
from itertools import pairwise
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from matplotlib.ticker import NullLocator

from subspace.errors import ArgumentError
from subspace.plots.parts.page import TICK_SIZE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from subspace.results import SweepRow

CROWD = 3  # target sets beyond which single seeds are not drawn
_LEAST = 2.0  # percentage points: the shortest scale
_STRETCH = 2.0  # a reference may make the scale so many times as long as the curves alone do
_ASIDE = 5.5  # points between two target sets at one rank
_EDGE = 1.35  # ranks: from the first and the last one to the frame, as a factor
# Okabe and Ito's colours, and a shape each: apart for every colour deficiency, and in grey.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_SHAPES = ("o", "s", "D", "^", "v", "P", "X")
_SIZES = (3.8, 3.5, 3.3, 4.0, 4.0, 4.4, 4.4)
LINE: dict[str, Any] = {"linewidth": 1.1, "markeredgewidth": 0.8}
TRAIN: dict[str, Any] = {"linestyle": (0, (3, 2)), "markerfacecolor": "white"}
SEED: dict[str, Any] = {
    "linestyle": "none",
    "marker": "o",
    "markersize": 2.0,
    "alpha": 0.5,
    "markeredgewidth": 0,
}
RING: dict[str, Any] = {
    "linestyle": "none",
    "marker": "o",
    "markersize": 8.5,
    "markerfacecolor": "none",
    "markeredgewidth": 1.0,
}
GREY = "#6b6b6b"
BAND = "#ededed"
_LEVELS: dict[str, Any] = {"full": "-", "head": "-.", "untrained": ":"}


def target_curves(rows: Sequence[SweepRow]) -> dict[str, dict[int, SweepRow]]:
    """Return the rows of every target set by their rank."""
    curves: dict[str, dict[int, SweepRow]] = {}
    seen = set()
    for row in rows:
        key = (row.data, row.method, row.targets, row.rank)
        if key in seen:
            raise ArgumentError(
                f"two rows of {row.data!r} are of {row.targets or row.method}, rank {row.rank}: "
                "data sets of one name cannot be told apart; rename one"
            )
        seen.add(key)
        if row.rank is not None:
            curves.setdefault(row.targets, {})[row.rank] = row
    check_sets(tuple(curves))
    return curves


def check_sets(sets: Sequence[str]) -> None:
    """Raise where there are more target sets than colours."""
    if len(sets) > len(COLOURS):
        raise ArgumentError(
            f"this figure shows 1 to {len(COLOURS)} target sets, got {len(sets)}; "
            "draw a Table6 of the rows of some of them"
        )


def in_percent(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and standard deviation in percent; NaN where there are too few, or one is NaN."""
    if not values or not all(map(math.isfinite, values)):
        return math.nan, math.nan
    percent = [100 * value for value in values]
    return mean(percent), stdev(percent) if len(percent) > 1 else math.nan


def reference_levels(rows: Sequence[SweepRow]) -> dict[str, tuple[float, float]]:
    """Return what needs no rank, mean and standard deviation: references, the untrained model."""
    levels: dict[str, tuple[float, float]]
    levels = {row.method: in_percent(row.test) for row in rows if row.rank is None}
    before = [value for row in rows for value in row.before]
    levels["untrained"] = (in_percent(before)[0], math.nan)
    return {name: level for name, level in levels.items() if math.isfinite(level[0])}


def scale_limits(rows: Sequence[SweepRow]) -> tuple[float, float]:
    """Return a scale that holds all curves, and the references unless they would crush them."""
    curves = [row for row in rows if row.rank is not None]
    seen = [in_percent(row.train)[0] for row in curves]
    for row in curves:
        level, spread = in_percent(row.test)
        seen += [level, level - spread, level + spread, *(100 * value for value in row.test)]
    seen = [number for number in seen if math.isfinite(number)]
    levels = [level for name, (level, _) in reference_levels(rows).items() if name != "untrained"]
    seen = seen or levels
    if not seen:
        return math.nan, math.nan
    low, high = min(seen), max(seen)
    room = _STRETCH * max(high - low, _LEAST)
    for level in sorted(levels, key=lambda x: max(low - x, x - high)):
        if max(high, level) - min(low, level) <= room:
            low, high = min(low, level), max(high, level)
    pad = max(0.08 * (high - low), (_LEAST - (high - low)) / 2)
    return low - pad, high + pad


def levels_inside(rows: Sequence[SweepRow]) -> dict[str, tuple[float, float]]:
    """Return the levels that the scale reaches."""
    low, high = scale_limits(rows)
    return {name: level for name, level in reference_levels(rows).items() if low < level[0] < high}


def apart(heights: Sequence[float], gap: float) -> list[float]:
    """Return where names stand that are at least `gap` from each other, near ascending heights.

    >>> apart([1.0, 1.5, 9.0], 2.0)
    [0.25, 2.25, 9.0]
    """
    up, down = list(heights), list(heights)
    for n in range(1, len(heights)):
        up[n] = max(up[n], up[n - 1] + gap)
        down[-n - 1] = min(down[-n - 1], down[-n] - gap)
    return [(a + b) / 2 for a, b in zip(up, down, strict=True)]


def octaves_between(ranks: Sequence[int], count: int, inches: float) -> float:
    """Return the octaves between `count` target sets at one rank."""
    nearest = min((math.log2(b / a) for a, b in pairwise(ranks)), default=1.0)
    return min(_ASIDE / _octave(ranks, inches), 0.5 * nearest / count)


def _octave(ranks: Sequence[int], inches: float) -> float:
    """Return the points from a rank to its double."""
    return 72 * inches / math.log2(_EDGE**2 * ranks[-1] / ranks[0])


def rank_axis(ax: Axes, ranks: Sequence[int], inches: float) -> None:
    """Put a tick at every rank that was run, and name those that have the room."""
    if not ranks:
        ax.set_xticks([])
        return
    ax.set_xscale("log", base=2)
    ax.set_xlim(ranks[0] / _EDGE, ranks[-1] * _EDGE)
    names: list[str] = []
    free = -math.inf
    for rank in ranks:
        place = _octave(ranks, inches) * math.log2(rank)
        half = 0.35 * TICK_SIZE * len(str(rank)) + 1
        names.append(str(rank) if place - half >= free else "")
        free = place + half if names[-1] else free
    ax.set_xticks(ranks, names, usetex=False)
    ax.xaxis.set_minor_locator(NullLocator())


def curve_style(k: int) -> dict[str, Any]:
    """Return how the line of target set `k` looks."""
    return {"color": COLOURS[k], "marker": _SHAPES[k], "markersize": _SIZES[k], **LINE}


def level_style(name: str) -> dict[str, Any]:
    """Return how the line of a reference, or of the untrained model, looks."""
    return {"linestyle": _LEVELS.get(name, "--"), "color": GREY, "linewidth": 0.9}
