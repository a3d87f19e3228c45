"""``subspace train``: one run or a sweep of them, each with its initial A and record; Table 6."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from subspace.cli.shared import hints, options
from subspace.cli.shared.places import check_figure, check_runs
from subspace.cli.shared.printing import echo_json
from subspace.cli.shared.progress import sweep_progress
from subspace.cli.shared.sweep_options import training_options
from subspace.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from subspace.training.sweep.grid import Sweep
    from subspace.training.sweep.run import SweepRun

_PRINTING = (
    "folders", "as_json", "as_csv", "as_markdown", "as_latex", "draw", "style", "width", "dpi"
)  # fmt: skip


@click.command()
@click.argument("folders", metavar="[RUN]…", nargs=-1, type=click.Path(path_type=Path))
@training_options
@click.option(
    "--json", "as_json", is_flag=True, help="Print every run's whole record and Table 6 as JSON."
)
@click.option("--csv", "as_csv", is_flag=True, help="Print one line a run as CSV.")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print Table 6 for a model card.")
@click.option(
    "--latex", "as_latex", is_flag=True, help="Print Table 6 for a paper (LaTeX, booktabs)."
)
@click.option(
    "--draw",
    metavar="FIG",
    type=click.Path(path_type=Path),
    help="Draw accuracy over rank, test and training texts, as .png, .svg or .pdf.",
)
@options.look_options
def command(
    folders: tuple[Path, ...],
    ranks: list[int],
    seeds: list[int],
    targets: tuple[str, ...],
    data: tuple[str, ...],
    references: tuple[str, ...],
    lr: dict[str, tuple[float, ...]],
    out: Path,
    jobs: int,
    checkpoint_every: int,
    records: bool,
    overwrite: bool,
    as_json: bool,
    as_csv: bool,
    as_markdown: bool,
    as_latex: bool,
    draw: Path | None,
    **shared: Any,  # noqa: ANN401 - click's values, checked by TrainConfig
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
    options.one_output(json=as_json, csv=as_csv, markdown=as_markdown, latex=as_latex)
    if draw is not None:
        check_figure(draw)
        if len(data) > 4 or len(targets) > 7:
            raise ArgumentError("--draw shows up to 4 data sets of up to 7 target sets")
    else:
        options.refuse_look("--draw")
    if folders:
        from subspace.training.sweep.read import find_runs

        every = {str(parameter.name) for parameter in click.get_current_context().command.params}
        options.refuse_beside_runs(every - set(_PRINTING))
        _write(find_runs(folders), draw, as_json, as_csv, as_markdown, as_latex)
        return
    from subspace.training.sweep.train import run_sweep

    sweep = _sweep(ranks, seeds, targets, data, references, lr, shared)
    check_runs([(sweep, out)], overwrite=overwrite)
    with sweep_progress(sweep.runs, sweep.options.steps) as (tell, ended):
        cells = run_sweep(
            sweep,
            out,
            jobs=jobs,
            overwrite=overwrite,
            weights=not records,
            checkpoint_every=checkpoint_every,
            progress=tell,
            finished=ended,
        )
    _write(cells, draw, as_json, as_csv, as_markdown, as_latex)
    failed = sum(cell.record is None for cell in cells)
    if failed:
        click.echo(
            f"{failed} of {len(cells)} runs failed; mend what is said of them and run the command "
            "again, which trains those alone",
            err=True,
        )
        click.get_current_context().exit(1)


def sweep_of(words: list[str]) -> tuple[Sweep, Path]:
    """Read a sweep, and the folder of its runs, as this verb's options say them."""
    from subspace.training.config import TrainConfig

    with command.make_context("subspace train", words) as context:
        given = dict(context.params)
    names = ("ranks", "seeds", "targets", "data", "references", "lr")
    axes = {name: given.pop(name) for name in names}
    shared = {field.name for field in fields(TrainConfig)} & set(given)
    return _sweep(**axes, shared={name: given[name] for name in shared}), given["out"]


def _sweep(
    ranks: Sequence[int],
    seeds: Sequence[int],
    targets: Sequence[str],
    data: Sequence[str],
    references: Sequence[str],
    lr: dict[str, tuple[float, ...]],
    shared: dict[str, Any],
) -> Sweep:
    from subspace.training.config import TrainConfig
    from subspace.training.sweep.grid import Sweep
    from subspace.training.targets import default_targets, read_targets

    rates = {"lora": (4e-3,), "full": (1e-4,), "head": (4e-3,)} | lr
    sets = tuple(map(read_targets, targets))
    if not sets:
        sets = (default_targets(shared.get("model", "minilm")),)
    first = TrainConfig(data=data[0], targets=sets[0], learning_rate=rates["lora"][0], **shared)
    return Sweep(first, tuple(data), sets, tuple(ranks), tuple(seeds), tuple(references), rates)


def _write(
    cells: Sequence[SweepRun],
    draw: Path | None,
    as_json: bool,
    as_csv: bool,
    as_markdown: bool,
    as_latex: bool,
) -> None:
    from subspace.cli.sweep_table import echo_cells_csv, echo_table6, show_cells
    from subspace.results import SCHEMA_VERSION
    from subspace.training.sweep.summary import table6

    learned = [cell for cell in cells if not cell.config.shuffle_labels]
    table = table6(learned or cells)  # beside runs of the task a control would pass for one more
    if draw is not None:
        from subspace.plots.accuracy import accuracy_figure
        from subspace.plots.save import save

        look = options.look()
        save(accuracy_figure(table, width=look.width), draw, dpi=look.dpi)
    if as_json:
        runs = [cell.to_dict() for cell in cells]
        plain = {"schema_version": SCHEMA_VERSION, "kind": "training-runs"}
        echo_json(plain | {"runs": runs, "table": table.to_dict()})
    elif as_csv:
        echo_cells_csv(cells)
    elif as_markdown or as_latex:
        echo_table6(table, "markdown" if as_markdown else "latex")
    else:
        show_cells(cells)
        if len(cells) > 1:
            click.echo()
            echo_table6(table, "text")
        hints.conclude(draw, *_next(cells))


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
    return [hints.then("similarity", alike[:2])] if len(alike) > 1 else []
