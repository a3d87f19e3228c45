"""Progress bars on stderr, at a terminal alone: of one measure, one training run, a sweep."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

import click

from subspace.errors import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.progress import Progress as Bar
    from rich.progress import TaskID

    from subspace.training import Progress
    from subspace.training.progress import SweepProgress
    from subspace.training.sweep.run import SweepRun


@contextlib.contextmanager
def progress(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on stderr while at a terminal; yield a function that advances it."""
    if not sys.stderr.isatty():
        yield lambda _done: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda done: bar.advance(task, done)


@contextlib.contextmanager
def training_progress(label: str) -> Iterator[Callable[[Progress], None] | None]:
    """Show one training run's phase, step, loss and time left on stderr while at a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    with _make_bar() as bar:
        task = bar.add_task(label, total=None)

        def advance(now: Progress) -> None:
            loss = "" if now.loss is None else f", loss {now.loss:.2f}"
            words = f"{label}: {now.phase}{loss}"
            bar.update(task, description=words, completed=now.step, total=now.steps)

        yield advance


@contextlib.contextmanager
def sweep_progress(
    runs: int, steps: int
) -> Iterator[tuple[Callable[[SweepProgress], None] | None, Callable[[SweepRun], None] | None]]:
    """Show all runs of a sweep on stderr: one bar with the time left, and a line per running one.

    Away from a terminal each run has one line as it ends, so that a log can be followed.
    """
    if not sys.stderr.isatty():
        done = 0

        def print_run(cell: SweepRun) -> None:
            nonlocal done
            done += 1
            how = "used again" if cell.reused else "trained"
            how = f"failed: {cell.error}" if cell.record is None else how
            click.echo(printable(f"{done}/{runs} {cell.folder}: {how}"), err=True)

        yield None, print_run
        return
    from rich.text import Text

    with _make_bar() as bar:
        total = bar.add_task(f"steps of {runs} runs", total=runs * steps)
        lines: dict[str, TaskID] = {}

        def advance(now: SweepProgress) -> None:
            loss = "" if now.loss is None else f", loss {now.loss:.2f}"
            words = Text(f"{now.run}: {now.phase}{loss}").markup
            if now.run not in lines:
                lines[now.run] = bar.add_task(words, total=now.steps)
            moved = now.step - bar.tasks[bar.task_ids.index(lines[now.run])].completed
            bar.update(lines[now.run], description=words, completed=now.step)
            bar.advance(total, max(moved, 0))

        def finish(cell: SweepRun) -> None:
            for name in [n for n in lines if str(cell.folder).endswith(n)]:
                task = bar.tasks[bar.task_ids.index(lines[name])]
                bar.advance(total, steps - task.completed)
                bar.remove_task(lines.pop(name))
                return
            bar.advance(total, steps)  # it was there already

        yield advance, finish


def _make_bar() -> Bar:
    """Return a bar of steps with the time left."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Bar(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
