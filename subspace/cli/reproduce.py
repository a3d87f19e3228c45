"""``subspace reproduce``: the paper's chain of argument on a model of one's own, in one command."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from subspace.cli.shared import options, output, reading
from subspace.cli.shared.places import check_folder, check_runs
from subspace.cli.shared.printing import say
from subspace.errors import ArgumentError
from subspace.gallery.sweeps import (
    TRAINING,
    controls,
    kept_copy,
    refuse_before_training,
    run,
    sweeps,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from subspace.cli.shared.output import Output
    from subspace.results import Reproduction
    from subspace.training.config import TrainConfig
    from subspace.training.sweep.run import SweepRun


@click.command()
@click.argument("folders", metavar="[RUN]…", nargs=-1, type=click.Path(path_type=Path))
@click.option("--quick", is_flag=True, help="Three ranks, two seeds and 120 steps: some minutes.")
@click.option(
    "--config",
    "configs",
    metavar="TOML",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A sweep in a file, as `train --config` reads it; repeat it for several, of which the "
    "first data set's runs are compared.",
)
@click.option(
    "--model",
    default="minilm",
    show_default=True,
    help="The pretrained model: the embedded MiniLM, a local folder, or a Hugging Face name.",
)
@click.option(
    "--base",
    metavar="MODEL",
    help="The same checkpoint for Table 7 and Figure 8; needed beside RUN.  [default: --model]",
)
@click.option(
    "--data",
    default="icd10",
    show_default=True,
    help="What to learn: a bundled task, TASK:FILE, a .jsonl or .csv file, or a folder of train, "
    "validation and test files.",
)
@click.option(
    "--ranks",
    metavar="N[,N…]",
    help="Ranks r to train, two or more.  [default: 1,2,4,8,64; with --quick 1,8,64]",
)
@click.option(
    "--seeds",
    metavar="N[,N…]",
    help="Seeds of each rank, two or more.  [default: 0,1,2; with --quick 0,1]",
)
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    help="Optimiser steps of each run; warm-up and looks in proportion.  "
    "[default: 300; with --quick 120]",
)
@click.option(
    "--targets",
    help="Ends of the names of the modules to adapt, with commas; or all-linear, or re:PATTERN.  "
    "[default: the query and value projections]",
)
@click.option(
    "--lr",
    "--learning-rate",
    "lr",
    metavar="[METHOD:]X[,X…]",
    default="4e-3",
    show_default=True,
    help="Learning rate; of several the best on validation texts.",
)
@click.option(
    "--max-length", default=32, show_default=True, help="Tokens that a longer text is cut to."
)
@click.option(
    "--alpha", help="LoRA's alpha: a number, or a multiple of the rank, such as 2r.  [default: 16]"
)
@click.option("--text-column", help="Column of a --data file with the text.  [default: text]")
@click.option("--label-column", help="Column with the text's class.  [default: label]")
@click.option("--pair-column", help="Column with a second text, where pairs are classified.")
@click.option(
    "--completion-column", help="Column with what a language model is to write after the text."
)
@click.option(
    "--compare",
    metavar="TARGETS",
    help="Of several target sets the one whose directions are compared, such as q_proj,v_proj.  "
    "[default: the query and value projections, else the first]",
)
@click.option(
    "--jobs",
    default=1,
    show_default=True,
    help="Runs at a time; above 1 in processes of their own that share the cores.",
)
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("reproduced"),
    show_default=True,
    help="Figures, tables, the page README.md, and DIR/adapters of what was trained go here.",
)
@output.output(
    "json",
    "csv",
    json="Write as JSON what was made: files, Tables 6 and 7, claims, findings.",
    csv="Write the same as CSV, one line a number.",
)
def command(
    folders: tuple[Path, ...],
    out: Path,
    quick: bool,
    configs: tuple[Path, ...],
    base: str | None,
    compare: str | None,
    jobs: int,
    output: Output,
    **_training: Any,  # noqa: ANN401 - told on to `train`, which checks them
) -> None:
    """Train a sweep of ranks and seeds, and retell the LoRA paper's argument with its numbers.

    Rank over accuracy (Table 6); which directions r = 8 and r = 64, and two seeds, share (Figures
    3, 4, 6, 7), beside runs on shuffled labels; where the update lies in W (Figure 8) and what it
    amplifies (Table 7). Run again it trains nothing twice: a finished run is used, a killed one
    goes on. README.md in --out says what was found, with every command. Folders of runs that are
    trained already are taken as they are, and those with weights are compared; --ranks to --alpha
    and the columns are for training.

    \b
        subspace reproduce --quick --jobs 2
        subspace reproduce --ranks 4,16 --seeds 0,1 --steps 60 --out small
        subspace reproduce --model ./my-bert --data texts.csv --targets q_lin,v_lin --out mine
        subspace reproduce --config data/sweep-icd10.toml --out figures
        subspace reproduce runs/ --base ./my-bert --out mine
    """  # noqa: D301 - click wants the real character
    from subspace.cli.train import words_of
    from subspace.gallery.runs import adapters_of, compared
    from subspace.gallery.write import Typed, write_gallery
    from subspace.training.folder import read_record

    check_folder(out)
    words = options.command_line("jobs", "json", "csv")
    wanted = None if compare is None else "+".join(part.strip() for part in compare.split(","))
    if folders:
        from subspace.training.sweep.read import find_runs

        options.refuse_beside_runs((*TRAINING, "quick", "configs"))
        if base is None:
            raise ArgumentError("what are these runs of? give their checkpoint with --base MODEL")
        checkpoint = reading.open_base(base)
        cells = find_runs(folders)
        chosen = compared(cells, wanted, weights=True)
        places = {cell.folder: cell.folder for cell in chosen.cells}
    else:
        asked = sweeps(quick, configs, out)
        first, _ = asked[0]
        base = base or first.options.model
        checkpoint = reading.open_base(base)
        refuse_before_training(asked, wanted)
        check_runs(asked)
        runs: dict[TrainConfig, SweepRun] = {}
        for sweep, place in asked:
            for cell in run(sweep, place, jobs):
                runs.setdefault(cell.config, cell)  # two sweeps may have one reference
        cells = list(runs.values())
        chosen = compared(cells, wanted)
        chosen = replace(chosen, controls=controls(chosen, first, jobs))
        places = {cell.folder: kept_copy(cell, out) for cell in chosen.cells}
    trained = [
        # One that was trained again has a new record.
        replace(cell, record=read_record(cell.folder)) if cell.folder in places else cell
        for cell in cells
        if not cell.config.shuffle_labels
    ]
    adapters = adapters_of(chosen, places)
    within = folders or (out,)
    typed = Typed(
        command=words,
        folder=options.portable(out),
        base=options.portable(base),
        runs={each.name: _portable(each.path, within) for each in adapters.adapters},
        absent={
            cell.config.run_name: words_of(
                cell.config, "--overwrite", "--out", _portable(cell.folder, within)
            )
            for cell in chosen.absent
        },
    )
    made = write_gallery(trained, adapters, checkpoint, out, typed)
    output.emit(
        made,
        show=lambda: show(made),
        wrote=out / "README.md",
    )


def show(made: Reproduction) -> None:
    """Print the findings."""
    for sentence in made.findings:
        say(sentence)


def _portable(place: Path | None, within: Sequence[Path]) -> str:
    """Name a folder below one that was given as `options.portable` names that one."""
    for given in within:
        if place is not None and place.is_relative_to(given):
            return str(Path(options.portable(given)) / place.relative_to(given))
    return options.portable(place)
