"""Table 6 drawn: accuracy over rank, held-out texts against training texts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from matplotlib.ticker import MaxNLocator

from subspace.errors import ArgumentError
from subspace.plots.accuracy.curves import (
    BAND,
    COLOURS,
    CROWD,
    GREY,
    RING,
    SEED,
    TRAIN,
    apart,
    check_sets,
    curve_style,
    in_percent,
    level_style,
    levels_inside,
    octaves_between,
    rank_axis,
    scale_limits,
    target_curves,
)
from subspace.plots.accuracy.words import (
    counted_words,
    legend_height,
    legend_lines,
    note_words,
    title_words,
)
from subspace.plots.parts.names import literal
from subspace.plots.parts.page import (
    HEAD_SIZE,
    LABEL_SIZE,
    NARROW,
    TICK_SIZE,
    TITLE_SIZE,
    add_legend_below,
    characters,
    check_width,
    new_figure,
    style_axes,
    wrap,
    write_undefined,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from subspace.results import NearlyEnough, SweepRow, Table6

_MOST = 4  # panels on a page
_PANEL = 2.6  # inches: the narrowest that holds a curve, its scale and the references' names


def accuracy_figure(table: Table6, *, width: float = 7.0) -> Figure:
    """Draw Table 6: accuracy over rank, one panel a data set, one line a set of matrices.

    Hu et al. 2021, arXiv:2106.09685, section 7.2 and Table 6, where rank 1 or 2 is nearly enough.
    The held-out accuracy is that of the test texts, which Table 6 prints and on which no choice
    was made: validation texts chose the learning rate. A training accuracy that goes on rising
    with the rank where the test accuracy does not is over-fitting.

    Parameters
    ----------
    table
        A sweep's summary.
    width
        In inches.

    Returns
    -------
    Figure
        Of matplotlib, outside pyplot; write it with `subspace.plots.save.save`.

    Raises
    ------
    ArgumentError
        No data set or more than four, more than seven target sets, two rows of one name, or a
        width that no page has.

    Examples
    --------
    >>> from subspace.results import SweepRow, Table6
    >>> two = dict.fromkeys(("test", "validation", "train", "before"), (0.7, 0.8))  # two seeds
    >>> rows = [
    ...     SweepRow(data="d", method="lora", targets="q+v", rank=r, alpha=16.0, learning_rate=1e-3,
    ...              seeds=(0, 1), parameters=9, **two)
    ...     for r in (1, 8)]
    >>> figure = accuracy_figure(Table6(tuple(rows), ()))
    >>> figure.axes[0].get_title(), figure.axes[0].get_xticks().tolist()
    ('d', [1, 8])
    """
    check_width(width)
    panels: dict[str, list[SweepRow]] = {}
    for row in table:
        panels.setdefault(row.data, []).append(row)
    if not 1 <= len(panels) <= _MOST:
        raise ArgumentError(
            f"this figure shows 1 to {_MOST} data sets, got {len(panels)}; "
            "draw a Table6 of the rows of some of them"
        )
    sets = tuple(target_curves(table.rows))
    across = math.ceil(len(panels) / math.ceil(len(panels) / max(1, int(width / _PANEL))))
    down = math.ceil(len(panels) / across)
    inches = (width / across - 0.8, 2.3 if width >= NARROW else 1.9)
    columns = 1 if width < NARROW else 2
    fits = characters(width / columns - 0.55, TICK_SIZE)
    handles = legend_lines(table, panels.values(), sets, fits, columns)
    notes = wrap(note_words(panels, sets), characters(width - 0.3, TICK_SIZE))
    title = title_words(table.rows, characters(width - 0.2, HEAD_SIZE))
    lines = title.count("\n") + notes.count("\n") + legend_height(handles, columns)
    figure = new_figure(width, down * (inches[1] + 0.35) + 0.5 + 0.125 * lines)
    figure.suptitle(title, fontsize=HEAD_SIZE, usetex=False)
    spec = figure.add_gridspec(down, across)
    annotated: list[Axes] = []
    for n, (data, rows) in enumerate(panels.items()):
        ax = figure.add_subplot(spec[n // across, n % across])
        accuracy(rows, ax=ax, nearly_enough=table.nearly_enough, sets=sets, inches=inches)
        fits = characters(inches[0] + 0.3, TITLE_SIZE)
        ax.set_title(literal(data, fits), fontsize=TITLE_SIZE, pad=4, usetex=False)
        if n % across and ax.get_ylabel() == figure.axes[n - 1].get_ylabel():
            annotated.append(ax)
        if n + across < len(panels):
            ax.set_xlabel("")
    for ax in annotated:  # at the left of a row once, where its panels count one thing
        ax.set_ylabel("")
    add_legend_below(figure, handles, note=notes, columns=columns)
    return figure


def accuracy(
    rows: Sequence[SweepRow],
    *,
    ax: Axes,
    nearly_enough: Sequence[NearlyEnough] = (),
    sets: Sequence[str] = (),
    inches: tuple[float, float] = (6.0, 2.3),
) -> Axes:
    """Draw the accuracies of one data set over the rank, in percent, on a log2 scale.

    The columns of Table 6 of Hu et al. 2021, arXiv:2106.09685, section 7.2. Target sets stand side
    by side at each rank, so that their bars do not hide each other, and seeds at their right.

    Parameters
    ----------
    rows
        One data set, its references (rank None) among them, in any order.
    ax
        What is drawn into, and returned.
    nearly_enough
        What is ringed, a rank of each target set; of other data sets it is passed over.
    sets
        Target sets in the order of their colours, so that panels share them; others follow.
    inches
        Width and height of `ax`, which settle how many ranks are named and how far apart the names
        of references stand.

    Returns
    -------
    Axes
        `ax`. Of every target set it has a line ``_test`` (mean over seeds), an error bar ``_bars``
        (one standard deviation, ddof 1; none of a single seed), a dashed line ``_train`` of hollow
        marks, dots ``_seeds`` where there are at most three sets, and a ring ``_enough``. A rank
        without a run is a gap. Of every reference it has a line ``_full`` or ``_head`` and its
        name at the right, of the untrained model ``_untrained``, if the scale reaches there.

    Raises
    ------
    ArgumentError
        No row, rows of several data sets, two of one name, or more than seven target sets.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from subspace.results import SweepRow
    >>> row = SweepRow(
    ...     data="d", method="lora", targets="query", rank=8, alpha=16.0, learning_rate=1e-3,
    ...     seeds=(0, 1), test=(0.70, 0.74), validation=(0.7, 0.7), train=(0.9, 0.9),
    ...     before=(0.1, 0.1), parameters=9)
    >>> ax = accuracy([row], ax=Figure().add_subplot())
    >>> {line.get_label(): line.get_ydata().round(1).tolist() for line in ax.lines[:2]}
    {'_train': [90.0], '_test': [72.0]}
    """
    if len({row.data for row in rows}) != 1:
        raise ArgumentError(
            f"a panel is of one data set, got {len({row.data for row in rows})}; "
            "draw each into its own ax"
        )
    curves = target_curves(rows)
    sets = tuple(dict.fromkeys((*sets, *curves)))
    check_sets(sets)
    low, high = scale_limits(rows)
    if not low < high:
        return write_undefined(ax, "no run ended")
    ranks = sorted({rank for curve in curves.values() for rank in curve})
    rings = {f.targets: f.rank for f in nearly_enough if f.data == rows[0].data}
    for targets, curve in curves.items():
        k = sets.index(targets)
        step = octaves_between(ranks, len(sets), inches[0])
        # Beside those that this panel has: one alone stands at its rank.
        beside = sum(other in curves for other in sets[:k]) - (len(curves) - 1) / 2
        at = [rank * 2 ** (step * beside) for rank in ranks]
        _draw([curve.get(rank) for rank in ranks], at, ax=ax, style=curve_style(k))
        if len(sets) <= CROWD:
            _draw_seeds([curve.get(rank) for rank in ranks], at, ax, step, COLOURS[k])
        if (ring := rings.get(targets)) in curve and curve[ring].test:
            style = {"color": COLOURS[k], "label": "_enough", "zorder": 4}
            ax.plot([at[ranks.index(ring)]], [100 * curve[ring].mean], **RING | style)
    _draw_levels(rows, ax, (low, high), gap=1.3 * TICK_SIZE / 72 / inches[1])
    rank_axis(ax, ranks, inches[0])
    ax.set_ylim(low, high)
    levels = MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(low, high)
    ax.set_yticks([level for level in levels if low <= level <= min(high, 100)])
    ax.set_xlabel("rank r", fontsize=LABEL_SIZE, labelpad=2, usetex=False)
    words = f"{counted_words(rows)} (%)"
    ax.set_ylabel(words, fontsize=LABEL_SIZE, labelpad=2, usetex=False)
    style_axes(ax)
    return ax


def _draw(
    curve: Sequence[SweepRow | None],
    at: Sequence[float],
    *,
    ax: Axes,
    style: Mapping[str, Any],
) -> None:
    train = [in_percent(row.train if row else ())[0] for row in curve]
    means, spreads = zip(*(in_percent(row.test if row else ()) for row in curve), strict=True)
    for numbers, label, how in ((train, "_train", TRAIN), (means, "_test", {})):
        if any(map(math.isfinite, numbers)):  # an empty line would upset the layout
            order = {"label": label, "zorder": 2.5 if how else 3}
            ax.plot(at, numbers, **{**style, **how, **order})
    bars = [(x, y, s) for x, y, s in zip(at, means, spreads, strict=True) if math.isfinite(s)]
    if bars:
        x, y, s = zip(*bars, strict=True)
        ax.errorbar(
            x, y, yerr=s, fmt="none", ecolor=style["color"], elinewidth=0.9, capsize=1.8,
            capthick=0.9, label="_bars", zorder=2.8,
        )  # fmt: skip


def _draw_seeds(
    curve: Sequence[SweepRow | None], at: Sequence[float], ax: Axes, step: float, colour: str
) -> None:
    seeds = [
        (x * 2 ** (step / 2), 100 * y)
        for x, row in zip(at, curve, strict=True)
        if row is not None and len(row.test) > 1
        for y in row.test
    ]
    if seeds:
        ax.plot(*zip(*seeds, strict=True), color=colour, label="_seeds", zorder=2, **SEED)


def _draw_levels(
    rows: Sequence[SweepRow], ax: Axes, limits: tuple[float, float], gap: float
) -> None:
    low, high = limits
    inside = sorted((y, name, spread) for name, (y, spread) in levels_inside(rows).items())
    for y, name, spread in inside:
        ax.axhline(y, label=f"_{name}", zorder=1, **level_style(name))
        if math.isfinite(spread):
            ax.axhspan(
                y - spread, y + spread, facecolor=BAND, linewidth=0, label="_spread", zorder=0.5
            )
    # Names are pushed apart where the lines are closer than letters are high.
    heights = apart([y for y, *_ in inside], gap * (high - low))
    for height, (_, name, _) in zip(heights, inside, strict=True):
        ax.text(
            1.012,
            height,
            literal(name, 16),
            transform=ax.get_yaxis_transform(),
            va="center",
            color=GREY,
            fontsize=TICK_SIZE,
            usetex=False,
        )
