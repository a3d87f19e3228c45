"""``subspace rank RUN…``: how many directions are real, beside the ranks of the spectrum."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from subspace.cli.shared import hints, options, output, reading
from subspace.cli.shared.printing import say, show_notes, show_table
from subspace.cli.shared.progress import progress

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from subspace.cli.shared.output import FigureStyle, Output
    from subspace.results import Rank, Side


@click.command()
@click.argument("paths", metavar="RUN…", nargs=-1, required=True, type=click.Path(path_type=Path))
@options.side("in")
@options.level()
@options.MODULE
@output.output("json", "csv", "markdown", "latex", figure="Draw every module's ranks")
@reading.reading()
@options.DEVICE
def command(
    paths: tuple[Path, ...],
    side: Side,
    level: float,
    modules: str | None,
    output: Output,
    device: str,
) -> None:
    """How many directions are real? Those that runs of other seeds learn again.

    "replicable" counts the leading directions that two runs share above chance, the median over
    all pairs of runs with its range; the other ranks are of each run's delta W alone. Give two or
    more runs of one configuration that differ in their seed; one gives its spectrum alone.

    \b
        subspace rank data/adapters/r64-seed0 data/adapters/r64-seed1
        subspace rank runs/r64-seed0 runs/r64-seed1 runs/r64-seed2 --side delta-A
        subspace rank runs/r64-seed* --modules '*.value' --out rank.png
        subspace rank runs/r64-seed* --json | jq '.modules[] | [.module, .replicable]'
    """  # noqa: D301 - click wants the real character
    from subspace.measures.rank.measure import rank

    runs = reading.adapters(paths)
    with progress("comparing", len(runs[0].select(modules))) as advance:
        result = rank(
            runs, side=side, level=level, modules=modules, device=device, progress=advance
        )

    def draw(style: FigureStyle) -> Figure:
        from subspace.plots.rank import rank_figure

        return rank_figure(result, width=style.width)

    output.emit(
        result,
        show=lambda: show(result),
        draw=draw,
        next_commands=[hints.suggest_again("--out", "rank.png"), hints.suggest_report()],
    )


def show(result: Rank) -> None:
    """Print one line per module, and the sentences."""
    from subspace.findings import describe_rank

    table = result.table()
    show_table(replace(table, notes=()))
    for sentence in describe_rank(result):
        say(sentence)
    show_notes(table)
