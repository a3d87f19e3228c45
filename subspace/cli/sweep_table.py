"""The runs of a sweep, and Table 6, as a terminal, a model card or a paper shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import click

from subspace.cli.shared.printing import echo_csv, echo_table, say, show_table
from subspace.findings.table6 import describe_enough, set_beside_paper
from subspace.results.numbers import percent
from subspace.results.render import latex_table, markdown_table
from subspace.results.table import Column, make_table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from subspace.results import SweepRow, Table6
    from subspace.training.sweep.run import SweepRun


def show_cells(cells: Sequence[SweepRun]) -> None:
    """Write a table of the runs, one a line, and the errors of those that failed."""
    # Two kinds of task count two kinds of things, which no heading could name.
    of_cell = _completes(cells)
    for writes in dict.fromkeys(map(of_cell, cells)):
        _show_kind([cell for cell in cells if of_cell(cell) == writes], writes)
    reasons: dict[str, list[str]] = {}
    for cell in cells:
        if cell.record is None:
            reasons.setdefault(cell.error, []).append(str(cell.folder))
    for reason, folders in reasons.items():
        say(f"failed: {', '.join(folders)}: {reason}")


def _completes(cells: Sequence[SweepRun]) -> Callable[[SweepRun], bool]:
    """Tell of which runs the task is to write; of a failed one the others of its data tell."""
    from subspace.training.sweep.run import writes_texts

    data = {cell.config.data for cell in cells if writes_texts(cell.record)}
    return lambda cell: cell.config.data in data


def _show_kind(cells: Sequence[SweepRun], writes: bool) -> None:
    from subspace.results import RunRow

    def rank(row: RunRow) -> str:
        return row.method if row.rank is None else str(row.rank)

    def seconds(row: RunRow) -> str:
        return "failed" if row.error else "reused" if row.reused else f"{row.seconds:.0f}"

    columns = [
        Column("folder"),
        Column("rank", text=rank),
        *map(Column, ("alpha", "seed", "learning_rate", "steps", *_counted(writes))),
        Column("seconds", text=seconds),
    ]
    show_table(make_table(RunRow, columns, [cell.to_row() for cell in cells]))
    if writes:
        counts = {(cell.record or {}).get("after", {}).get("generated") for cell in cells} - {None}
        among = f", among {' or '.join(map(str, sorted(counts)))} of them" if counts else ""
        say("tokens: share of the completions' tokens that are right, each after the right ones")
        say(f"exact: test texts whose whole completion is written{among}; loss: nats a test token")


def echo_cells_csv(cells: Sequence[SweepRun]) -> None:
    """Write one line a run, without the columns of a kind of task that is not there."""
    of_cell = _completes(cells)
    counted = {name for kind in (False, True) for name in _counted(kind)}
    kept = {name for kind in set(map(of_cell, cells)) for name in _counted(kind)}
    left_out = counted - kept - {"test_loss_before", "test_loss_after"}
    rows = [
        {
            name: "" if value is None or value != value else value
            for name, value in cell.to_row().to_row().items()
            if name not in left_out
        }
        for cell in cells
    ]
    echo_csv(list(rows[0]), [list(row.values()) for row in rows])


def _counted(writes: bool) -> tuple[str, ...]:
    """Name the fields that a kind of task counts, in the table's order."""
    if not writes:
        return (
            "train_accuracy", "validation_accuracy", "test_accuracy_before", "test_accuracy_after",
        )  # fmt: skip
    return (
        "train_token_accuracy", "validation_token_accuracy", "test_exact_match_before",
        "test_exact_match_after", "test_loss_before", "test_loss_after",
    )  # fmt: skip


def echo_table6(table: Table6, style: Literal["text", "markdown", "latex"]) -> None:
    """Write accuracy over rank and matrices as the paper prints it, its own figures below."""
    counted = any(row.metric != "accuracy" for row in table)
    header, rows = set_beside_paper(table, counted=counted)
    left = 3 if counted else 2
    if style != "text":
        click.echo(
            (markdown_table if style == "markdown" else latex_table)(header, rows, left=left)
        )
        return
    what = "test texts" if counted else "test accuracy in percent"
    say(f"{what}, mean ± standard deviation over seeds (Table 6)")
    echo_table(header, rows, left=left)
    for nearly in table.nearly_enough:
        say(describe_enough(nearly, table))
    say(
        "nearly enough: the smallest rank whose mean is within one standard error of the best, "
        "paired over seeds"
    )
    for row in table:
        _say_how(row)


def _say_how(row: SweepRow) -> None:
    name = f"r = {row.rank}" if row.rank is not None else row.method
    where = f"{row.data}, {row.targets}, {name}" if row.targets else f"{row.data}, {name}"
    alpha = f"alpha {row.alpha:g}, " if row.alpha is not None else ""
    seeds = ", ".join(map(str, row.seeds))
    words = f"{where}: {alpha}lr {row.learning_rate:g}, seeds {seeds or '-'}"
    if row.searched:
        tried = ", ".join(f"{rate:g} {percent(accuracy)}" for rate, accuracy in row.searched)
        what = "validation" if row.metric == "accuracy" else "validation tokens"
        words += f"; {what} by lr: {tried}"
    say(words)
