"""Figures 6 and 7: many layers at once, one small heatmap a module."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from subspace.errors import ArgumentError, UnknownModuleError
from subspace.plots.figure3 import heading
from subspace.plots.heatmap import LABEL_SIZE, TITLE_SIZE, phi_heatmap, undefined_cells
from subspace.plots.names import chosen, kind_labels, layer_words, literal, place
from subspace.plots.panels import characters, check_width, finish, new_figure

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from subspace.results import Similarity

    Row = tuple[str, int | None]

_MOST_PANELS = 512  # a page of stamps: beyond this nothing can be read, and drawing takes minutes
_TALLEST = 9.0  # inches: a page


def layers_figure(
    similarity: Similarity,
    *,
    modules: str | Sequence[str] | None = None,
    layers: Collection[int] | None = None,
    p: float | None = 0.01,
    above_chance: bool = False,
    title: str | None = None,
    width: float = 7.0,
) -> Figure:
    """Draw phi(i, j) of many modules: a row a layer, a column a kind of module.

    Hu et al. 2021, arXiv:2106.09685, appendix H.1, Figures 6 and 7 (layers 1, 32, 64 and 96).
    Where there are many more layers than kinds, the rows go on in a second block at the right.
    A control is not drawn here: pass `similarity.control` to a call of its own.

    Parameters
    ----------
    similarity
        Two adapters compared.
    modules
        The module paths to draw; default: all.
    layers
        The layers to draw, as their number stands in the module's path; default: all.
    p, above_chance, title, width
        As in `subspace.plots.figure3.figure3`.

    Returns
    -------
    Figure
        Of matplotlib, outside pyplot.

    Raises
    ------
    UnknownModuleError
        A module or layer is not in `similarity`, or it has none.
    ArgumentError
        More than 512 panels, a p outside 0 to 1, or a width that no page has.
    """
    check_width(width)
    names = _names(similarity, modules, layers)
    spots = {name: place(name) for name in names}
    rows: list[Row] = list(dict.fromkeys((s.prefix, s.layer) for s in spots.values()))
    kinds = list(dict.fromkeys(s.kind for s in spots.values()))
    blocks = _blocks(len(rows), len(kinds), width)
    a_block = math.ceil(len(rows) / blocks)
    blocks = math.ceil(len(rows) / a_block)  # the last ones may have become empty
    columns = blocks * len(kinds)
    wide = (width - 1.2) / columns
    tall = min(1.0, max(0.42, min(wide, _TALLEST / a_block)))
    figure = new_figure(width, a_block * (tall + 0.12) + 1.3)
    axes = figure.subplots(a_block, columns, squeeze=False)
    for ax in axes.ravel():
        ax.set_axis_off()
    same = len({similarity[name].phi.shape for name in names}) == 1
    words, heads = layer_words(rows), kind_labels(kinds)
    for name in names:
        block, y = divmod(rows.index((spots[name].prefix, spots[name].layer)), a_block)
        x = kinds.index(spots[name].kind)
        ax = axes[y, block * len(kinds) + x]
        ax.set_axis_on()
        head = literal(heads[spots[name].kind], characters(wide, TITLE_SIZE))
        phi_heatmap(
            similarity[name],
            ax=ax,
            p=p,
            above_chance=above_chance,
            title=head if y == 0 else "",
            most_ticks=(4 if tall > 0.7 else 2, 4 if wide > 0.8 else 2),
        )
        # The adapters' names would drown the picture: they are in the title.
        below = a_block * block + y + 1
        ends = y + 1 == a_block or below >= len(rows)
        _quiet(ax, row=words[rows[below - 1]] if x == 0 else "", ends=ends, shared=same)
    finish(
        figure,
        list(axes.ravel()),
        title=heading(similarity, title, width),
        note="",
        p=p,
        undefined=any(undefined_cells(similarity[name]).any() for name in names),
        above_chance=above_chance,
    )
    return figure


def _names(
    similarity: Similarity, modules: str | Sequence[str] | None, layers: Collection[int] | None
) -> tuple[str, ...]:
    names = chosen(similarity, list(similarity) if modules is None else modules, most=10**9)
    if layers is not None:
        have = {place(name).layer for name in names}
        missing = [layer for layer in layers if layer not in have]
        if missing or not layers:
            raise UnknownModuleError(
                f"no layer {missing[0] if missing else 'at all'} in this comparison; it has "
                + ", ".join(str(layer) for layer in sorted(x for x in have if x is not None))
            )
        names = tuple(name for name in names if place(name).layer in layers)
    if len(names) > _MOST_PANELS:
        raise ArgumentError(
            f"{len(names)} modules are more than the {_MOST_PANELS} panels that one figure holds; "
            "choose some with modules= or layers="
        )
    return names


def _blocks(rows: int, kinds: int, width: float) -> int:
    """Return into how many blocks side by side the rows are cut: as few as fit on a page."""
    room = max(1, int((width - 1.2) / 0.55) // kinds)
    return min(room, max(1, math.ceil(rows / 9)))


def _quiet(ax: Axes, *, row: str, ends: bool, shared: bool) -> None:
    """Keep labels at the left of a block and below its last row, ticks where they differ."""
    ax.set_ylabel(f"{row}\ni" if row else "", fontsize=LABEL_SIZE, labelpad=2, usetex=False)
    ax.set_xlabel("j" if ends else "", fontsize=LABEL_SIZE, labelpad=1, usetex=False)
    ax.tick_params(labelbottom=ends or not shared, labelleft=bool(row) or not shared)
