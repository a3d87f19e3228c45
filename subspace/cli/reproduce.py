"""``subspace reproduce``: the paper's chain of argument on a model of one's own, in one command."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from subspace.cli import options
from subspace.cli.places import check_folder, check_runs
from subspace.cli.printing import say, sweep_progress
from subspace.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from subspace.cli.gallery_runs import Compared
    from subspace.training.config import TrainConfig
    from subspace.training.grid import Sweep
    from subspace.training.sweep import Cell

# 8 and 64 are among the ranks, for they are compared.
QUICK = "--ranks 1,8,64 --seeds 0,1 --reference head --steps 120 --warmup 10 --eval-every 60"
WHOLE = "--ranks 1,2,4,8,64 --seeds 0,1,2 --reference head --steps 300 --warmup 20 --eval-every 100"
_COLUMNS = ("text_column", "label_column", "pair_column", "completion_column")
_TRAINING = ("model", "data", "targets", "lr", "max_length", "alpha", *_COLUMNS)


@click.command()
@click.argument("folders", metavar="[RUN]…", nargs=-1, type=click.Path(path_type=Path))
@click.option("--quick", is_flag=True, help="Fewer ranks, seeds and steps: some minutes.")
@click.option(
    "--config",
    "configs",
    metavar="TOML",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A sweep as `train --config` reads it; of several the first data set's runs are compared.",
)
@click.option("--model", default="minilm", show_default=True, help="As in train.")
@click.option("--base", metavar="MODEL", help="The checkpoint that --model names.  [default: it]")
@click.option("--data", default="icd10", show_default=True, help="As in train.")
@click.option("--targets", help="As in train.")
@click.option(
    "--lr", metavar="[METHOD:]X[,X…]", default="4e-3", show_default=True, help="As in train."
)
@click.option("--max-length", default=32, show_default=True, help="Tokens a text is cut to.")
@click.option("--alpha", help="As in train.")
@click.option("--text-column", help="Of a file of --data, as in train; likewise the next three.")
@click.option("--label-column")
@click.option("--pair-column")
@click.option("--completion-column")
@click.option(
    "--compare",
    metavar="TARGETS",
    help="Of several target sets the one whose directions are compared.  [default: query,value]",
)
@click.option("--jobs", default=1, show_default=True, help="Runs at a time, sharing the cores.")
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("reproduced"),
    show_default=True,
    help="Figures, tables, the page README.md and DIR/adapters go here.",
)
def command(
    folders: tuple[Path, ...],
    out: Path,
    quick: bool,
    configs: tuple[Path, ...],
    base: str | None,
    compare: str | None,
    jobs: int,
    **_training: Any,  # noqa: ANN401 - told on to `train`, which checks them
) -> None:
    """Train a sweep of ranks and seeds, and retell the LoRA paper's argument with its numbers.

    Rank over accuracy (Table 6); which directions r = 8 and r = 64, and two seeds, share (Figures
    3, 4, 6, 7), beside runs on shuffled labels; where the update lies in W (Figure 8) and what it
    amplifies (Table 7). Run again it trains nothing twice: a finished run is used, a killed one
    goes on. README.md in --out says what was found, with every command. Folders of runs that are
    trained already are taken as they are.

    \b
        subspace reproduce --quick --jobs 2
        subspace reproduce --model ./my-bert --data texts.csv --targets q_lin,v_lin --out mine
        subspace reproduce --config data/sweep-icd10.toml --out figures
        subspace reproduce runs/ --base ./my-bert --out mine
    """  # noqa: D301 - click wants the real character
    from subspace.cli.amplification import open_base
    from subspace.cli.gallery import write_gallery
    from subspace.cli.gallery_runs import adapters_of, compared
    from subspace.training.folder import read_record

    check_folder(out)
    words = options.command_line("jobs")
    wanted = None if compare is None else "+".join(part.strip() for part in compare.split(","))
    if folders:
        from subspace.training.found import find_runs

        _refuse_training(quick, configs)
        if base is None:
            raise ArgumentError("what are these runs of? give their checkpoint with --base MODEL")
        checkpoint = open_base(base)
        cells = find_runs(folders)
        chosen = compared(cells, wanted)
    else:
        sweeps = _sweeps(quick, configs, out)
        base = base or sweeps[0][0].options.model
        checkpoint = open_base(base)
        _refuse_before_training(sweeps, wanted)
        check_runs(sweeps)
        runs: dict[TrainConfig, Cell] = {}
        for sweep, place in sweeps:
            for cell in _run(sweep, place, jobs):
                runs.setdefault(cell.config, cell)  # two sweeps may have one reference
        cells = list(runs.values())
        chosen = compared(cells, wanted)
        chosen = replace(chosen, controls=_controls(chosen, sweeps[0][0], jobs))
    kept = {
        cell.folder: _kept(cell, out, retrain=not folders)
        for cell in (chosen.small, *chosen.large, *chosen.controls)
    }
    trained = [
        # One that was trained again has a new record.
        replace(cell, record=read_record(cell.folder)) if cell.folder in kept else cell
        for cell in cells
        if not cell.config.shuffle_labels
    ]
    word = base if base == "minilm" else "MODEL"  # a relative path is none within the gallery
    for line in write_gallery(trained, adapters_of(chosen, kept), checkpoint, out, words, word):
        say(line)
    click.echo(f"wrote {out / 'README.md'}", err=True)


def _refuse_training(quick: bool, configs: Sequence[Path]) -> None:
    """Refuse what trained runs could only ignore."""
    said = [f"--{name.replace('_', '-')}" for name in _TRAINING if options.given(name)]
    said += ["--quick"] * quick + ["--config"] * bool(configs)
    if said:
        raise ArgumentError(
            f"{said[0]} is for training, and the runs given are taken as they are; leave out one "
            "or the other"
        )


def _refuse_before_training(sweeps: Sequence[tuple[Sweep, Path]], targets: str | None) -> None:
    """Refuse what could not be compared once it is trained."""
    from subspace.cli.gallery_runs import compared
    from subspace.training.found import refuse_mixed
    from subspace.training.sweep import Cell

    planned = [
        Cell(place / sweep.place(config), replace(config, seed=seed), {}, reused=False)
        for sweep, place in sweeps
        for config, *_ in sweep.groups()
        for seed in sweep.seeds
    ]
    refuse_mixed(planned)
    compared(planned, targets)


def _sweeps(quick: bool, configs: Sequence[Path], out: Path) -> list[tuple[Sweep, Path]]:
    """Return each sweep with the folder of its runs."""
    from subspace.cli.train import sweep_of

    own = [f"--out={out / 'runs'}"]
    given = [
        f"--{name.replace('_', '-')}={click.get_current_context().params[name]}"
        for name in _TRAINING
        if options.given(name)
    ]
    if configs:
        if quick:
            raise ArgumentError("--quick is a sweep, and --config is another; give one of them")
        return [sweep_of([f"--config={config}", *given]) for config in configs]
    return [sweep_of([*(QUICK if quick else WHOLE).split(), *given, *own])]


def _run(sweep: Sweep, runs: Path, jobs: int) -> list[Cell]:
    """Train what is not there; of a finished run the record is enough."""
    from subspace.training.sweep import run_sweep

    with sweep_progress(sweep.runs, sweep.options.steps) as (tell, ended):
        cells = run_sweep(sweep, runs, jobs=jobs, weights=False, progress=tell, finished=ended)
    failed = [cell for cell in cells if cell.record is None]
    if failed:
        raise ArgumentError(
            f"{len(failed)} of {len(cells)} runs failed, the first: {failed[0].folder}: "
            f"{failed[0].error}; mend that (what is in the way can be deleted, or --out be another "
            "folder) and run the command again"
        )
    return cells


def _controls(chosen: Compared, sweep: Sweep, jobs: int) -> tuple[Cell, ...]:
    """Train the runs on shuffled labels beside those that they stand for."""
    config = chosen.large[0].config
    control = replace(
        sweep,
        options=replace(config, shuffle_labels=True),
        data=(config.data,),
        targets=(config.targets,),
        ranks=(config.rank,),
        seeds=tuple(cell.config.seed for cell in chosen.large[:2]),
        references=(),
        rates={},
    )
    return tuple(_run(control, chosen.large[0].folder.parent, jobs))


def _kept(cell: Cell, out: Path, *, retrain: bool) -> Path:
    """Return the copy that the figures are drawn from."""
    from subspace.cli.gallery import ADAPTERS
    from subspace.training.keep import kept
    from subspace.training.run import train

    copy = kept(cell, out / ADAPTERS)
    if copy is None and not retrain:
        raise ArgumentError(f"{cell.folder}: has a record and no weights; train it again")
    if copy is None:
        click.echo(f"{cell.folder}: its weights are not here; training it again", err=True)
        with _threads((cell.record or {}).get("threads")):
            train(cell.config, cell.folder, overwrite=True)
        copy = kept(cell, out / ADAPTERS)
    if copy is None:
        raise ArgumentError(f"{cell.folder}: its weights are not there after training")
    return copy


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    """Compute with so many, since another number rounds otherwise."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
