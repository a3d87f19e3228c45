"""Figure 3: two ranks of one run, the whole grid and the zoom on its lower-left triangle."""

from __future__ import annotations

from typing import TYPE_CHECKING

from subspace.plots.parts.names import chosen, literal, module_label
from subspace.plots.parts.page import HEAD_SIZE, characters, check_width
from subspace.plots.parts.phi_panels import PhiPanel, draw_panels, variants, with_zoom
from subspace.plots.parts.phi_words import BASE_WORDS, SIDE_WORDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from subspace.results import Similarity


def figure3(
    similarity: Similarity,
    *,
    modules: str | Sequence[str] | None = None,
    contour: float | None = 0.01,
    above_chance: bool = False,
    initial: bool = False,
    title: str | None = None,
    width: float = 7.0,
) -> Figure:
    """Draw phi(i, j) of two modules: whole grids, then their zooms, as Figure 3 of the paper.

    Hu et al. 2021, arXiv:2106.09685, section 7.2, Figure 3: phi(A_{r=8}, A_{r=64}, i, j) for
    the query and the value projection over 1 <= i <= 8, 1 <= j <= 64, and again for j <= i <= 8.
    (1, 1) is the top left cell of every panel, so the triangle j <= i is the lower left one. If
    a control was compared (an adapter trained on shuffled labels), a second row shows it.

    Parameters
    ----------
    similarity
        Two adapters compared; the first one's directions are i.
    modules
        One or two module paths. Default: query and value of the middle layer (the
        ceil(n/2)-th of n, as the paper's 48th of 96).
    contour
        Outline the cells with a p-value at or below this; None for no outline.
    above_chance
        Draw phi minus what independent random subspaces give.
    initial
        Add a row with the similarity of the two initial A.
    title
        Replaces the first line of the title.
    width
        In inches; below 5 (one column of a page) the zooms come below the whole grids.

    Returns
    -------
    Figure
        Of matplotlib, outside pyplot; write it with `subspace.plots.save.save`.

    Raises
    ------
    UnknownModuleError
        A module is not in `similarity`, or it has none.
    ArgumentError
        More than two modules, a contour outside 0 to 1, a width that no page has, or `initial`
        where no initial A was stored.
    """
    check_width(width)
    names = chosen(similarity, modules)
    rows = [
        with_zoom([module_panel(drawn, name, prefix) for name in names])
        for prefix, drawn in variants(similarity, initial=initial)
    ]
    return draw_panels(
        rows,
        width=width,
        title=heading(similarity, title, width),
        note="Zoom: the triangle j\N{NO-BREAK SPACE}≤\N{NO-BREAK SPACE}i.",
        contour=contour,
        above_chance=above_chance,
    )


def module_panel(similarity: Similarity, module: str, prefix: str = "") -> PhiPanel:
    """Return the whole grid of one module as a panel, or the words that it is not there."""
    result = similarity.modules.get(module)
    label = prefix + module_label(module)
    words = f"{label}, {dimension(result.d)}" if result is not None else f"{label}: not compared"
    return PhiPanel(result, similarity.adapters, words)


def dimension(d: int) -> str:
    """Return "d = 384" held together by no-break spaces."""
    return f"d = {d}".replace(" ", "\N{NO-BREAK SPACE}")


def heading(similarity: Similarity, title: str | None, width: float) -> str:
    """Return the title's lines: what is compared, then which side's vectors are the directions."""
    fits = characters(width - 0.3, HEAD_SIZE)
    a, b = (literal(name, fits - 12) for name in similarity.adapters)
    first = f"φ(i, j) of {a} (i) and {b} (j)" if title is None else literal(title, 200)
    if title is None and len(first) > fits:
        first = f"φ(i, j), with i of {a}\nand j of {b}"
    words = BASE_WORDS if similarity.of_base else SIDE_WORDS
    label = words[similarity.side].replace(" = ", "\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}")
    return f"{first}\nside {similarity.side}: {label}"
