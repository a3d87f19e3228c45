"""``subspace interference A B…``: what adding adapters to one base would do, before it is done."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from subspace.cli.shared import hints, options, output, reading
from subspace.cli.shared.printing import say, show_notes, show_table
from subspace.cli.shared.progress import progress
from subspace.errors import ArgumentError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from subspace.cli.shared.output import FigureStyle, Output
    from subspace.results import Interference

LISTED = 6  # modules of lowest energy that are printed of more than two adapters


@click.command()
@click.argument(
    "paths", metavar="ADAPTER…", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option("--weights", metavar="W,W…", help="Of the sum, one an adapter; 1 each by default.")
@options.level("At which a cosine is significant.")
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
        subspace interference data/adapters/r8-seed0 data/adapters/r64-seed1
        subspace interference runs/german runs/poetry --weights 0.7,0.3 --out merge.png
        subspace interference runs/chat runs/toxic --weights 1,-1
        subspace interference runs/a runs/b runs/c --all --modules '*.value'
        subspace interference runs/a runs/b --json | jq '.modules[] | [.module, .energy]'
    """  # noqa: D301 - click wants the real character
    by = None if weights is None else _numbers(weights)
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
    other = [] if weights is not None else [hints.suggest_again("--weights", shares)]
    by_pairs = len(paths) > 2 and not each
    output.emit(
        result,
        table=lambda: result.pairs_table() if by_pairs else result.table(),
        show=lambda: show(result, by_pairs=by_pairs),
        draw=draw,
        next_commands=[*other, hints.suggest_again("--out", "map.png")],
    )


def show(result: Interference, *, by_pairs: bool) -> None:
    """Print the tables and the sentences; of several pairs the modules of lowest energy."""
    from subspace.findings import describe_interference

    main = result.pairs_table() if by_pairs else result.table()
    show_table(replace(main, legend=(), notes=()))
    if by_pairs:
        lowest = result.lowest_energies(LISTED).shortened()
        show_table(replace(lowest, above="", legend=()))
    shares = result.shares_table()
    show_table(replace(shares, legend=(*main.legend, *shares.legend)))
    for sentence in describe_interference(result):
        say(sentence)
    show_notes(main)


def _numbers(weights: str) -> list[float]:
    try:
        return [float(word) for word in weights.split(",")]
    except ValueError:
        raise ArgumentError(
            f"--weights {weights!r} are no numbers; give one an adapter, such as 0.5,0.5"
        ) from None
