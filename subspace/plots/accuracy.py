"""Table 6 drawn: accuracy over rank, held-out texts against training texts."""

from __future__ import annotations

import math
from itertools import pairwise
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator

from subspace.errors import ArgumentError
from subspace.plots.gains import blank, quiet
from subspace.plots.heatmap import LABEL_SIZE, TICK_SIZE, TITLE_SIZE
from subspace.plots.names import literal
from subspace.plots.panels import (
    HEAD_SIZE,
    NARROW,
    characters,
    check_width,
    legend_below,
    new_figure,
    wrapped,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from subspace.results import NearlyEnough, SweepRow, Table6

_MOST = 4  # panels on a page
_PANEL = 2.6  # inches: the narrowest that holds a curve, its scale and the references' names
_CROWD = 3  # target sets beyond which single seeds are not drawn
_ASIDE = 5.5  # points between two target sets at one rank
_EDGE = 1.35  # ranks: from the first and the last one to the frame, as a factor
_LEAST = 2.0  # percentage points: the shortest scale
_STRETCH = 2.0  # a reference may make the scale so many times as long as the curves alone do
_NOTES = 8  # lines
# Okabe and Ito's colours, and a shape each: apart for every colour deficiency, and in grey.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_SHAPES = ("o", "s", "D", "^", "v", "P", "X")
_SIZES = (3.8, 3.5, 3.3, 4.0, 4.0, 4.4, 4.4)
_LINE: dict[str, Any] = {"linewidth": 1.1, "markeredgewidth": 0.8}
_TRAIN: dict[str, Any] = {"linestyle": (0, (3, 2)), "markerfacecolor": "white"}
_SEED: dict[str, Any] = {
    "linestyle": "none",
    "marker": "o",
    "markersize": 2.0,
    "alpha": 0.5,
    "markeredgewidth": 0,
}
_RING: dict[str, Any] = {
    "linestyle": "none",
    "marker": "o",
    "markersize": 8.5,
    "markerfacecolor": "none",
    "markeredgewidth": 1.0,
}
_GREY = "#6b6b6b"
_BAND = "#ededed"
_LEVELS: dict[str, Any] = {"full": "-", "head": "-.", "untrained": ":"}
_WORDS = {
    "full": "full: all weights trained",
    "head": "head: the classifier alone trained",
    "untrained": "untrained: under the first, random head",
}
_ENOUGH = (
    "nearly enough: the smallest rank whose mean is within one standard error of the best, "
    "paired over seeds"
)


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
    >>> few = ((0.7, 0.8),) * 4  # two seeds
    >>> rows = [SweepRow("d", "lora", "q+v", r, 16.0, 1e-3, (0, 1), *few, 9) for r in (1, 8)]
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
    sets = tuple(_curves(table.rows))
    across = math.ceil(len(panels) / math.ceil(len(panels) / max(1, int(width / _PANEL))))
    down = math.ceil(len(panels) / across)
    inches = (width / across - 0.8, 2.3 if width >= NARROW else 1.9)
    columns = 1 if width < NARROW else 2
    fits = characters(width / columns - 0.55, TICK_SIZE)
    handles = _handles(table, panels.values(), sets, fits, columns)
    notes = wrapped(_note(panels, sets), characters(width - 0.3, TICK_SIZE))
    title = _title(table.rows, characters(width - 0.2, HEAD_SIZE))
    lines = title.count("\n") + notes.count("\n") + _height(handles, columns)
    figure = new_figure(width, down * (inches[1] + 0.35) + 0.5 + 0.125 * lines)
    figure.suptitle(title, fontsize=HEAD_SIZE, usetex=False)
    spec = figure.add_gridspec(down, across)
    for n, (data, rows) in enumerate(panels.items()):
        ax = figure.add_subplot(spec[n // across, n % across])
        accuracy(rows, ax=ax, nearly_enough=table.nearly_enough, sets=sets, inches=inches)
        fits = characters(inches[0] + 0.3, TITLE_SIZE)
        ax.set_title(literal(data, fits), fontsize=TITLE_SIZE, pad=4, usetex=False)
        if n % across:  # at the left
            ax.set_ylabel("")
        if n + across < len(panels):
            ax.set_xlabel("")
    legend_below(figure, handles, note=notes, columns=columns)
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
    >>> seeds = (0, 1), (0.70, 0.74), (0.7, 0.7), (0.9, 0.9), (0.1, 0.1)
    >>> row = SweepRow("d", "lora", "query", 8, 16.0, 1e-3, *seeds, 9)
    >>> ax = accuracy([row], ax=Figure().add_subplot())
    >>> {line.get_label(): line.get_ydata().round(1).tolist() for line in ax.lines[:2]}
    {'_train': [90.0], '_test': [72.0]}
    """
    if len({row.data for row in rows}) != 1:
        raise ArgumentError(
            f"a panel is of one data set, got {len({row.data for row in rows})}; "
            "draw each into its own ax"
        )
    curves = _curves(rows)
    sets = tuple(dict.fromkeys((*sets, *curves)))
    _check_sets(sets)
    low, high = _limits(rows)
    if not low < high:
        return blank(ax, "no run ended")
    ranks = sorted({rank for curve in curves.values() for rank in curve})
    rings = {f.targets: f.rank for f in nearly_enough if f.data == rows[0].data}
    for targets, curve in curves.items():
        k = sets.index(targets)
        step = _step(ranks, len(sets), inches[0])
        at = [rank * 2 ** (step * (k - (len(sets) - 1) / 2)) for rank in ranks]
        _draw([curve.get(rank) for rank in ranks], at, ax=ax, style=_style(k))
        if len(sets) <= _CROWD:
            _draw_seeds([curve.get(rank) for rank in ranks], at, ax, step, _COLOURS[k])
        if (ring := rings.get(targets)) in curve and curve[ring].test:
            style = {"color": _COLOURS[k], "label": "_enough", "zorder": 4}
            ax.plot([at[ranks.index(ring)]], [100 * curve[ring].mean], **_RING | style)
    _draw_levels(rows, ax, (low, high), gap=1.3 * TICK_SIZE / 72 / inches[1])
    _rank_scale(ax, ranks, inches[0])
    ax.set_ylim(low, high)
    levels = MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(low, high)
    ax.set_yticks([level for level in levels if low <= level <= min(high, 100)])
    ax.set_xlabel("rank r", fontsize=LABEL_SIZE, labelpad=2, usetex=False)
    ax.set_ylabel("accuracy (%)", fontsize=LABEL_SIZE, labelpad=2, usetex=False)
    quiet(ax)
    return ax


def _curves(rows: Sequence[SweepRow]) -> dict[str, dict[int, SweepRow]]:
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
    _check_sets(tuple(curves))
    return curves


def _check_sets(sets: Sequence[str]) -> None:
    if len(sets) > len(_COLOURS):
        raise ArgumentError(
            f"this figure shows 1 to {len(_COLOURS)} target sets, got {len(sets)}; "
            "draw a Table6 of the rows of some of them"
        )


def _style(k: int) -> dict[str, Any]:
    return {"color": _COLOURS[k], "marker": _SHAPES[k], "markersize": _SIZES[k], **_LINE}


def _step(ranks: Sequence[int], count: int, inches: float) -> float:
    """Return the octaves between `count` target sets at one rank."""
    nearest = min((math.log2(b / a) for a, b in pairwise(ranks)), default=1.0)
    return min(_ASIDE / _octave(ranks, inches), 0.5 * nearest / count)


def _octave(ranks: Sequence[int], inches: float) -> float:
    """Return the points from a rank to its double."""
    return 72 * inches / math.log2(_EDGE**2 * ranks[-1] / ranks[0])


def _percent(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and standard deviation in percent; NaN where there are too few, or one is NaN."""
    if not values or not all(map(math.isfinite, values)):
        return math.nan, math.nan
    percent = [100 * value for value in values]
    return mean(percent), stdev(percent) if len(percent) > 1 else math.nan


def _draw(
    curve: Sequence[SweepRow | None],
    at: Sequence[float],
    *,
    ax: Axes,
    style: Mapping[str, Any],
) -> None:
    train = [_percent(row.train if row else ())[0] for row in curve]
    means, spreads = zip(*(_percent(row.test if row else ()) for row in curve), strict=True)
    for numbers, label, how in ((train, "_train", _TRAIN), (means, "_test", {})):
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
        ax.plot(*zip(*seeds, strict=True), color=colour, label="_seeds", zorder=2, **_SEED)


def _levels(rows: Sequence[SweepRow]) -> dict[str, tuple[float, float]]:
    """Return what needs no rank, mean and standard deviation: references, the untrained model."""
    levels = {row.method: _percent(row.test) for row in rows if row.rank is None}
    before = [value for row in rows for value in row.before]
    levels["untrained"] = (_percent(before)[0], math.nan)
    return {name: level for name, level in levels.items() if math.isfinite(level[0])}


def _limits(rows: Sequence[SweepRow]) -> tuple[float, float]:
    """Return a scale that holds all curves, and the references unless they would crush them."""
    curves = [row for row in rows if row.rank is not None]
    seen = [_percent(row.train)[0] for row in curves]
    for row in curves:
        level, spread = _percent(row.test)
        seen += [level, level - spread, level + spread, *(100 * value for value in row.test)]
    seen = [number for number in seen if math.isfinite(number)]
    levels = [level for name, (level, _) in _levels(rows).items() if name != "untrained"]
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


def _inside(rows: Sequence[SweepRow]) -> dict[str, tuple[float, float]]:
    """Return the levels that the scale reaches."""
    low, high = _limits(rows)
    return {name: level for name, level in _levels(rows).items() if low < level[0] < high}


def _draw_levels(
    rows: Sequence[SweepRow], ax: Axes, limits: tuple[float, float], gap: float
) -> None:
    low, high = limits
    inside = sorted((y, name, spread) for name, (y, spread) in _inside(rows).items())
    for y, name, spread in inside:
        ax.axhline(y, label=f"_{name}", zorder=1, **_level(name))
        if math.isfinite(spread):
            ax.axhspan(
                y - spread, y + spread, facecolor=_BAND, linewidth=0, label="_spread", zorder=0.5
            )
    # Names are pushed apart where the lines are closer than letters are high.
    heights = [y for y, *_ in inside]
    up, down = list(heights), list(heights)
    for n in range(1, len(heights)):
        up[n] = max(up[n], up[n - 1] + gap * (high - low))
        down[-n - 1] = min(down[-n - 1], down[-n] - gap * (high - low))
    for a, b, (_, name, _) in zip(up, down, inside, strict=True):
        ax.text(
            1.012,
            (a + b) / 2,
            literal(name, 16),
            transform=ax.get_yaxis_transform(),
            va="center",
            color=_GREY,
            fontsize=TICK_SIZE,
            usetex=False,
        )


def _level(name: str) -> dict[str, Any]:
    return {"linestyle": _LEVELS.get(name, "--"), "color": _GREY, "linewidth": 0.9}


def _rank_scale(ax: Axes, ranks: Sequence[int], inches: float) -> None:
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


def _title(rows: Sequence[SweepRow], fits: int) -> str:
    """Say what is drawn, alpha, and what the bars are."""
    counts = [len(row.test) for row in rows if row.test]
    first = f"Accuracy over rank: test against training texts; {_alpha(rows)}"
    least, most = min(counts, default=0), max(counts, default=0)
    if most > 1:
        over = f"{most}" if least == most else f"{least} to {most}"
        second = f"mean ± one standard deviation over {over}_seeds".replace(
            "_", "\N{NO-BREAK SPACE}"
        )
    else:
        second = "one seed" if most else "no run ended"
    return f"{wrapped(first, fits)}\n{wrapped(second, fits)}"


def _alpha(rows: Sequence[SweepRow]) -> str:
    pairs = [(row.alpha, row.rank) for row in rows if row.alpha is not None and row.rank]
    alphas = sorted({alpha for alpha, _ in pairs})
    if not alphas:
        return "no LoRA run"
    if len(alphas) == 1:
        words = f"alpha_{alphas[0]:g} at every rank"
    elif len({alpha / rank for alpha, rank in pairs}) == 1:
        words = f"alpha_=_{pairs[0][0] / pairs[0][1]:g}r"
    else:
        words = f"alpha_{alphas[0]:g} to {alphas[-1]:g}"
    return words.replace("_", "\N{NO-BREAK SPACE}")


def _words(targets: str) -> str:
    return ", ".join(targets.split("+"))


def _note(panels: Mapping[str, Sequence[SweepRow]], sets: Sequence[str]) -> str:
    """Say what is missing, what has one seed, and what lies off the scale."""
    counts = {len(row.test) for rows in panels.values() for row in rows if row.test}
    said = []
    if counts == {1}:
        said.append("One seed: no bars, and it does not tell which rank is nearly enough.")
    for data, rows in panels.items():
        place = f"{literal(data, 24)}, " if len(panels) > 1 else ""
        lacks = _lacks(rows, sets, several=counts != {1})
        said += [f"{place}{name}: {'; '.join(words)}" for name, words in lacks.items() if words]
        levels, inside = _levels(rows).items(), _inside(rows)
        if off := [f"{literal(k, 16)} {v:.1f}_%" for k, (v, _) in levels if k not in inside]:
            words = ", ".join(off).replace("_%", "\N{NO-BREAK SPACE}%")
            said.append(f"{place}off the scale: {words}")
    if len(said) > _NOTES:
        said[_NOTES - 1 :] = [f"and {len(said) - _NOTES + 1} more such lines"]
    return "\n".join(said)


def _lacks(rows: Sequence[SweepRow], sets: Sequence[str], *, several: bool) -> dict[str, list[str]]:
    """Say, of each target set and reference, where a run or a bar is missing."""
    curves = _curves(rows)
    ranks = sorted({rank for curve in curves.values() for rank in curve})
    found = {}
    for targets in (each for each in sets if each in curves):
        groups: dict[str, list[str]] = {}
        for rank in ranks:
            groups.setdefault(_lack(curves[targets].get(rank), several), []).append(str(rank))
        said = [f"{words}: r = {', '.join(at)}" for words, at in groups.items() if words]
        found[literal(_words(targets), 48)] = said
    for row in (row for row in rows if row.rank is None):
        found[literal(row.method, 16)] = [words] if (words := _lack(row, several)) else []
    return found


def _lack(row: SweepRow | None, several: bool) -> str:
    if row is None:
        return "not run"
    if not row.test:
        return "failed"
    if row.failed:
        return f"a run failed, {len(row.test)} seed{'s' * (len(row.test) > 1)} left"
    return "one seed, no bar" if several and len(row.test) == 1 else ""


def _handles(
    table: Table6,
    panels: Iterable[Sequence[SweepRow]],
    sets: Sequence[str],
    fits: int,
    columns: int,
) -> list[Line2D]:
    """Return the legend: one column of target sets, one of what lines and marks mean."""
    rows = [row for row in table if row.rank is not None]
    many = any(len(row.test) > 1 for row in rows)
    black = {"color": "black", "marker": "o", "markersize": 3.8, **_LINE}
    kinds: list[tuple[str, dict[str, Any]]] = []
    if any(row.test for row in rows):
        kinds.append(("test texts" + many * ", mean ± one standard deviation", black))
    if any(math.isfinite(_percent(row.train)[0]) for row in rows):
        kinds.append(("training texts" + many * ", mean", black | _TRAIN))
    if many and len(sets) <= _CROWD:
        kinds.append(("test texts, each seed", {"color": "black", **_SEED}))
    if any(found.rank is not None for found in table.nearly_enough):
        kinds.append((_ENOUGH, {"color": "black", **_RING}))
    levels = [(name, spread) for held in panels for name, (_, spread) in _inside(held).items()]
    kinds += [(_WORDS[name], _level(name)) for name in _WORDS if name in dict(levels)]
    if any(math.isfinite(spread) for _, spread in levels):
        band = {"color": _BAND, "linewidth": 3.5}
        kinds.append(("± one standard deviation of these", band))
    names = [
        Line2D([], [], label=literal(_words(targets), fits), **_style(k))
        for k, targets in enumerate(sets)
    ]
    marks = [Line2D([], [], label=wrapped(label, fits), **style) for label, style in kinds]
    if columns == 1:
        return [*names, *marks]
    length = max(len(names), len(marks))
    empty = [Line2D([], [], linestyle="none", label="") for _ in range(length)]
    return [*(names + empty)[:length], *(marks + empty)[:length]]


def _height(handles: Sequence[Line2D], columns: int) -> int:
    """Return the lines of text of a legend."""
    length = math.ceil(len(handles) / columns)
    labels = [str(handle.get_label()) for handle in handles]
    return max(
        (
            sum(x.count("\n") + 1 for x in labels[k : k + length])
            for k in range(0, len(labels), length or 1)
        ),
        default=0,
    )
