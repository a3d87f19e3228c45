"""``subspace reproduce``: the paper's chain of argument on a model of one's own, in one command."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from subspace.cli.shared import options, output, reading
from subspace.cli.shared.places import check_folder, check_runs
from subspace.cli.shared.printing import say
from subspace.cli.shared.progress import sweep_progress
from subspace.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from subspace.cli.shared.output import Output
    from subspace.results import Reproduction
    from subspace.training.config import TrainConfig
    from subspace.training.sweep.grid import Sweep
    from subspace.training.sweep.run import SweepRun

# 8 and 64 are among the ranks, for they are compared.
QUICK = "--ranks 1,8,64 --seeds 0,1 --reference head --steps 120 --warmup 10 --eval-every 60"
WHOLE = "--ranks 1,2,4,8,64 --seeds 0,1,2 --reference head --steps 300 --warmup 20 --eval-every 100"
_COLUMNS = ("text_column", "label_column", "pair_column", "completion_column")
TRAINING = (
    "model", "data", "ranks", "seeds", "steps", "targets", "lr", "max_length", "alpha", *_COLUMNS
)  # fmt: skip
"""Options that only training heeds."""


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
    help="Optimiser steps of each run; warm-up and evaluations in proportion.  "
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
    csv="Write the same as CSV, one line per number.",
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
    from subspace.gallery.figures import Commands
    from subspace.gallery.runs import choose_runs, load_adapters
    from subspace.gallery.sweeps import keep_copy, plan_controls, refuse_before_training
    from subspace.gallery.write import write_gallery
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
        runs = find_runs(folders)
        chosen = choose_runs(runs, wanted, weights=True)
        places = {run.folder: run.folder for run in chosen.runs}
    else:
        asked = _read_sweeps(quick, configs, out)
        first, _ = asked[0]
        base = base or first.options.model
        checkpoint = reading.open_base(base)
        refuse_before_training(asked, wanted)
        check_runs(asked)
        once: dict[TrainConfig, SweepRun] = {}
        for sweep, place in asked:
            for run in _train(sweep, place, jobs):
                once.setdefault(run.config, run)  # two sweeps may have one reference
        runs = list(once.values())
        chosen = choose_runs(runs, wanted)
        chosen = replace(chosen, controls=tuple(_train(*plan_controls(chosen, first), jobs)))
        places = {run.folder: keep_copy(run, out, _warn) for run in chosen.runs}
    trained = [
        # One that was trained again has a new record.
        replace(run, record=read_record(run.folder)) if run.folder in places else run
        for run in runs
        if not run.config.shuffle_labels
    ]
    adapters = load_adapters(chosen, places)
    within = folders or (out,)
    commands = Commands(
        command=words,
        folder=options.portable(out),
        base=options.portable(base),
        runs={each.name: _portable(each.path, within) for each in adapters.adapters},
        absent={
            run.config.run_name: words_of(
                run.config, "--overwrite", "--out", _portable(run.folder, within)
            )
            for run in chosen.absent
        },
    )
    made = write_gallery(trained, adapters, checkpoint, out, commands)
    output.emit(
        made,
        show=lambda: show(made),
        wrote=out / "README.md",
    )


def show(made: Reproduction) -> None:
    """Print the findings."""
    for sentence in made.findings:
        say(sentence)


def _read_sweeps(quick: bool, configs: Sequence[Path], out: Path) -> list[tuple[Sweep, Path]]:
    """Return each sweep that the running command asks for, with the folder of its runs."""
    from subspace.gallery.sweeps import leave_out_head

    typed = {
        f"--{name.replace('_', '-')}": str(click.get_current_context().params[name])
        for name in TRAINING
        if options.given(name)
    }
    if not configs:
        words = (QUICK if quick else WHOLE).split()
        preset = dict(zip(words[::2], words[1::2], strict=True))
        sweep, runs = _read_sweep(_shorten(preset, typed) | typed | {"--out": str(out / "runs")})
        return [(leave_out_head(sweep), runs)]
    if quick:
        raise ArgumentError("--quick is a sweep, and --config is another; give one of them")
    return [_read_sweep({"--config": str(config)} | typed) for config in configs]


def _read_sweep(words: Mapping[str, str]) -> tuple[Sweep, Path]:
    from subspace.cli.train import sweep_of

    try:
        return sweep_of([f"{name}={value}" for name, value in words.items()])
    except click.UsageError as error:
        error.ctx = click.get_current_context()  # the usage to show is this verb's
        raise


def _shorten(preset: Mapping[str, str], typed: Mapping[str, str]) -> dict[str, str]:
    """Return the preset with its warm-up and evaluations in proportion to the steps asked for."""
    shortened = dict(preset)
    if "--steps" in typed:
        for name in ("--warmup", "--eval-every"):
            part = int(preset[name]) / int(preset["--steps"])
            shortened[name] = str(max(1, round(part * int(typed["--steps"]))))
    return shortened


def _train(sweep: Sweep, folder: Path, jobs: int) -> list[SweepRun]:
    from subspace.gallery.sweeps import train_runs

    with sweep_progress(sweep.runs, sweep.options.steps) as (tell, finish):
        return train_runs(sweep, folder, jobs=jobs, progress=tell, finished=finish)


def _warn(line: str) -> None:
    click.echo(line, err=True)


def _portable(place: Path | None, within: Sequence[Path]) -> str:
    """Name a folder below one that was given as `options.portable` names that one."""
    for given in within:
        if place is not None and place.is_relative_to(given):
            return str(Path(options.portable(given)) / place.relative_to(given))
    return options.portable(place)
