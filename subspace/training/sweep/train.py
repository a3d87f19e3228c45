"""A sweep: every run of a grid, trained once and never again."""

from __future__ import annotations

import os
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing import get_context, parent_process
from multiprocessing.managers import SyncManager
from threading import Thread
from typing import TYPE_CHECKING, Any

from subspace.errors import ArgumentError, SubspaceError, printable
from subspace.training.folder import RECORD
from subspace.training.models import find_model
from subspace.training.progress import SweepProgress
from subspace.training.run import select_columns, train
from subspace.training.sweep.run import SweepRun, search_key
from subspace.training.tasks.load import load_data

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path
    from queue import Queue

    from subspace.training.config import TrainConfig
    from subspace.training.progress import Progress
    from subspace.training.run import TrainResult
    from subspace.training.sweep.grid import Sweep


def run_sweep(
    sweep: Sweep,
    out: Path,
    *,
    jobs: int = 1,
    overwrite: bool = False,
    records_only: bool = False,
    checkpoint_every: int = 100,
    progress: Callable[[SweepProgress], None] | None = None,
    finished: Callable[[SweepRun], None] | None = None,
) -> list[SweepRun]:
    """Train every run of a grid that is not there yet.

    Parameters
    ----------
    sweep, out
        The grid, and the folder of its runs; of a single run, its own folder.
    jobs
        Runs at a time, in processes that share the cores; 1 trains in this one.
    overwrite, records_only, checkpoint_every
        As in `train`.
    progress, finished
        Called at every step of a run, and with each run as it ends.

    Returns
    -------
    The runs, in the order of the grid, those of a search for the learning rate before those that
    use it. One that failed has its error, and stops no other.

    Raises
    ------
    ArgumentError
        `out` is a run itself, two runs would be one folder, or there are no jobs; of a single run
        all that `train` raises.
    MissingFileError, FormatError
        The model or one of the data sets cannot be read.
    """
    if jobs < 1:
        raise ArgumentError(f"jobs is {jobs}; it must be a whole number >= 1")
    shared: dict[str, Any] = {
        "overwrite": overwrite,
        "records_only": records_only,
        "checkpoint_every": checkpoint_every,
    }
    if sweep.runs == 1:
        ((config,),) = sweep.groups()
        tell = _name_progress(config.run_name, progress or (lambda _step: None))
        result = train(config, out, progress=tell, **shared)
        return [_load_finished(out, config, result)]
    if (out / RECORD).exists():
        raise ArgumentError(f"{out}: is a run itself; several runs need a folder to hold them")
    groups = sweep.groups()
    _refuse_one_place(sweep, groups)
    # What no run could read is refused before the first one.
    find_model(sweep.options.model)
    for data in sweep.data:
        dataset = load_data(data, **select_columns(sweep.options))
        if dataset.kind == "completion" and "head" in sweep.references:
            raise ArgumentError(
                f"{dataset.name} is a task of writing, for which a language model has no new head "
                "to train alone; leave out --reference head"
            )
    done: dict[Path, SweepRun] = {}

    def run(configs: Sequence[TrainConfig]) -> None:
        tasks = {sweep.place(c): c for c in configs if sweep.place(c) not in done}
        for place, cell in _run_all(tasks, out, jobs, shared, progress):
            done[place] = cell
            if finished is not None:
                finished(cell)

    # Where there is no rate to choose, the other seeds need not wait for it.
    sure = [
        replace(group[0], seed=s) for group in groups if len(group) == 1 for s in sweep.seeds[1:]
    ]
    run([*(config for group in groups for config in group), *sure])
    chosen = [_pick_best(group, sweep, done) for group in groups]
    for group, best in zip(groups, chosen, strict=True):
        for config in group:
            if config is not best:
                done[sweep.place(config)] = replace(done[sweep.place(config)], searched=True)
    rest = [[replace(best, seed=seed) for seed in sweep.seeds[1:]] for best in chosen]
    run([config for others in rest for config in others])
    order = [c for group, others in zip(groups, rest, strict=True) for c in (*group, *others)]
    return [done[sweep.place(config)] for config in order]


