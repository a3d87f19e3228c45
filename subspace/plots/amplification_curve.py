"""How the amplification factor falls with the rank k, beside the null at every k."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator

from subspace.errors import ArgumentError
from subspace.plots.parts.amplification_grid import TITLES, check_value
from subspace.plots.parts.amplification_rows import describe_source, rows_by_module
from subspace.plots.parts.colours import W_COLOUR
from subspace.plots.parts.names import chosen, literal, module_label
from subspace.plots.parts.page import (
    HEAD_SIZE,
    LABEL_SIZE,
    NARROW,
    TITLE_SIZE,
    add_legend_below,
    characters,
    check_width,
    log_ticks,
    new_figure,
    style_axes,
    ticks,
    wrap,
    write_undefined,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from subspace.plots.parts.amplification_grid import Value
    from subspace.results import Amplification, ModuleAmplification

_BAND = "#d9d9d9"
_LOG_FROM = 16  # the largest rank is so many times the smallest: k on a log2 scale
_MOST = 12  # panels on a page
_CROWD = 16  # points from which on markers are small
_LEADING = "leading k directions".replace(" ", "\N{NO-BREAK SPACE}")
_WORDS: dict[Value, str] = {
    "factor": "Below the band the update meets more of W than chance does, above it less.",
    "null_ratio": "Above the band the update meets more of W than chance does, below it less.",
}
_ALONE = "The band is of each k by itself, uncorrected."
_CHANCE: dict[str, Any] = {"color": "black", "linestyle": (0, (3, 2)), "linewidth": 0.9}


def curve_figure(
    result: Amplification,
    *,
    modules: str | Sequence[str] | None = None,
    value: Value = "factor",
    width: float = 7.0,
) -> Figure:
    """Draw factor(k) over k = 1 ... r, one panel a module, on one scale, with its chance.

    Hu et al. 2021, arXiv:2106.09685, section 7.3 and Table 7, where the factor falls from 21.5
    at r = 4 to 1.9 at r = 64; chance falls as well, and that is why it is drawn.

    Parameters
    ----------
    result
        Table 7 of one adapter at several ranks.
    modules
        One to twelve module paths. Default: query and value of the middle layer.
    value
        ``"factor"``, or ``"null_ratio"``: chance's factor over it, which keeps a large r readable.
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
        The result has one rank a module, another value, more than twelve modules, or a width that
        no page has.

    Examples
    --------
    >>> from dataclasses import fields
    >>> from subspace.results import Amplification, ModuleAmplification
    >>> ones = dict.fromkeys((f.name for f in fields(ModuleAmplification)), 1.0)
    >>> ones |= {"module": "q", "shape": (4, 4), "directions": (), "note": ""}
    >>> rows = [ModuleAmplification(**ones | {"rank": k}) for k in (1, 2)]
    >>> table7 = Amplification(
    ...     adapter="r2", base="toy", scaled=True, seed=0, rows=tuple(rows))
    >>> figure = curve_figure(table7)
    >>> [ax.get_title() for ax in figure.axes]
    ['q']
    """
    check_width(width)
    check_value(value)
    have = rows_by_module(result)
    names = list(list_drawn(result, modules))
    if max(map(len, have.values())) < 2 and any(map(_defined, result.rows)):
        raise ArgumentError(
            "a curve over the rank k needs several ranks of a module, and this result has one: "
            "ask for them with --ranks 1,2,4,8 (ranks= in Python)"
        )
    across = math.ceil(len(names) / math.ceil(len(names) / max(1, int(width / 1.5))))
    down = math.ceil(len(names) / across)
    tall = min(2.1 if width >= NARROW else 1.8, 8 / down)
    fits = characters(width - 0.2, HEAD_SIZE)
    first = wrap(f"{TITLES[value]}; {_LEADING}", fits)
    note = "\n".join(
        [*(remark for name in names for remark in _notes(have[name])), _WORDS[value], _ALONE]
    )
    lines = sum(math.ceil(len(line) / characters(width - 0.3, 6.5)) for line in note.splitlines())
    figure = new_figure(width, down * (tall + 0.2) + 0.8 + 0.12 * lines)
    figure.suptitle(f"{first}\n{describe_source(result, fits)}", fontsize=HEAD_SIZE, usetex=False)
    spec = figure.add_gridspec(down, across)
    drawn = [row for name in names for row in have[name]]
    for n, name in enumerate(names):
        ax = figure.add_subplot(spec[n // across, n % across])
        curve(have[name], ax=ax, value=value)
        ax.set_title(
            module_label(name, characters(width / across - 0.5, TITLE_SIZE)),
            fontsize=TITLE_SIZE,
            pad=4,
            usetex=False,
        )
        if ax.lines:
            _scales(ax, drawn, value)
        if any(figure.axes[at].lines for at in range(n - n % across, n)):  # at the left
            ax.set_ylabel("")
            ax.tick_params(labelleft=False)
        if n + across < len(names):
            ax.set_xlabel("")
    add_legend_below(figure, _make_handles(), note=note, columns=1 if width < NARROW else 4)
    return figure


def list_drawn(
    result: Amplification, modules: Sequence[str] | None = None
) -> dict[str, Sequence[ModuleAmplification]]:
    """Return the rows of each module that `curve_figure` draws."""
    have = rows_by_module(result)
    many = "subspace.plots.amplification_map.map_figure"
    return {name: have[name] for name in chosen(have, modules, most=_MOST, many=many)}


def curve(rows: Sequence[ModuleAmplification], *, ax: Axes, value: Value = "factor") -> Axes:
    """Draw factor(k) of one module over its ranks, the null, and its central 95 %.

    With the update truncated to its leading k directions on both sides, factor(k) is
    |delta W_k|_F / |U_k^T W V_k|_F (Hu et al. 2021, arXiv:2106.09685, section 7.3, Table 7).
    A marker is filled where the factor lies outside the central 95 % of chance. The ranks are on
    a log2 scale where the largest is 16 times the smallest or more.

    Parameters
    ----------
    rows
        One module at several ranks, in any order.
    ax
        What is drawn into, and returned.
    value
        ``"factor"``, or ``"null_ratio"``: chance's factor over it, so that chance is 1.

    Returns
    -------
    Axes
        `ax`. Its lines are the chance level, the curve, and the filled and hollow markers, its
        collection the band. A rank without a factor is left out; where there is none, the reason
        stands there.

    Raises
    ------
    ArgumentError
        No row, rows of several modules, or another value.

    Examples
    --------
    >>> from dataclasses import fields
    >>> from matplotlib.figure import Figure
    >>> from subspace.results import ModuleAmplification
    >>> ones = dict.fromkeys((f.name for f in fields(ModuleAmplification)), 1.0)
    >>> ones |= {"module": "q", "shape": (4, 4), "directions": (), "note": ""}
    >>> names = "rank", "factor", "null_factor", "null_low", "null_high"
    >>> def row(*numbers):
    ...     return ModuleAmplification(**ones | dict(zip(names, numbers)))
    >>> ax = curve([row(1, 9.0, 20.0, 5.0, 80.0), row(2, 8.0, 15.0, 10.0, 20.0)],
    ...            ax=Figure().add_subplot())
    >>> chance, factor, outside, inside = ax.lines
    >>> factor.get_ydata().tolist(), outside.get_xdata().tolist(), inside.get_xdata().tolist()
    ([9.0, 8.0], [2], [1])
    """
    if len({row.module for row in rows}) != 1:
        raise ArgumentError(
            f"a curve is of one module, got {len({row.module for row in rows})}; "
            "draw each into its own ax"
        )
    check_value(value)
    have = sorted(filter(_defined, rows), key=lambda row: row.rank)
    if not have:
        return write_undefined(ax, rows[0].note)
    k = [row.rank for row in have]
    numbers, chance, low, high = zip(*(_numbers(row, value) for row in have), strict=True)
    # Of a single rank the band is a short bar, and so is the chance level.
    n = 2 if len(k) == 1 else 1
    places = k if n == 1 else [k[0] - 0.2, k[0] + 0.2]
    ax.fill_between(places, low * n, high * n, color=_BAND, linewidth=0)
    ax.plot(places, chance * n, **_CHANCE)
    ax.plot(k, numbers, color=W_COLOUR, linewidth=1.1)
    for outside in (True, False):
        marked = [at for at, row in enumerate(have) if row.finding is outside]
        ax.plot(
            [k[at] for at in marked],
            [numbers[at] for at in marked],
            linestyle="none",
            markersize=3.8 if len(k) <= _CROWD else 2.2,
            **_marker(outside),
        )
    _scales(ax, have, value)
    label = "factor (log scale)" if value == "factor" else "null ratio (log scale)"
    ax.set_xlabel("rank k", fontsize=LABEL_SIZE, labelpad=2, usetex=False)
    ax.set_ylabel(label, fontsize=LABEL_SIZE, labelpad=2, usetex=False)
    style_axes(ax)
    return ax


def _numbers(row: ModuleAmplification, value: Value) -> tuple[float, float, float, float]:
    """Return what is drawn of one rank: the number, chance's, and the ends of its central 95 %."""
    chance = row.null_factor
    if value == "factor":
        return row.factor, chance, row.null_low, row.null_high
    return row.null_ratio, 1.0, chance / row.null_high, chance / row.null_low


