"""The figures of phi(i, j): the paper's 3 and 4, and all layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from subspace.cli.shared import options

if TYPE_CHECKING:
    from pathlib import Path

    from subspace.results import Similarity

FIGURES = ("3", "4", "layers")
OF_FIGURES = ("--figure", "--contour", "--above-chance", "--initial")


def draw(
    result: Similarity,
    out: Path,
    *,
    figure: str = "3",
    p: float | None = 0.01,
    above_chance: bool = False,
    initial: bool = False,
) -> None:
    """Write one of `FIGURES` to a file."""
    from subspace.plots.save import save

    look = options.look()
    if figure == "layers":
        from subspace.plots.layers import layers_figure

        drawn = layers_figure(result, p=p, above_chance=above_chance, width=look.width)
    elif figure == "4":
        from subspace.measures.similarity.measure import random_pair
        from subspace.plots.figure4 import figure4
        from subspace.plots.parts.names import chosen

        first = result[chosen(result, None)[0]]
        random = random_pair(first.rank_a, first.rank_b, first.d)
        drawn = figure4(
            result, random, p=p, above_chance=above_chance, initial=initial, width=look.width
        )
    else:
        from subspace.plots.figure3 import figure3

        drawn = figure3(result, p=p, above_chance=above_chance, initial=initial, width=look.width)
    save(drawn, out, dpi=look.dpi)
