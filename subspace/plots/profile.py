"""Where an update's energy lies over W's whole singular index, beside chance."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING, Literal

import numpy as np
from matplotlib.ticker import FixedLocator, NullLocator

from subspace.plots.parts.colours import DELTA_COLOUR, W_COLOUR
from subspace.plots.parts.names import chosen, literal, module_label
from subspace.plots.parts.page import (
    FRAME,
    HEAD_SIZE,
    LABEL_SIZE,
    NARROW,
    TICK_SIZE,
    TITLE_SIZE,
    characters,
    check_width,
    new_figure,
    style_axes,
    write_undefined,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from subspace.results import ModuleProfile, Profile

_SURE = 0.01  # of the energy: about the width of the line
_FAINTEST = 1 / 8  # of chance: where the lower panel ends, since its band may reach zero
_WORDS = {"in": "right-singular", "out": "left-singular"}


def profile_figure(
    result: Profile, *, modules: str | Sequence[str] | None = None, width: float = 7.0
) -> Figure:
    """Draw each module's cumulative energy over W's singular index, and how often chance it is.

    Appendix H.3 of Hu et al. 2021, arXiv:2106.09685, taken to all of W's directions. On top, W's
    own singular values on an axis of their own; below them, over the same index, the share, whose
    chance is the diagonal; at the bottom the same curve divided by chance, on a logarithmic index,
    shows the few leading directions.

    Parameters
    ----------
    result
        An adapter over its base.
    modules
        One or two module paths. Default: query and value of the middle layer.
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
        More than two modules, or no page has this width.
    """
    check_width(width)
    names = chosen(result, modules)
    narrow = width < NARROW  # one column of a page: the modules stand below each other
    columns = 1 if narrow else len(names)
    blocks = len(names) // columns
    figure = new_figure(width, 1.2 + (4.2 if narrow else 4.6) * blocks)
    axes = figure.subplots(3 * blocks, columns, squeeze=False, height_ratios=[0.5, 1.7, 1] * blocks)
    values, upper, lower = (axes[n::3].ravel() for n in range(3))
    fits = characters((width - 0.8) / columns - 0.1, TITLE_SIZE)
    for x, name in enumerate(names):
        m = result[name]
        spectrum(m, ax=values[x])
        profile_curve(m, ax=upper[x])
        profile_curve(m, ax=lower[x], over="chance")
        title = f"{module_label(name, max(12, fits - 14))}, rank\N{NO-BREAK SPACE}{m.rank}"
        values[x].set_title(
            textwrap.fill(f"{title}: {_summary(m)}", fits, break_on_hyphens=False),
            fontsize=TITLE_SIZE,
            usetex=False,
        )
        if x and not narrow:  # the panel at the left says it
            for ax in (values[x], upper[x], lower[x]):
                ax.set_ylabel("")
    _share_scale(lower)
    figure.align_ylabels(axes[:, 0])
    fits = characters(width - 0.2, HEAD_SIZE)
    adapter, base = (literal(each, max(8, fits // 3)) for each in (result.adapter, result.base))
    head = f"Energy of ΔW ({adapter}) over the {_WORDS[result.side]} vectors of W ({base})"
    figure.suptitle(
        textwrap.fill(head, fits, break_on_hyphens=False), fontsize=HEAD_SIZE, usetex=False
    )
    handles = {
        handle.get_label(): handle
        for ax in (*upper, *values)
        for handle in ax.get_legend_handles_labels()[0]
    }
    note = "\n".join(
        textwrap.fill(
            f"{module_label(name)}: {literal(result[name].note, 300)}",
            characters(width - 0.3, TICK_SIZE),
        )
        for name in names
        if result[name].note and result[name].resolved  # an empty panel says it itself
    )
    figure.legend(
        handles=list(handles.values()),
        loc="outside lower center",
        ncols=1 if narrow else 2,
        fontsize=TICK_SIZE,
        title=note if handles else None,
        title_fontsize=TICK_SIZE,
        frameon=False,
        borderaxespad=0.1,
        handlelength=1.8,
    )
    return figure


def profile_curve(m: ModuleProfile, *, ax: Axes, over: Literal["all", "chance"] = "all") -> Axes:
    """Draw the share of delta W's energy within W's leading k directions, k = 1 ... d.

    Parameters
    ----------
    m
        One module's profile.
    ax
        What is drawn into, and returned.
    over
        ``"all"``: the share itself. ``"chance"``: the share over chance's k/d, both scales
        logarithmic.

    Returns
    -------
    Axes
        `ax`. Its first line is the curve, NaN where it is not sure to 0.01; there a dotted line
        goes on. Beyond the directions of W that are told apart from zero the ground is grey.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from subspace.results import ModuleProfile, TopEnergy
    >>> half, nan = np.array([0.5, 1.0]), float("nan")
    >>> none = TopEnergy(
    ...     k=1, energy=nan, error=nan, null_mean=nan, null_low=nan, null_high=nan, p=nan)
    >>> m = ModuleProfile(
    ...     module="q", side="in", shape=(2, 2), d=2, rank=1, resolved=2, sigma=half[::-1],
    ...     energy=half, cumulative=half, error=0 * half, null_low=half, null_high=half,
    ...     concentration=1.0, top=none, tenth=none, median=0.5, median_between=(1, 1),
    ...     median_p=1.0)
    >>> profile_curve(m, ax=Figure().add_subplot()).lines[0].get_ydata().tolist()
    [0.5, 1.0]
    """
    if math.isnan(m.cumulative[-1]):
        return write_undefined(ax, m.note)
    k = np.arange(1, m.d + 1)
    chance = k / m.d
    unit = chance if over == "chance" else np.ones(m.d)
    sure = m.error < _SURE
    ax.plot(
        k,
        np.where(sure, m.cumulative, np.nan) / unit,
        color=DELTA_COLOUR,
        linewidth=1.6,
        zorder=3,
        label="ΔW: share of its energy within the first k",
    )
    ax.plot(k, chance / unit, color="black", linestyle=(0, (3, 2)), linewidth=0.9, label="_chance")
    ax.fill_between(
        k,
        m.null_low / unit,
        m.null_high / unit,
        color="#d0d0d0",
        linewidth=0,
        label="a random ΔW: k/d (dashed), central 95 % at each k",
    )
    if not sure.all():
        ax.plot(
            k,
            m.cumulative / unit,
            color=DELTA_COLOUR,
            linestyle=":",
            linewidth=1.2,
            zorder=2.5,
            label=f"not sure to {_SURE}: W's values are equal, or zero",
        )
    _null_space(ax, m)
    _frame(ax, m, over)
    return ax


def spectrum(m: ModuleProfile, *, ax: Axes) -> Axes:
    """Draw W's singular values over its largest, on the linear index of `profile_curve`.

    On axes of their own: they are no share of anything, and where they cross one says nothing.

    Parameters
    ----------
    m
        One module's profile.
    ax
        What is drawn into, and returned.

    Returns
    -------
    Axes
        `ax`. Its line is sigma_k / sigma_1; nothing is drawn where the profile is undefined.
    """
    if math.isnan(m.cumulative[-1]):
        ax.set(xticks=[], yticks=[])
        ax.set_axis_off()
        return ax
    k = np.arange(1, len(m.sigma) + 1)
    ax.plot(k, m.sigma / m.sigma[0], color=W_COLOUR, linewidth=1.2, label="W: σ_k / σ_1")
    _null_space(ax, m)
    style_axes(ax)
    ax.set(xlim=(0, m.d), ylim=(0, 1.05))
    ax.set_xticks(_index_ticks(m.d))
    ax.tick_params(labelbottom=False)  # those of the share stand below
    ax.set_yticks([0, 0.5, 1], ["0", "1/2", "1"])
    ax.grid(axis="y", color=FRAME, linewidth=0.3)
    ax.set_ylabel("σ_k / σ_1", fontsize=LABEL_SIZE, labelpad=2, color=W_COLOUR, usetex=False)
    return ax


def _null_space(ax: Axes, m: ModuleProfile) -> None:
    """Make the ground grey beyond the directions of W that are told apart from zero."""
    if m.resolved < m.d:
        ax.axvspan(
            m.resolved,
            m.d,
            color="#f0f0f0",
            linewidth=0,
            zorder=0,
            label="W is zero here: only the sum is known",
        )


def _index_ticks(d: int) -> list[int]:
    return sorted({1, *(round(d * part / 4) for part in range(1, 5)), d} - {0})


def _frame(ax: Axes, m: ModuleProfile, over: str) -> None:
    """Limits, ticks and labels: both ends of the index have one."""
    style_axes(ax)
    name = f"k, first of {m.d} directions of W"
    if over == "chance":
        index = np.arange(1, m.d + 1)
        times = np.concatenate([m.cumulative * m.d / index, m.null_high * m.d / index])
        lowest = float(np.min(np.append(times, m.null_low * m.d / index)))
        ax.set(xscale="log", yscale="log", xlim=(1 / 1.1, max(m.d * 1.1, 2)))
        _times_scale(ax, max(lowest, _FAINTEST) / 1.2, max(float(times.max()), 2.0) * 1.2)
        decades = [10**n for n in range(6) if 10**n < m.d / 2]
        ax.xaxis.set_major_locator(FixedLocator([*decades, m.d]))
        ax.set_xticklabels([str(tick) for tick in (*decades, m.d)])
        ax.set_ylabel("share / chance (log)", fontsize=LABEL_SIZE, labelpad=2, usetex=False)
        name += " (log scale)"
    else:
        ax.set(xlim=(0, m.d), ylim=(0, 1.02))
        ax.set_xticks(_index_ticks(m.d))
        ax.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "1/4", "1/2", "3/4", "1"])
        ax.grid(axis="y", color=FRAME, linewidth=0.3)
        ax.set_ylabel("share of ΔW's energy", fontsize=LABEL_SIZE, labelpad=2, usetex=False)
    ax.set_xlabel(name, fontsize=LABEL_SIZE, labelpad=2, usetex=False)


def _times_scale(ax: Axes, low: float, high: float) -> None:
    """Set the limits of the lower panel, with ticks at powers of two."""
    ax.set_ylim(low, high)
    step = max(1, math.ceil(math.log2(high / low) / 7))
    powers = [n for n in range(-6, 24) if low <= 2.0**n <= high and n % step == 0]
    ax.yaxis.set_major_locator(FixedLocator([2.0**n for n in powers]))
    ax.set_yticklabels([f"{2**n}×" if n >= 0 else f"1/{2**-n}×" for n in powers])
    ax.yaxis.set_minor_locator(NullLocator())


def _share_scale(axes: Iterable[Axes]) -> None:
    """Give the lower panels one scale: they are there to be compared."""
    drawn = [ax for ax in axes if ax.get_yscale() == "log"]
    if drawn:
        limits = [ax.get_ylim() for ax in drawn]
        for ax in drawn:
            _times_scale(ax, min(low for low, _ in limits), max(high for _, high in limits))


def _summary(m: ModuleProfile) -> str:
    if math.isnan(m.cumulative[-1]):
        return "undefined"
    if math.isnan(m.median):
        between = "{} to {}".format(*m.median_between)
        return f"half of the energy is reached at k = {between} of {m.d}"
    words = f"half of the energy in {m.median:.0%} of W's directions (chance 50%)"
    return words.replace("%", "\N{NO-BREAK SPACE}%")