def _marker(outside: bool) -> dict[str, Any]:
    return {
        "color": W_COLOUR,
        "linewidth": 1.1,
        "marker": "o",
        "markerfacecolor": W_COLOUR if outside else "white",
        "markeredgewidth": 0.9,
    }


def _make_handles() -> list[Artist]:
    return [
        Line2D([], [], label="update, outside the band", markersize=3.8, **_marker(True)),
        Line2D([], [], label="update, inside it", markersize=3.8, **_marker(False)),
        Line2D([], [], label="random update", **_CHANCE),
        Patch(facecolor=_BAND, label="central 95 % of random updates"),
    ]


def _defined(row: ModuleAmplification) -> bool:
    return 0 < row.factor < math.inf


def _notes(rows: Sequence[ModuleAmplification]) -> list[str]:
    """Say which ranks of a module are left out of its curve, and what is noted of the others."""
    if not any(map(_defined, rows)):
        return []  # the panel itself says why
    name = module_label(rows[0].module, 30)
    notes = dict.fromkeys(row.note for row in rows if row.note)
    lines = [f"{name}: {literal(note, 160)}" for note in notes]
    out = [str(row.rank) for row in rows if not _defined(row)]
    if out:
        lines.append(f"{name}: no factor at k = {', '.join(out)}, left out")
    return lines


