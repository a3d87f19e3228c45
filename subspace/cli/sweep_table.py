"""The runs of a sweep, and Table 6, as a terminal, a model card or a paper shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import click

from subspace.cli.shared.printing import echo_csv, echo_table, say
from subspace.findings.table6 import describe_enough, set_beside_paper
from subspace.results.numbers import percent
from subspace.results.render import latex_table, markdown_table

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
    from subspace.training.sweep.run import read_last_accuracy

    header = ["run", "rank", "alpha", "seed", "lr", "steps"]
    if writes:
        header += ["train tokens", "validation tokens", "exact before", "exact after"]
        header += ["loss before", "loss after", "seconds"]
    else:
        header += ["train", "validation", "test before", "after", "seconds"]
    rows = []
    for cell in cells:
        config, record = cell.config, cell.record
        lora = config.method == "lora"
        numbers = [
            str(config.rank) if lora else config.method,
            f"{config.lora_alpha:g}" if lora else "-",
            str(config.seed),
            f"{config.learning_rate:g}",
            str(config.steps),
        ]
        if record is None:
            rows.append([str(cell.folder), *numbers, *["-"] * (6 if writes else 4), "failed"])
            continue
        shown = [
            percent(read_last_accuracy(record, "train")),
            percent(read_last_accuracy(record, "validation")),
            percent(record["before"]["accuracy"]),
            percent(record["after"]["accuracy"]),
            *(f"{record[when]['loss']:.3f}" for when in ("before", "after") if writes),
        ]
        how = "reused" if cell.reused else f"{record['seconds']:.0f}"
        rows.append([str(cell.folder), *numbers, *shown, how])
    echo_table(header, rows)
    if writes:
        counts = {(cell.record or {}).get("after", {}).get("generated") for cell in cells} - {None}
        among = f", among {' or '.join(map(str, sorted(counts)))} of them" if counts else ""
        say("tokens: share of the completions' tokens that are right, each after the right ones")
        say(f"exact: test texts whose whole completion is written{among}; loss: nats a test token")


def echo_cells_csv(cells: Sequence[SweepRun]) -> None:
    """Write one line a run; what is counted is in the name of its column."""
    from subspace.training.sweep.run import read_last_accuracy

    of_cell = _completes(cells)
    kinds = [kind for kind in (False, True) if kind in set(map(of_cell, cells))]
    numbers = list(dict.fromkeys(name for kind in kinds for name in _counted(kind)))
    rows: list[list[object]] = []
    for cell in cells:
        config, record = cell.config, cell.record or {}
        lora = config.method == "lora"
        targets = config.targets if isinstance(config.targets, str) else "+".join(config.targets)
        before, after = (record.get(when, {}) for when in ("before", "after"))
        looks = [read_last_accuracy(record, split) for split in ("train", "validation")]
        tests = [look.get(what, "") for what in ("accuracy", "loss") for look in (before, after)]
        found = dict(zip(_counted(of_cell(cell)), [*looks, *tests], strict=True))
        rows.append(
            [
                str(cell.folder), config.data, config.method, targets if lora else "",
                config.rank if lora else "", config.lora_alpha if lora else "", config.seed,
                config.learning_rate, cell.searched,
                *("" if (value := found.get(name, "")) != value else value for name in numbers),
                cell.error,
            ]
        )  # fmt: skip
    echo_csv(
        ("folder", "data", "method", "targets", "rank", "alpha", "seed", "learning_rate",
         "searched", *numbers, "error"),
        rows,
    )  # fmt: skip


def _counted(writes: bool) -> tuple[str, ...]:
    looked, tested = ("token_accuracy", "exact_match") if writes else ("accuracy", "accuracy")
    return (
        f"train_{looked}", f"validation_{looked}", f"test_{tested}_before",
        f"test_{tested}_after", "test_loss_before", "test_loss_after",
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
    for found in table.nearly_enough:
        say(describe_enough(found, table))
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
