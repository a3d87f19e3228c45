"""What W has along each direction of an update, what the update adds, and what becomes of it."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING, Any

from matplotlib.patches import Patch

from subspace.errors import ArgumentError
from subspace.plots.parts.amplification_rows import describe_source, rows_by_module
from subspace.plots.parts.colours import DELTA_COLOUR, SUM_COLOUR, W_COLOUR
from subspace.plots.parts.names import chosen, literal, module_label
from subspace.plots.parts.page import (
    HEAD_SIZE,
    LABEL_SIZE,
    NARROW,
    TICK_SIZE,
    add_legend_below,
    characters,
    check_width,
    log_ticks,
    new_figure,
    style_axes,
    wrap,
    write_undefined,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from subspace.results import Amplification, DirectionGain, ModuleAmplification

_LABELS = ("W: |w_k|", "ΔW: σ_k", "W + ΔW: |w_k + σ_k|")
# W's bar where w_k < 0.
_AGAINST: dict[str, Any] = {"hatch": "//////", "edgecolor": "white", "linewidth": 0.0}
_AGAINST_LABEL = "the same, w_k < 0: against ΔW"
_CANCELLED = 0.1  # of W: less is left
_BAR = 0.27  # of a direction's height
_LOG_FROM = 30  # the shortest bar would be under a thirtieth of the longest
_TICKS = 6  # of a log scale at most: they fit into one column of a page
_MOST = 32  # directions on a page


def gains_figure(
    result: Amplification, *, module: str | None = None, most: int = 8, width: float = 7.0
) -> Figure:
    """Draw what one module's update does to W, direction by direction.

    After Hu et al. 2021, arXiv:2106.09685, section 7.3: the update amplifies directions that W
    has but does not emphasise. Of a module with several ranks the largest one is drawn: the
    directions of the others are its first ones.

    Parameters
    ----------
    result
        Table 7 of one adapter.
    module
        A module path. Default: the query of the middle layer, else the middle layer's first.
    most
        Draw the leading directions up to this many, 1 to 32.
    width
        In inches.

    Returns
    -------
    Figure
        Of matplotlib, outside pyplot; write it with `subspace.plots.save.save`.

    Raises
    ------
    UnknownModuleError
        The module is not in `result`, or it has none.
    ArgumentError
        `most` is not between 1 and 32, or no page has this width.
    """
    check_width(width)
    _check_most(most)
    have = rows_by_module(result)
    row = have[chosen(have, module, most=1)[0]][-1]
    count = min(most, len(row.directions))
    note = "\n".join(filter(None, (_explain(row.directions[:count]), literal(row.note, 200))))
    lines = wrap(note, characters(width - 0.3, TICK_SIZE)).count("\n") + 1
    figure = new_figure(width, 1.25 + 0.4 * max(2, count) + 0.12 * (lines + 3 * (width < NARROW)))
    ax = gains(row, ax=figure.add_subplot(), most=most)
    fits = characters(width - 0.2, HEAD_SIZE)
    shown = f", {count} of {row.rank} directions" if count < row.rank and count else ""
    words = f", rank {row.rank}{shown}".replace("rank ", "rank\N{NO-BREAK SPACE}")
    first = module_label(row.module, max(16, fits - len(words))) + words
    title = "\n".join(textwrap.wrap(first, fits, break_on_hyphens=False))
    figure.suptitle(f"{title}\n{describe_source(result, fits)}", fontsize=HEAD_SIZE, usetex=False)
    handles: list[Artist] = []
    if count:
        line, w, *others = ax.get_legend_handles_labels()[0]
        against = Patch(facecolor=W_COLOUR, label=_AGAINST_LABEL, **_AGAINST)
        handles = [w, *[against] * any(map(_against, row.directions[:count])), *others, line]
    add_legend_below(
        figure, handles, note=note if count else "", columns=1 if width < NARROW else 3
    )
    return figure


def gains(row: ModuleAmplification, *, ax: Axes, most: int = 8) -> Axes:
    """Draw |w_k|, sigma_k and |w_k + sigma_k| of the leading directions, 1 on top.

    With u_k, v_k the singular vectors of delta W, W has w_k = u_k^T W v_k along them, and the
    update adds sigma_k (Hu et al. 2021, section 7.3). An undefined size is NaN, which draws no bar.
    The scale is logarithmic where the shortest bar would vanish beside the longest. W's bar is
    striped where w_k is negative: there W and the update have opposite signs.

    Parameters
    ----------
    row
        One module at one rank.
    ax
        What is drawn into, and returned.
    most
        Draw at most so many directions, 1 to 32.

    Returns
    -------
    Axes
        `ax`. Its bar containers hold the three sizes, its texts what became of each direction.

    Raises
    ------
    ArgumentError
        `most` is not between 1 and 32.

    Examples
    --------
    >>> from dataclasses import fields
    >>> from matplotlib.figure import Figure
    >>> from subspace.results import DirectionGain, ModuleAmplification
    >>> nan, one = float("nan"), DirectionGain(sigma=19.0, w=1.0, ratio=19.0, gain=20.0)
    >>> values = dict.fromkeys((f.name for f in fields(ModuleAmplification)), nan)
    >>> values |= {"module": "q", "rank": 1, "shape": (4, 4), "null_drawn": False, "note": ""}
    >>> row = ModuleAmplification(**values | {"null_w": 0.5, "directions": (one,)})
    >>> ax = gains(row, ax=Figure().add_subplot())
    >>> [float(bars[0].get_width()) for bars in ax.containers], ax.texts[0].get_text()
    ([1.0, 19.0, 20.0], 'amplified 20×')
    """
    _check_most(most)
    directions = row.directions[:most]
    if not directions:
        return write_undefined(ax, row.note)
    columns = zip(*(_sizes(d) for d in directions), strict=True)
    styles = ((W_COLOUR, W_COLOUR), (DELTA_COLOUR, DELTA_COLOUR), (SUM_COLOUR, "black"))
    seen = [row.null_w]
    for n, (column, label, (face, edge)) in enumerate(zip(columns, _LABELS, styles, strict=True)):
        places = [k + (n - 1) * _BAR for k in range(1, len(column) + 1)]
        ax.barh(places, column, _BAR, label=label, color=face, edgecolor=edge, linewidth=0.6)
        seen += column
    for direction, bar in zip(directions, ax.containers[0], strict=True):
        if _against(direction):
            bar.set(**_AGAINST)
    ax.axvline(
        row.null_w,
        color="black",
        linestyle=(0, (3, 2)),
        linewidth=0.9,
        label=f"|w| of a random direction: {row.null_w:.2g}",
    )
    _scale(ax, [size for size in seen if size > 0])
    for k, direction in enumerate(directions, 1):
        ax.text(
            1.015,
            k,
            effect(direction),
            transform=ax.get_yaxis_transform(),
            va="center",
            fontsize=TICK_SIZE,
            usetex=False,
        )
    count = len(directions)
    ax.set_ylim(count + 0.55, 0.45)
    ax.set_yticks(range(1, count + 1))
    ax.set_ylabel("direction k of ΔW", fontsize=LABEL_SIZE, labelpad=2, usetex=False)
    scale = " (log scale)" if ax.get_xscale() == "log" else ""
    ax.set_xlabel(f"projection on u_k, v_k{scale}", fontsize=LABEL_SIZE, labelpad=2, usetex=False)
    style_axes(ax)
    return ax


def effect(direction: DirectionGain) -> str:
    """Say in words what the update does to W along one direction.

    >>> from subspace.results import DirectionGain
    >>> [effect(DirectionGain(sigma=3.0, w=w, ratio=3 / abs(w), gain=1 + 3 / w))
    ...  for w in (0.5, -0.5, -4.0)]
    ['amplified 7×', 'reversed, 5×', 'damped to 0.25×']
    """
    gain = direction.gain
    if gain is None:
        return "undefined"
    size = abs(gain)
    words = f"{size:.3g}×" if size < 1000 else f"{size:,.0f}×" if size < 1e5 else f"{size:.1e}×"
    if gain < 0:
        return f"reversed, {words}"
    return f"{'amplified' if gain >= 1 else 'damped to'} {words}"


def _against(direction: DirectionGain) -> bool:
    """Whether W's component and the update's have opposite signs: sigma_k is never negative."""
    return direction.w is not None and direction.w < 0


def _explain(directions: Sequence[DirectionGain]) -> str:
    """Say what the words beside the bars mean, as far as they occur."""
    factors = [direction.gain for direction in directions if direction.gain is not None]
    sentences = ["Beside the bars: |w_k + σ_k| / |w_k|."] if factors else []
    if any(gain < 0 for gain in factors):
        sentences.append(
            "Reversed: w_k and σ_k have opposite signs and σ_k is the larger; W + ΔW has ΔW's sign."
        )
    if any(0 <= gain < 1 for gain in factors):
        sentences.append("Damped: opposite signs, and w_k is the larger.")
    if any(abs(gain) < _CANCELLED for gain in factors):
        sentences.append("Near 0×: W and ΔW cancel.")
    return "\n".join(sentences)


def _sizes(direction: DirectionGain) -> tuple[float, float, float]:
    w = math.nan if direction.w is None else direction.w
    return abs(w), direction.sigma, abs(w + direction.sigma)


def _scale(ax: Axes, sizes: list[float]) -> None:
    low, high = min(sizes, default=1.0), max(sizes, default=1.0)
    if high > _LOG_FROM * low:
        ax.set_xscale("log")
        ax.set_xlim(low / 2, high * 1.3)
        levels = log_ticks(low / 2, high * 1.3)
        levels = levels[:: math.ceil(len(levels) / _TICKS)]
        ax.set_xticks(levels, [f"{level:g}" for level in levels])
    else:
        ax.set_xlim(0, high * 1.08)


def _check_most(most: int) -> None:
    if not 1 <= most <= _MOST:
        raise ArgumentError(f"most = {most!r}: this figure shows 1 to {_MOST} directions")
