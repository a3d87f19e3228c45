"""The runs of a sweep, and Table 6, as a terminal, a model card or a paper shows them."""

from __future__ import annotations

from statistics import mean, stdev
from typing import TYPE_CHECKING, Literal

import click

from subspace.cli.shared.printing import echo_csv, echo_table, say
from subspace.findings.paper import TABLE6, TABLE6_RANKS, matrices
from subspace.results.numbers import percent
from subspace.results.render import latex_table, markdown_table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from subspace.results import NearlyEnough, SweepRow, Table6
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
    header, rows = table6_cells(table, counted=counted)
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
        say(enough(found, table))
    say(
        "nearly enough: the smallest rank whose mean is within one standard error of the best, "
        "paired over seeds"
    )
    for row in table:
        _say_how(row)


def table6_cells(table: Table6, *, counted: bool = False) -> tuple[list[str], list[list[str]]]:
    """Return header and rows: the sweep's, and below them the paper's for the same matrices.

    With `counted` a column says what the numbers of a row are, and a task of writing has a second
    row with the loss of a token of its test texts.
    """
    ranks = sorted({row.rank for row in table if row.rank is not None})
    references = any(row.rank is None for row in table)
    header = ["data", "adapted", *(["counted"] if counted else [])]
    header += [*(f"r = {rank}" for rank in ranks), *(["no rank"] if references else [])]
    width = len(ranks) + references
    lines: dict[tuple[str, ...], list[str]] = {}
    for row in table:
        name = row.targets if row.rank is not None else f"{row.method} (reference)"
        at = ranks.index(row.rank) if row.rank is not None else width - 1
        for what, cell in _counts(row) if counted else [("", _spread(row))]:
            key = (row.data, name, *([what] if counted else []))
            lines.setdefault(key, ["-"] * width)[at] = cell
    rows = [[*key, *line] for key, line in lines.items()]
    ours = {named for row in table if (named := matrices(row.targets)) is not None}
    if ours and set(ranks) & set(TABLE6_RANKS):
        for data, sets in TABLE6.items():
            for named in sets:
                if named in ours:
                    line = ["-"] * width
                    for rank, figure in zip(TABLE6_RANKS, sets[named], strict=True):
                        if rank in ranks:
                            line[ranks.index(rank)] = f"{figure:.1f}"
                    means = ["accuracy (%)"] if counted else []
                    rows.append([f"paper: GPT-3, {data}", named, *means, *line])
    return header, rows


def _counts(row: SweepRow) -> list[tuple[str, str]]:
    found = [(f"{row.metric} (%)", _spread(row))]
    if row.metric != "accuracy" and row.loss:
        many = f" ± {stdev(row.loss):.3f}" if len(row.loss) > 1 else ""
        found.append(("token loss (nats)", f"{mean(row.loss):.3f}{many}"))
    return found


def _spread(row: SweepRow) -> str:
    if not row.test:
        return "failed"
    many = f" ± {100 * row.std:.1f}" if len(row.test) > 1 else ""
    return f"{100 * row.mean:.1f}{many}"


def enough(found: NearlyEnough, table: Table6) -> str:
    """Say which rank is nearly enough."""
    where, rank, best = f"{found.data}, {found.targets}", found.rank, found.best
    here = [row for row in table if (row.data, row.targets) == (found.data, found.targets)]
    reached = {test for row in here for test in row.test}
    if len(here) > 1 and len(reached) == 1:
        (same,) = reached
        return f"{where}: every run reached {percent(same)}, which tells nothing of the rank"
    if rank is None:
        return f"{where}: best at r = {best}; too few seeds tell which rank is nearly enough"
    if rank == best:
        if not any(row.test and row.rank is not None and row.rank < best for row in here):
            return f"{where}: r = {best} is the best, and no smaller rank was trained"
        return f"{where}: no smaller rank is nearly as good as r = {best}"
    return f"{where}: r = {rank} is nearly enough (best: r = {best})"


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
