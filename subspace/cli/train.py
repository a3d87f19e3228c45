"""``subspace train``: one run or a sweep of them, each with its initial A and record; Table 6."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from subspace.cli import options
from subspace.cli.places import check_figure, check_runs
from subspace.cli.printing import echo_json, ended, sweep_progress
from subspace.cli.sweep_options import read_file, read_numbers, read_rates
from subspace.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from subspace.training.grid import Sweep
    from subspace.training.sweep import Cell


@click.command()
@click.option(
    "--rank",
    "--ranks",
    "ranks",
    multiple=True,
    callback=read_numbers,
    metavar="N[,N…]",
    default=("8",),
    show_default=True,
    help="Rank r of the update, the columns of B and rows of A; a list trains each.",
)
@click.option(
    "--seed",
    "--seeds",
    "seeds",
    multiple=True,
    callback=read_numbers,
    metavar="N[,N…]",
    default=("0",),
    show_default=True,
    help="Seed of all that is random: the head's and A's start, the order of texts; a list trains "
    "each rank with every seed.",
)
@click.option(
    "--targets",
    multiple=True,
    help="Modules to adapt, by the ends of their names, with commas; all-linear; or re:PATTERN for "
    "whole names, also behind a comma. Repeat it for several sets.  [default: the model's query "
    "and value projections]",
)
@click.option(
    "--data",
    multiple=True,
    default=("icd10",),
    show_default=True,
    help="What to learn: a bundled task (icd10, icd10-pairs, wikisql-agg, wikisql-sql, snli), "
    "TASK:FILE, a .jsonl or .csv file, a folder of train, validation and test files, or a Hugging "
    "Face data set OWNER/NAME. Repeat it for several.",
)
@click.option(
    "--reference",
    "references",
    multiple=True,
    type=click.Choice(("full", "head")),
    help="Train this too, to compare with: all weights (full), or the new head alone. Repeatable.",
)
@click.option(
    "--lr",
    multiple=True,
    callback=read_rates,
    metavar="[METHOD:]X[,X…]",
    default=("4e-3", "full:1e-4", "head:4e-3"),
    show_default=True,
    help="Learning rate at its peak, of LoRA or of a METHOD (lora, full, head). Of several, each "
    "rank and target set goes on with the one that is best on validation texts.",
)
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=Path),
    default=Path("runs"),
    show_default=True,
    help="Folder of the run; of several runs, the folder that holds one for each.",
)
@click.option(
    "--config",
    metavar="TOML",
    type=click.Path(path_type=Path),
    callback=read_file,
    is_eager=True,
    expose_value=False,
    help="Read these options from a file, by their names without dashes before; options typed here "
    "stand before it.",
)
@click.option(
    "--model",
    default="minilm",
    show_default=True,
    help="Pretrained model: the embedded MiniLM, a local folder (config.json and weights), or a "
    "Hugging Face name.",
)
@click.option(
    "--text-column",
    default="text",
    show_default=True,
    help="Column of a --data file with the text, or the prompt.",
)
@click.option(
    "--pair-column",
    default="",
    help="Column with a second text, where pairs of texts are classified.",
)
@click.option(
    "--label-column", default="label", show_default=True, help="Column with the text's class."
)
@click.option(
    "--completion-column",
    default="",
    help="Column with what a language model is to write after the text; the task is then to write.",
)
@click.option(
    "--alpha",
    default="16",
    show_default=True,
    help="LoRA's alpha; the update is B A times alpha / r. A number for every rank (the paper's "
    "way), or a multiple of the rank, such as 2r.",
)
@click.option("--rslora", is_flag=True, help="Take alpha / sqrt(r) in place of alpha / r (rsLoRA).")
@click.option(
    "--schedule",
    type=click.Choice(("linear", "cosine", "constant_with_warmup")),
    default="linear",
    show_default=True,
    help="The learning rate after the warm-up: down to 0 in a line or a cosine, or as it is.",
)
@click.option("--steps", default=300, show_default=True, help="Optimiser steps of a run.")
@click.option(
    "--warmup",
    default=20,
    show_default=True,
    help="Of these, steps in which the learning rate rises to its peak.",
)
@click.option("--batch", default=32, show_default=True, help="Texts in a batch.")
@click.option(
    "--accumulate",
    default=1,
    show_default=True,
    help="Batches whose gradients are added up to one optimiser step.",
)
@click.option(
    "--bf16", is_flag=True, help="Compute in bfloat16 if a GPU has it; weights stay in float32."
)
@click.option(
    "--max-length", default=32, show_default=True, help="Tokens that a longer text is cut to."
)
@click.option(
    "--eval-every",
    default=50,
    show_default=True,
    help="Steps between two looks at the accuracy on training and validation texts; 0: at the end "
    "alone.",
)
@click.option(
    "--eval-texts",
    default=420,
    show_default=True,
    help="Texts of each split in such a look; of a task of writing also the test texts that are "
    "written.",
)
@click.option(
    "--shuffle-labels",
    is_flag=True,
    help="Train a control: the same texts with their labels permuted, so that there is no task.",
)
@click.option(
    "--jobs",
    default=1,
    show_default=True,
    help="Runs at a time; above 1 in processes of their own that share the cores.",
)
@click.option(
    "--checkpoint-every",
    default=100,
    show_default=True,
    help="Steps between checkpoints, from the last of which a killed run goes on; 0: none.",
)
@click.option(
    "--records",
    is_flag=True,
    help="Take a run as done if its training.json is there, even without the weights.",
)
@click.option("--overwrite", is_flag=True, help="Train again, and replace the runs that are there.")
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
    was killed goes on from its last checkpoint; one that fails stops no other.

    \b
        subspace train --rank 8 --out runs/r8                    runs/r8
        subspace train --ranks 8,64 --seeds 0,1 --out runs       runs/r8-seed0 … runs/r64-seed1
        subspace train --ranks 1,8 --targets query --targets query,value --reference head
        subspace train --config sweep.toml --jobs 2
        subspace train --data texts.csv --model ./my-bert --targets all-linear --out runs/mine
        subspace train --rank 8 --shuffle-labels --out runs/control
    """  # noqa: D301 - click wants the real character
    options.one_output(json=as_json, csv=as_csv, markdown=as_markdown, latex=as_latex)
    if draw is not None:
        check_figure(draw)
        if len(data) > 4 or len(targets) > 7:
            raise ArgumentError("--draw shows up to 4 data sets of up to 7 target sets")
    else:
        options.refuse_look("--draw")
    from subspace.training.sweep import run_sweep

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
    from subspace.training.grid import Sweep
    from subspace.training.targets import default_targets, read_targets

    rates = {"lora": (4e-3,), "full": (1e-4,), "head": (4e-3,)} | lr
    sets = tuple(map(read_targets, targets))
    if not sets:
        sets = (default_targets(shared.get("model", "minilm")),)
    first = TrainConfig(data=data[0], targets=sets[0], learning_rate=rates["lora"][0], **shared)
    return Sweep(first, tuple(data), sets, tuple(ranks), tuple(seeds), tuple(references), rates)


def _write(
    cells: Sequence[Cell],
    draw: Path | None,
    as_json: bool,
    as_csv: bool,
    as_markdown: bool,
    as_latex: bool,
) -> None:
    from subspace.cli.sweep_table import echo_cells_csv, echo_table6, show_cells
    from subspace.results import SCHEMA_VERSION
    from subspace.training.summary import table6

    table = table6(cells)
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
        ended(draw, "subspace similarity RUN RUN compares two of these runs")