def _refuse_one_place(sweep: Sweep, groups: Sequence[Sequence[TrainConfig]]) -> None:
    """Refuse names that are the same once they are a folder's: one run would pass for both."""
    places: set[Path] = set()
    for place in (sweep.place(config) for group in groups for config in group):
        if place in places:
            raise ArgumentError(
                f"two runs of the sweep would be in one folder, {place.as_posix()}: two data sets "
                "or target sets have one name; rename one, or train it apart"
            )
        places.add(place)


def _pick_best(
    group: Sequence[TrainConfig], sweep: Sweep, done: Mapping[Path, SweepRun]
) -> TrainConfig:
    return max(group, key=lambda config: search_key(done[sweep.place(config)]))


def _run_all(
    tasks: Mapping[Path, TrainConfig],
    out: Path,
    jobs: int,
    shared: Mapping[str, Any],
    progress: Callable[[SweepProgress], None] | None,
) -> Iterator[tuple[Path, SweepRun]]:
    if jobs == 1 or len(tasks) < 2:
        tell = progress or (lambda _step: None)
        for place, config in tasks.items():
            yield place, _train_one(config, out / place, place.as_posix(), shared, tell)
        return
    context = get_context("spawn")  # torch's threads do not survive a fork
    manager = SyncManager(ctx=context)
    manager.start(_end_with_parent)
    with manager, ProcessPoolExecutor(jobs, context, _end_with_parent) as pool:
        steps = manager.Queue()
        waiting = {
            pool.submit(_work, config, out / place, place.as_posix(), shared, steps, jobs): place
            for place, config in tasks.items()
        }
        while waiting:
            ended, _ = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
            while not steps.empty():
                step = steps.get()
                if progress is not None:
                    progress(step)
            for future in ended:
                place = waiting.pop(future)
                try:
                    yield place, future.result()
                except BrokenProcessPool:
                    why = "its process was killed; run the sweep again to go on from a checkpoint"
                    yield place, _note_failure(out / place, tasks[place], why)


def _end_with_parent() -> None:
    """End this process with the one that started it, which `kill -9` gives no time to say.

    Else its run would go on unseen, and hold the lock of its folder against the next command.
    """
    parent = parent_process()
    assert parent is not None

    def wait_for_it() -> None:
        parent.join()
        os._exit(1)

    Thread(target=wait_for_it, daemon=True).start()


def _name_progress(name: str, tell: Callable[[SweepProgress], None]) -> Callable[[Progress], None]:
    return lambda now: tell(SweepProgress(name, now.phase, now.step, now.steps, now.loss))


def _work(
    config: TrainConfig,
    folder: Path,
    name: str,
    shared: Mapping[str, Any],
    steps: Queue[SweepProgress],
    jobs: int,
) -> SweepRun:
    import torch

    torch.set_num_threads(max(1, (os.cpu_count() or 1) // jobs))
    return _train_one(config, folder, name, shared, steps.put)


def _train_one(
    config: TrainConfig,
    folder: Path,
    name: str,
    shared: Mapping[str, Any],
    tell: Callable[[SweepProgress], None],
) -> SweepRun:
    try:
        result = train(config, folder, progress=_name_progress(name, tell), **shared)
    except SubspaceError as error:
        text = str(error)
        for place in (folder, folder.resolve()):  # the cell says it already
            text = text.removeprefix(f"{place}: ")
        return _note_failure(folder, config, text)
    except Exception as error:  # one run's failure, a full disk or an odd model, stops no other
        return _note_failure(folder, config, printable(f"{type(error).__name__}: {error}"))
    return _load_finished(folder, config, result)


def _load_finished(folder: Path, config: TrainConfig, result: TrainResult) -> SweepRun:
    record = dict(result.record)
    return SweepRun(folder=folder, config=config, record=record, reused=result.reused)


def _note_failure(folder: Path, config: TrainConfig, error: str) -> SweepRun:
    return SweepRun(folder=folder, config=config, record=None, reused=False, error=error)