def _scales(ax: Axes, rows: Sequence[ModuleAmplification], value: Value) -> None:
    """Give k and the numbers scales that hold all `rows`, with plain numbers."""
    ranks = sorted({row.rank for row in rows})
    least, most = ranks[0], ranks[-1]
    if most >= _LOG_FROM * least:
        ax.set_xscale("log", base=2)
        ax.set_xlim(least / 1.15, most * 1.15)
        powers = [2**n for n in range(most.bit_length()) if 2**n >= least]
        at = powers[:: math.ceil(len(powers) / 7)]
    else:
        pad = max(0.4, 0.05 * (most - least))
        ax.set_xlim(least - pad, most + pad)
        at = ranks if len(ranks) <= 8 else [k for k in ticks(most) if k >= least]
    ax.set_xticks(at, [f"{k}" for k in at])
    ax.xaxis.set_minor_locator(NullLocator())
    sizes = [x for row in rows for x in _numbers(row, value) if 0 < x < math.inf]
    low, high = min(sizes) / 1.25, max(sizes) * 1.25
    ax.set_yscale("log")
    ax.set_ylim(low, high)
    levels = log_ticks(low, high)
    ax.set_yticks(levels, [f"{level:g}" for level in levels])
    ax.yaxis.set_minor_locator(LogLocator(subs=range(2, 10)))
    ax.yaxis.set_minor_formatter(NullFormatter())
