"""The runs behind a gallery: its sweep, the controls on shuffled labels, and what is kept."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from subspace.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from subspace.gallery.runs import ComparedRuns
    from subspace.training.progress import SweepProgress
    from subspace.training.sweep.grid import Sweep
    from subspace.training.sweep.run import SweepRun

ADAPTERS = "adapters"
"""Within the gallery: copies of the compared runs, where they were trained for it."""


def refuse_before_training(sweeps: Sequence[tuple[Sweep, Path]], targets: str | None) -> None:
    """Refuse what could not be compared once it is trained.

    Parameters
    ----------
    sweeps
        Each with the folder of its runs.
    targets
        As `choose_runs` takes them.

    Raises
    ------
    ArgumentError
        The runs of the sweeps differ in what one sweep holds fixed, or give nothing to compare.
    """
    from subspace.gallery.runs import choose_runs
    from subspace.training.sweep.read import refuse_mixed
    from subspace.training.sweep.run import SweepRun

    planned = [
        SweepRun(
            folder=place / sweep.place(config),
            config=replace(config, seed=seed),
            record={},
            reused=False,
        )
        for sweep, place in sweeps
        for config, *_ in sweep.groups()
        for seed in sweep.seeds
    ]
    refuse_mixed(planned)
    choose_runs(planned, targets)


def leave_out_head(sweep: Sweep) -> Sweep:
    """Return the sweep without the head alone where a task of writing has no head to train."""
    from subspace.training.run import select_columns
    from subspace.training.tasks.load import load_data

    kinds = {load_data(data, **select_columns(sweep.options)).kind for data in sweep.data}
    return replace(sweep, references=()) if "completion" in kinds else sweep


def train_runs(
    sweep: Sweep,
    folder: Path,
    *,
    jobs: int = 1,
    progress: Callable[[SweepProgress], None] | None = None,
    finished: Callable[[SweepRun], None] | None = None,
) -> list[SweepRun]:
    """Train what is not there; of a finished run the record is enough.

    Parameters and errors are those of `run_sweep`.

    Raises
    ------
    ArgumentError
        A run failed.
    """
    from subspace.training.sweep.train import run_sweep

    runs = run_sweep(
        sweep, folder, jobs=jobs, records_only=True, progress=progress, finished=finished
    )
    failed = [run for run in runs if run.record is None]
    if failed:
        raise ArgumentError(
            f"{len(failed)} of {len(runs)} runs failed, the first: {failed[0].folder}: "
            f"{failed[0].error}; mend that (what is in the way can be deleted, or --out be another "
            "folder) and run the command again"
        )
    return runs


def plan_controls(chosen: ComparedRuns, sweep: Sweep) -> tuple[Sweep, Path]:
    """Return the sweep of the controls on shuffled labels, and the folder for its runs.

    There is one control for each of the first two runs of the larger rank, beside these runs.
    """
    config = chosen.large[0].config
    controls = replace(
        sweep,
        options=replace(config, shuffle_labels=True),
        data=(config.data,),
        targets=(config.targets,),
        ranks=(config.rank,),
        seeds=tuple(run.config.seed for run in chosen.large[:2]),
        references=(),
        rates={},
    )
    return controls, chosen.large[0].folder.parent


def keep_copy(run: SweepRun, out: Path, warn: Callable[[str], None]) -> Path:
    """Return the copy of a run that the figures are drawn from.

    Parameters
    ----------
    run
        A finished LoRA run; without its weights it is trained again.
    out
        The gallery's folder.
    warn
        Called with a line to show before a run is trained again.

    Raises
    ------
    ArgumentError
        The copy's place is taken, or training left no weights.
    """
    from subspace.training.run import train
    from subspace.training.sweep.copy import copy_run

    copy = copy_run(run, out / ADAPTERS)
    if copy is None:
        warn(f"{run.folder}: its weights are not here; training it again")
        with _use_threads((run.record or {}).get("threads")):
            train(run.config, run.folder, overwrite=True)
        copy = copy_run(run, out / ADAPTERS)
    if copy is None:
        raise ArgumentError(f"{run.folder}: its weights are not there after training")
    return copy


@contextmanager
def _use_threads(number: int | None) -> Iterator[None]:
    """Compute with so many, since another number rounds otherwise."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
