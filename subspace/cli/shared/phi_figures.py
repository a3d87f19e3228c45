"""The figures of phi(i, j): the paper's 3 and 4, and all layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.figure import Figure

    from subspace.results import Similarity


def figure_option(default: str, words: str) -> Callable[[Any], Any]:
    """Return the option that chooses one of them."""
    return click.option(
        "--figure",
        type=click.Choice(("3", "4", "layers")),
        default=default,
        show_default=True,
        help=words,
    )


def draw(
    result: Similarity,
    *,
    width: float = 7.0,
    figure: str = "3",
    contour: float | None = 0.01,
    above_chance: bool = False,
    initial: bool = False,
) -> Figure:
    """Draw one of them."""
    if figure == "layers":
        from subspace.plots.layers import layers_figure

        return layers_figure(result, contour=contour, above_chance=above_chance, width=width)
    if figure == "4":
        from subspace.measures.similarity.measure import random_pair
        from subspace.plots.figure4 import figure4
        from subspace.plots.parts.names import chosen

        first = result[chosen(result, None)[0]]
        random = random_pair(first.rank_a, first.rank_b, first.d)
        return figure4(
            result, random, contour=contour, above_chance=above_chance, initial=initial, width=width
        )
    from subspace.plots.figure3 import figure3

    return figure3(result, contour=contour, above_chance=above_chance, initial=initial, width=width)
