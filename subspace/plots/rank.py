"""How many directions are real, beside how many were trained: one row a module."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, NullLocator

from subspace.errors import ArgumentError
from subspace.modules.place import place
from subspace.plots.parts.cells import STRIPES, UNDEFINED, UNDEFINED_HATCH
from subspace.plots.parts.names import (
    chosen,
    distinct,
    kind_labels,
    layer_words,
    literal,
    module_label,
)
from subspace.plots.parts.page import (
    EM,
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
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from subspace.results import ModuleRank, Rank

    TitledRows = tuple[str, Mapping[int, ModuleRank]]  # its title, and a module on each row

_MOST = 1000  # rows on a page: a pixel each in print
_ROW = 0.18  # inches: the tallest
_TALLEST = 7.0  # inches of rows on a page
_CROWD = 0.11  # inches: rows below this have small markers
_SOFT = "#e4e4e4"
_NOTE = "Directions are counted from the strongest; 0 to 1 is linear, from 1 on the scale is log."

# Okabe and Ito's colours, and a shape each: apart for every colour deficiency, and in grey.
_BLUE, _ORANGE, _GREEN, _GREY = "#0072b2", "#d55e00", "#009e73", "#8c8c8c"
_MARKS: dict[str, dict[str, Any]] = {
    "nominal": {"marker": "|", "color": _GREY, "markeredgewidth": 1.6, "markersize": 7.0},
    "energy90": {"marker": "s", "color": _ORANGE, "markerfacecolor": "white", "markersize": 4.0},
    "stable": {"marker": "D", "color": _GREEN, "markerfacecolor": "white", "markersize": 3.6},
    "replicable": {"marker": "o", "color": _BLUE, "markersize": 4.4},
}
_SHIFTS = {"energy90": -0.18, "stable": -0.18, "replicable": 0.18}  # of a row
_LABELS = {
    "nominal": "rank trained",
    "energy90": "90 % of the energy of ΔW (median)",
    "stable": "stable rank of ΔW (median)",
    "replicable": "replicable rank: shared by runs (median, range over pairs)",
}
_STRIPED: dict[str, Any] = {
    "facecolor": UNDEFINED,
    "edgecolor": UNDEFINED_HATCH,
    "hatch": STRIPES,
    "linewidth": 0,
}
_WHOLE: dict[str, Any] = {"color": "black", "linestyle": (0, (3, 2)), "linewidth": 0.9}


def rank_figure(
    result: Rank, *, modules: str | Sequence[str] | None = None, width: float = 7.0
) -> Figure:
    """Draw every module's ranks: a panel a kind of module, a row a layer.

    Parameters
    ----------
    result
        The ranks of one or more runs.
    modules
        The module paths to draw; default: all.
    width
        In inches.

    Returns
    -------
    Figure
        Of matplotlib, outside pyplot; write it with `subspace.plots.save.save`.

    Raises
    ------
    UnknownModuleError
        A module is not in `result`, or it has none.
    ArgumentError
        A width that no page has, or more than 1000 rows.
    """
    check_width(width)
    names = chosen(result, list(result) if modules is None else modules, most=10**9)
    panels, rows = _panels({name: result[name] for name in names}, width)
    if len(rows) > _MOST:
        raise ArgumentError(f"{len(rows)} rows are more than the {_MOST} of a page; choose modules")
    margin = max(map(len, rows)) * EM * TICK_SIZE / 72 + 0.2
    across = min(len(panels), max(1, int((width - margin) / (1.5 if width >= NARROW else 1.2))))
    down = math.ceil(len(panels) / across)
    across = math.ceil(len(panels) / down)
    row = min(_ROW, _TALLEST / down / len(rows))
    title = _write_title(result, width)
    notes = wrap(_NOTE, characters(width - 0.3, TICK_SIZE))
    handles = _make_handles(result, [m for _, panel_rows in panels for m in panel_rows.values()])
    columns = 1 if width < NARROW else 2
    lines = title.count("\n") + notes.count("\n") + math.ceil(len(handles) / columns)
    tall = max(0.5, row * len(rows))
    figure = new_figure(width, down * (tall + 0.3) + 0.75 + 0.14 * lines)
    figure.suptitle(title, fontsize=HEAD_SIZE, usetex=False)
    axes = figure.subplots(down, across, squeeze=False, sharex=True).ravel()
    fits = characters((width - margin) / across - 0.1, TITLE_SIZE)
    most = max(_most(m) for _, panel_rows in panels for m in panel_rows.values())
    most_ticks = max(3, int((width - margin) / across / 0.26))
    for n, ax in enumerate(axes):
        if n >= len(panels):
            ax.set_axis_off()
            continue
        head, panel_rows = panels[n]
        rank_rows(
            panel_rows,
            ax=ax,
            rows=rows,
            most=most,
            whole=result.recommended,
            row=row,
            most_ticks=most_ticks,
        )
        ax.set_title(literal(head, fits), fontsize=TITLE_SIZE, pad=3, usetex=False)
        ax.tick_params(labelleft=n % across == 0, labelbottom=True)
        if n + across < len(panels):
            ax.set_xlabel("")
    add_legend_below(figure, handles, note=notes, columns=columns)
    return figure


def rank_rows(
    modules: Mapping[int, ModuleRank],
    *,
    ax: Axes,
    rows: Sequence[str],
    most: int | None = None,
    whole: int | None = None,
    row: float = _ROW,
    most_ticks: int = 9,
) -> Axes:
    """Draw the ranks of one module a row, the first row on top.

    The replicable rank is the number of leading directions on which two runs agree above chance
    (section 7.2 of Hu et al. 2021, arXiv:2106.09685), its median over pairs of runs a dot and its
    range a line; beside it the rank trained, and of delta W the stable rank and the rank that
    holds 90 % of the energy.

    Parameters
    ----------
    modules
        By the row, from 0 on.
    ax
        What is drawn into, and returned.
    rows
        What every row is called.
    most
        Where the scale ends; default: the largest number drawn.
    whole
        A rank to draw a line at, such as the one recommended for all.
    row
        Inches of a row, which settle how large marks are and which rows are named.
    most_ticks
        At most about so many tick labels on the scale.

    Returns
    -------
    Axes
        `ax`. A row is a unit high: what runs share stands in its lower half, the spectrum in its
        upper one, so that equal numbers do not hide each other. Its lines are labelled
        ``_nominal``, ``_energy90``, ``_stable``, ``_replicable`` and, one a row, ``_range``. A row
        without a replicable rank is striped where runs were compared.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from subspace.results import ModuleRank, Spread
    >>> names = "stable entropy participation energy90 energy95 energy99".split()
    >>> m = ModuleRank(
    ...     module="q", d=9, nominal=8, numerical=8, counted=8, agreeing=(2, 3, 3), pairs=3,
    ...     replicable=3, replicable_low=2, replicable_high=3, recommended=3,
    ...     **dict.fromkeys(names, Spread(4.0, 4.0, 4.0)))
    >>> ax = rank_rows({0: m}, ax=Figure().add_subplot(), rows=["layer 0"])
    >>> {line.get_label(): [float(x) for x in line.get_xdata()] for line in ax.lines}["_replicable"]
    [3.0]
    """
    shrink = 1.0 if row >= _CROWD else 0.62
    ys = {at: at + 1 for at in modules}
    for y in ys.values():
        ax.axhline(y, color=_SOFT, linewidth=0.5, label="_row", zorder=0.5)
    for at, m in modules.items():
        if m.replicable is None and m.agreeing:
            ax.axhspan(ys[at] - 0.5, ys[at] + 0.5, label="_undefined", zorder=0, **_STRIPED)
    for at, m in modules.items():
        if m.replicable_low is not None and m.replicable_high is not None:
            ends = [m.replicable_low, m.replicable_high]
            height = [ys[at] + _SHIFTS["replicable"]] * 2
            ax.plot(ends, height, color=_BLUE, lw=2.0 * shrink, label="_range", zorder=2.5)
    for name, style in _MARKS.items():
        points = [
            (value, ys[at] + _SHIFTS.get(name, 0.0))
            for at, m in modules.items()
            if (value := _format_value(m, name)) is not None
        ]
        if points:  # an empty line would upset the layout
            size = style["markersize"] * shrink
            line: dict[str, Any] = {
                "linestyle": "none",
                "label": f"_{name}",
                "zorder": 3,
                "clip_on": False,
            }
            ax.plot(*np.array(points).T, **line | style | {"markersize": size})
    if whole is not None:
        ax.axvline(whole, label="_recommended", zorder=1, **_WHOLE)
    _scale(ax, most or max(map(_most, modules.values()), default=1), most_ticks)
    step = max(1, math.ceil(TICK_SIZE * 1.2 / 72 / row))
    ax.set_ylim(len(rows) + 0.5, 0.5)
    ax.set_yticks(range(1, len(rows) + 1, step), list(rows)[::step], usetex=False)
    ax.set_xlabel("directions", fontsize=LABEL_SIZE, labelpad=2, usetex=False)
    style_axes(ax)
    ax.tick_params(axis="y", length=0, pad=3)
    return ax


def _format_value(m: ModuleRank, name: str) -> float | None:
    """Return what is drawn of a module, None where it is undefined."""
    value = getattr(m, name)
    value = getattr(value, "median", value)
    return None if value is None or math.isnan(value) else float(value)


def _most(m: ModuleRank) -> int:
    """Return the largest number that is drawn of a module."""
    values = (m.replicable_high, _format_value(m, "energy90"), _format_value(m, "stable"))
    return max(m.nominal, *(math.ceil(value) for value in values if value is not None), 1)


def _scale(ax: Axes, most: int, most_ticks: int) -> None:
    """Give counts a scale on which 0 has a place and 1, 2, 4, … stand equally far apart."""
    ax.set_xscale("symlog", base=2, linthresh=1, linscale=0.8)
    ax.set_xlim(-0.35, most * 1.25)
    powers = [2**n for n in range(most.bit_length())]
    powers = powers[:: math.ceil(len(powers) / (most_ticks - 1))]
    ax.xaxis.set_major_locator(FixedLocator([0, *powers]))
    ax.set_xticklabels([str(tick) for tick in (0, *powers)], usetex=False)
    ax.xaxis.set_minor_locator(NullLocator())


def _panels(modules: Mapping[str, ModuleRank], width: float) -> tuple[list[TitledRows], list[str]]:
    """Lay modules out, a panel a kind and a row a layer; without layers all are rows of one."""
    spots = {name: place(name) for name in modules}
    layers = list(dict.fromkeys((s.prefix, s.layer) for s in spots.values()))
    if all(layer is None for _, layer in layers):
        most = characters(0.35 * width, TICK_SIZE)
        rows = [module_label(name, most) for name in modules]
        return [("", dict(enumerate(modules.values())))], rows
    kinds = list(dict.fromkeys(s.kind for s in spots.values()))
    heads, words = kind_labels(kinds), layer_words(layers)
    by_kind: dict[str, dict[int, ModuleRank]] = {kind: {} for kind in kinds}
    for name, m in modules.items():
        by_kind[spots[name].kind][layers.index((spots[name].prefix, spots[name].layer))] = m
    return [(heads[kind], by_kind[kind]) for kind in kinds], list(words.values())


def _write_title(result: Rank, width: float) -> str:
    fits = characters(width - 0.2, HEAD_SIZE)
    names = ", ".join(distinct(result.adapters[:3], max(8, fits // 3)))
    more = len(result.adapters) - 3
    names += f" and {more} more" if more > 0 else ""
    if result.pairs:
        title = f"How many directions are real? Side_{result.side}, level_{result.level:g}"
        title = title.replace("_", "\N{NO-BREAK SPACE}")
    else:
        title = "Ranks of one run's spectrum; a second seed would say which directions are real"
    return f"{wrap(title, fits)}\n{wrap(names, fits)}"


def _make_handles(result: Rank, modules: Sequence[ModuleRank]) -> list[Artist]:
    names = [name for name in reversed(_MARKS) if name != "replicable" or result.pairs]
    handles: list[Artist] = []
    for name in names:
        line: dict[str, Any] = {"linestyle": "-" if name == "replicable" else "none", "lw": 2.0}
        handles.append(Line2D([], [], label=_LABELS[name], **line, **_MARKS[name]))
    if result.recommended is not None:
        label = f"{result.recommended}: enough for nine in ten modules"
        handles.append(Line2D([], [], label=label, **_WHOLE))
    if result.pairs and any(m.replicable is None for m in modules):
        handles.append(Patch(label="no replicable rank: undefined", **_STRIPED))
    return handles
