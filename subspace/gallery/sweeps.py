"""The runs that ``subspace reproduce`` trains: a sweep, its controls, and what is kept of them."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from subspace.cli.shared import options
from subspace.cli.shared.progress import sweep_progress
from subspace.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from subspace.gallery.runs import Compared
    from subspace.training.sweep.grid import Sweep
    from subspace.training.sweep.run import SweepRun

# 8 and 64 are among the ranks, for they are compared.
QUICK = "--ranks 1,8,64 --seeds 0,1 --reference head --steps 120 --warmup 10 --eval-every 60"
WHOLE = "--ranks 1,2,4,8,64 --seeds 0,1,2 --reference head --steps 300 --warmup 20 --eval-every 100"
_COLUMNS = ("text_column", "label_column", "pair_column", "completion_column")
ADAPTERS = "adapters"
"""Within the gallery: copies of the compared runs, where they were trained for it."""
TRAINING = (
    "model", "data", "ranks", "seeds", "steps", "targets", "lr", "max_length", "alpha", *_COLUMNS
)  # fmt: skip
"""Options that only training heeds."""


def refuse_before_training(asked: Sequence[tuple[Sweep, Path]], targets: str | None) -> None:
    """Refuse what could not be compared once it is trained."""
    from subspace.gallery.runs import compared
    from subspace.training.sweep.read import refuse_mixed
    from subspace.training.sweep.run import SweepRun

    planned = [
        SweepRun(
            folder=place / sweep.place(config),
            config=replace(config, seed=seed),
            record={},
            reused=False,
        )
        for sweep, place in asked
        for config, *_ in sweep.groups()
        for seed in sweep.seeds
    ]
    refuse_mixed(planned)
    compared(planned, targets)


def sweeps(quick: bool, configs: Sequence[Path], out: Path) -> list[tuple[Sweep, Path]]:
    """Return each sweep that the running command asks for, with the folder of its runs."""
    given = {
        f"--{name.replace('_', '-')}": str(click.get_current_context().params[name])
        for name in TRAINING
        if options.given(name)
    }
    if not configs:
        words = (QUICK if quick else WHOLE).split()
        preset = dict(zip(words[::2], words[1::2], strict=True))
        sweep, runs = _sweep(_shortened(preset, given) | given | {"--out": str(out / "runs")})
        return [(_without_head(sweep), runs)]
    if quick:
        raise ArgumentError("--quick is a sweep, and --config is another; give one of them")
    return [_sweep({"--config": str(config)} | given) for config in configs]


def _sweep(words: Mapping[str, str]) -> tuple[Sweep, Path]:
    from subspace.cli.train import sweep_of

    try:
        return sweep_of([f"{name}={value}" for name, value in words.items()])
    except click.UsageError as error:
        error.ctx = click.get_current_context()  # the usage to show is this verb's
        raise


def _shortened(preset: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    """Return the preset with its warm-up and looks in proportion to the steps asked for."""
    found = dict(preset)
    if "--steps" in given:
        for name in ("--warmup", "--eval-every"):
            part = int(preset[name]) / int(preset["--steps"])
            found[name] = str(max(1, round(part * int(given["--steps"]))))
    return found


def _without_head(sweep: Sweep) -> Sweep:
    """Leave out the head alone where the model has none to train: a task of writing."""
    from subspace.training.run import columns
    from subspace.training.tasks.load import load_data

    kinds = {load_data(data, **columns(sweep.options)).kind for data in sweep.data}
    return replace(sweep, references=()) if "completion" in kinds else sweep


def run(sweep: Sweep, runs: Path, jobs: int) -> list[SweepRun]:
    """Train what is not there; of a finished run the record is enough."""
    from subspace.training.sweep.train import run_sweep

    with sweep_progress(sweep.runs, sweep.options.steps) as (tell, ended):
        cells = run_sweep(sweep, runs, jobs=jobs, records_only=True, progress=tell, finished=ended)
    failed = [cell for cell in cells if cell.record is None]
    if failed:
        raise ArgumentError(
            f"{len(failed)} of {len(cells)} runs failed, the first: {failed[0].folder}: "
            f"{failed[0].error}; mend that (what is in the way can be deleted, or --out be another "
            "folder) and run the command again"
        )
    return cells


def controls(chosen: Compared, sweep: Sweep, jobs: int) -> tuple[SweepRun, ...]:
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
    return tuple(run(control, chosen.large[0].folder.parent, jobs))


def kept_copy(cell: SweepRun, out: Path) -> Path:
    """Return the copy that the figures are drawn from; a run without weights is trained again."""
    from subspace.training.run import train
    from subspace.training.sweep.copy import kept

    copy = kept(cell, out / ADAPTERS)
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
