"""``subspace train``: one run or a sweep of them, each with its initial A and record; Table 6."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import click

from subspace.cli.shared import hints, options, output
from subspace.cli.shared.places import check_runs
from subspace.cli.shared.progress import sweep_progress
from subspace.cli.shared.sweep_options import RUNS, SWEEP, SweepOptions
from subspace.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from subspace.cli.shared.output import FigureStyle, Output
    from subspace.cli.shared.sweep_options import RunOptions
    from subspace.training.config import TrainConfig
    from subspace.training.sweep.grid import Sweep
    from subspace.training.sweep.run import SweepRun

_PRINTING = ("folders", "json", "csv", "markdown", "latex", "draw", "style", "width", "dpi")


@click.command()
@click.argument("folders", metavar="[RUN]…", nargs=-1, type=click.Path(path_type=Path))
@SWEEP
@RUNS
@output.output(
    "json",
    "csv",
    "markdown",
    "latex",
    json="Print every run's whole record and Table 6 as JSON.",
    csv="Print one line a run as CSV.",
    markdown="Print Table 6 for a model card.",
    latex="Print Table 6 for a paper (LaTeX, booktabs).",
    option="--draw",
    figure="Draw accuracy over rank, test and training texts,",
)
def command(
    folders: tuple[Path, ...], asked: SweepOptions, runs: RunOptions, output: Output
) -> None:
    """Train LoRA adapters that any PEFT user can load, and print accuracy before and after.

    One rank and one seed write to --out itself. Several write to folders in it, named like
    r8-seed0, and end with Table 6 of the paper: accuracy over rank. A run that is there already,
    with the same options, model and data, is used as it is; a different one is refused; one that
    was killed goes on from its last checkpoint; one that fails stops no other. Given folders of
    runs that are trained already, it trains nothing and prints their tables.

    \b
        subspace train --rank 8 --out runs/r8                    runs/r8
        subspace train --ranks 8,64 --seeds 0,1 --out runs       runs/r8-seed0 … runs/r64-seed1
        subspace train --ranks 1,8 --targets query --targets query,value --reference head
        subspace train --config sweep.toml --jobs 2
        subspace train --data texts.csv --model ./my-bert --targets all-linear --out runs/mine
        subspace train --rank 8 --shuffle-labels --out runs/control
        subspace train runs --markdown
    """  # noqa: D301 - click wants the real character
    if output.out is not None and (len(asked.data) > 4 or len(asked.targets) > 7):
        raise ArgumentError("--draw shows up to 4 data sets of up to 7 target sets")
    if folders:
        from subspace.training.sweep.read import find_runs

        every = {str(parameter.name) for parameter in click.get_current_context().command.params}
        options.refuse_beside_runs(every - set(_PRINTING))
        _write(find_runs(folders), output)
        return
    from subspace.training.sweep.train import run_sweep

    sweep = asked.sweep()
    check_runs([(sweep, runs.out)], overwrite=runs.overwrite)
    with sweep_progress(sweep.runs, sweep.options.steps) as (advance, finished):
        cells = run_sweep(
            sweep,
            runs.out,
            jobs=runs.jobs,
            overwrite=runs.overwrite,
            records_only=runs.records_only,
            checkpoint_every=runs.checkpoint_every,
            progress=advance,
            finished=finished,
        )
    _write(cells, output)
    failed = sum(cell.record is None for cell in cells)
    if failed:
        click.echo(
            f"{failed} of {len(cells)} runs failed; mend what their lines name and run the "
            "command again, which trains those alone",
            err=True,
        )
        click.get_current_context().exit(1)


def sweep_of(words: list[str]) -> tuple[Sweep, Path]:
    """Read a sweep, and the folder of its runs, as this verb's options say them."""
    from subspace.training.config import TrainConfig

    with command.make_context("subspace train", words) as context:
        given = dict(context.params)
    names = {*SweepOptions._fields, *(field.name for field in fields(TrainConfig))}
    asked = SweepOptions.split(**{name: given[name] for name in names & set(given)})
    return asked.sweep(), given["out"]


def words_of(config: TrainConfig, *more: object) -> str:
    """Return the command that trains one LoRA run, which `sweep_of` reads, with `more` options."""
    from subspace.training.config import TrainConfig
    from subspace.training.targets import typed

    words: list[object] = ["subspace", "train"]
    for field in fields(TrainConfig):
        value = getattr(config, field.name)
        # Without --targets a model's own query and value projections are adapted.
        implied = field.name != "targets" or config.model == TrainConfig.model
        if field.name == "method" or (value == field.default and implied):
            continue
        option = "--lr" if field.name == "learning_rate" else f"--{field.name.replace('_', '-')}"
        words.append(option)
        if field.name == "targets":
            words.append(value if isinstance(value, str) else typed(value))
        elif value is not True:
            words.append(value)
    return hints.quote_command([*words, *more])


def _write(cells: Sequence[SweepRun], output: Output) -> None:
    from subspace.cli.sweep_table import echo_cells_csv, echo_table6, show_cells
    from subspace.results import SCHEMA_VERSION
    from subspace.training.sweep.summary import make_table6

    learned = [cell for cell in cells if not cell.config.shuffle_labels]
    # Beside runs of the task a control would pass for one more.
    table = make_table6(learned or cells)

    def show() -> None:
        if output.form == "csv":
            echo_cells_csv(cells)
        elif output.form in ("markdown", "latex"):
            echo_table6(table, "markdown" if output.form == "markdown" else "latex")
        else:
            show_cells(cells)
            if len(cells) > 1:
                click.echo()
                echo_table6(table, "text")

    def draw(style: FigureStyle) -> Figure:
        from subspace.plots.accuracy.figure import accuracy_figure

        return accuracy_figure(table, width=style.width)

    output.emit(
        json=lambda: {
            "schema_version": SCHEMA_VERSION,
            "kind": "training-runs",
            "runs": [cell.to_dict() for cell in cells],
            "table": table.to_dict(),
        },
        show=show,
        draw=draw,
        next_commands=_next(cells),
    )


def _next(cells: Sequence[SweepRun]) -> list[str]:
    """Return the command that compares the first run with another of the same modules."""
    from subspace.adapters.find import WEIGHTS

    there = [
        cell
        for cell in cells
        if cell.config.method == "lora" and any((cell.folder / w).is_file() for w in WEIGHTS)
    ]
    alike = [
        cell.folder
        for cell in there
        if (cell.config.model, cell.config.targets)
        == (there[0].config.model, there[0].config.targets)
    ]
    return [hints.suggest("similarity", alike[:2])] if len(alike) > 1 else []
