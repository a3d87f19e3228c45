"""Figure 4: two seeds at one rank, beside two random Gaussian matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from subspace.errors import UnknownModuleError
from subspace.plots.figure3 import dimension, heading, module_panel
from subspace.plots.parts.names import chosen
from subspace.plots.parts.page import check_width
from subspace.plots.parts.phi_panels import PhiPanel, draw_panels, variants
from subspace.results import ModuleSimilarity, Similarity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure


def figure4(
    seeds: Similarity,
    random: ModuleSimilarity | Similarity,
    *,
    modules: str | Sequence[str] | None = None,
    contour: float | None = 0.01,
    above_chance: bool = False,
    initial: bool = False,
    title: str | None = None,
    width: float = 7.0,
) -> Figure:
    """Draw phi(i, j) between two seeds for two modules, and between two random matrices.

    Hu et al. 2021, arXiv:2106.09685, section 7.2, Figure 4 (r = 64, query and value of the 48th
    of 96 layers). If a control was compared, a second row shows it.

    Parameters
    ----------
    seeds
        Two adapters of the same rank, trained from two seeds.
    random
        The same measure of two Gaussian matrices of the same shape; of a `Similarity` the first
        module is drawn.
    modules, contour, above_chance, initial, title, width
        As in `subspace.plots.figure3.figure3`.

    Returns
    -------
    Figure
        Of matplotlib, outside pyplot.

    Raises
    ------
    UnknownModuleError
        A module is not in `seeds`, or one of the two has none.
    ArgumentError
        As in `subspace.plots.figure3.figure3`.
    """
    check_width(width)
    if isinstance(random, Similarity):
        if not random:
            raise UnknownModuleError("the comparison of random matrices holds no module")
        random = next(iter(random.values()))
    names = chosen(seeds, modules)
    rows = [
        [module_panel(drawn, name, prefix) for name in names]
        for prefix, drawn in variants(seeds, initial=initial)
    ]
    gauss = PhiPanel(
        random, ("Gaussian 1", "Gaussian 2"), f"two random Gaussians, {dimension(random.d)}"
    )
    rows[0].append(gauss)
    return draw_panels(
        rows,
        width=width,
        title=heading(seeds, title, width),
        contour=contour,
        above_chance=above_chance,
    )
