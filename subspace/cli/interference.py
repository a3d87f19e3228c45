"""``subspace interference A B…``: what adding adapters to one base would do, before it is done."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from subspace.cli.shared import hints, options, output, reading
from subspace.cli.shared.output import in_columns
from subspace.cli.shared.progress import progress
from subspace.errors import ArgumentError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from subspace.cli.shared.output import FigureStyle, Output


@click.command()
@click.argument(
    "paths", metavar="ADAPTER…", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option("--weights", metavar="W,W…", help="Of the sum, one an adapter; 1 each by default.")
@click.option("--level", default=0.01, show_default=True, help="At which a cosine is a finding.")
@options.MODULE
@click.option("--all", "each", is_flag=True, help="Of more than two: one line a module and pair.")
@output.output(
    "json",
    "csv",
    "markdown",
    "latex",
    csv="Write one line a module and pair.",
    figure="Draw the cosines over layers and modules",
)
@reading.reading()
@options.DEVICE
def command(
    paths: tuple[Path, ...],
    weights: str | None,
    level: float,
    modules: str | None,
    each: bool,
    output: Output,
    device: str,
) -> None:
    """Say before a merge whether adapters of one base add up, cancel, or leave each other alone.

    For every module the cosine between two updates beside what independent random ones give, how
    far their row and column spaces overlap, and the energy of the weighted sum over the sum of
    their energies: 1 where nothing meets, less where they cancel. Nothing is merged and no base
    is read. With more than two adapters each pair has one line over the whole model, and the
    modules that cancel most follow.

    \b
        subspace interference data/adapters/r8 data/adapters/r64
        subspace interference runs/german runs/poetry --weights 0.7,0.3 --out merge.png
        subspace interference runs/chat runs/toxic --weights 1,-1
        subspace interference runs/a runs/b runs/c --all --modules '*.value'
        subspace interference runs/a runs/b --json | jq '.modules[] | [.module, .energy]'
    """  # noqa: D301 - click wants the real character
    by = None if weights is None else _numbers(weights)
    from subspace.cli.interference_table import show, table
    from subspace.measures.interference.measure import interference

    adapters = reading.adapters(paths)
    total = len({name for x in adapters for name in x.select(modules)})
    with progress("comparing", total) as advance:
        result = interference(
            adapters, weights=by, modules=modules, level=level, device=device, progress=advance
        )

    def draw(style: FigureStyle) -> Figure:
        from subspace.plots.interference_map import interference_figure

        return interference_figure(result, width=style.width)

    shares = ",".join([f"{1 / len(paths):.2g}"] * len(paths))
    other = [] if weights is not None else [hints.again("--weights", shares)]
    output.emit(
        json=result.to_dict,
        csv=lambda: in_columns([row for m in result.values() for row in m.to_rows()]),
        table=lambda: table(result, each=each),
        show=lambda: show(result, each=each),
        draw=draw,
        next_commands=[*other, hints.again("--out", "map.png")],
    )


def _numbers(weights: str) -> list[float]:
    try:
        return [float(word) for word in weights.split(",")]
    except ValueError:
        raise ArgumentError(
            f"--weights {weights!r} are no numbers; give one an adapter, such as 0.5,0.5"
        ) from None
