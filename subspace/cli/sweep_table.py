"""The runs of a sweep, and Table 6, as a terminal, a model card or a paper shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from subspace.cli.printing import echo_csv, echo_latex, echo_markdown, echo_table, say
from subspace.findings.paper import TABLE6, TABLE6_RANKS, matrices

if TYPE_CHECKING:
    from collections.abc import Sequence

    from subspace.results import NearlyEnough, SweepRow, Table6
    from subspace.training.sweep import Cell


def show_cells(cells: Sequence[Cell]) -> None:
    """Write a table of the runs, one a line, and the errors of those that failed."""
    from subspace.training.sweep import seen

    # A text that is written is right where it is right to the end; on the way, tokens are counted.
    writes = any("token_accuracy" in (cell.record or {}).get("after", {}) for cell in cells)
    header = ("run", "rank", "alpha", "seed", "lr", "steps", "train", "validation", "test before")
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
            percent(seen(record, "train")),
            percent(seen(record, "validation")),
            percent(record["before"]["accuracy"]),
            percent(record["after"]["accuracy"]),
            *(f"{record[when]['loss']:.3f}" for when in ("before", "after") if writes),
        ]
        how = "reused" if cell.reused else f"{record['seconds']:.0f}"
        rows.append([str(cell.folder), *numbers, *shown, how])
    echo_table((*header, "after", *(["loss before", "after"] if writes else []), "seconds"), rows)
    if writes:
        say("train, validation: tokens that are right; test: texts that are written exactly, loss")
    for cell in cells:
        if cell.record is None:
            say(f"failed: {cell.folder}: {cell.error}")


def percent(accuracy: float) -> str:
    """Return an accuracy in percent, or a dash where there is none."""
    return "-" if accuracy != accuracy else f"{accuracy:.1%}"


def echo_cells_csv(cells: Sequence[Cell]) -> None:
    """Write one line a run."""
    from subspace.training.sweep import seen

    header = ("folder", "data", "method", "targets", "rank", "alpha", "seed", "learning_rate",
              "searched", "train", "validation", "before", "after", "loss_before", "loss_after",
              "error")  # fmt: skip
    rows: list[list[object]] = []
    for cell in cells:
        config, record = cell.config, cell.record or {}
        lora = config.method == "lora"
        targets = config.targets if isinstance(config.targets, str) else "+".join(config.targets)
        rows.append(
            [
                str(cell.folder), config.data, config.method, targets if lora else "",
                config.rank if lora else "", config.lora_alpha if lora else "", config.seed,
                config.learning_rate, cell.searched,
                *("" if a != a else a for a in (seen(record, "train"), seen(record, "validation"))),
                record.get("before", {}).get("accuracy", ""),
                record.get("after", {}).get("accuracy", ""),
                record.get("before", {}).get("loss", ""), record.get("after", {}).get("loss", ""),
                cell.error,
            ]
        )  # fmt: skip
    echo_csv(header, rows)


def echo_table6(table: Table6, style: Literal["text", "markdown", "latex"]) -> None:
    """Write accuracy over rank and matrices as the paper prints it, its own figures below."""
    header, rows = table6_cells(table)
    if style != "text":
        (echo_markdown if style == "markdown" else echo_latex)(header, rows)
        return
    say("test accuracy in percent, mean ± standard deviation over seeds (Table 6)")
    echo_table(header, rows, left=2)
    for found in table.nearly_enough:
        say(enough(found, table))
    say(
        "nearly enough: the smallest rank whose mean is within one standard error of the best, "
        "paired over seeds"
    )
    for row in table:
        _say_how(row)


def table6_cells(table: Table6) -> tuple[list[str], list[list[str]]]:
    """Return header and rows: the sweep's, and below them the paper's for the same matrices."""
    ranks = sorted({row.rank for row in table if row.rank is not None})
    references = any(row.rank is None for row in table)
    header = ["data", "adapted", *(f"r = {rank}" for rank in ranks)]
    header += ["no rank"] if references else []
    lines: dict[tuple[str, str], list[str]] = {}
    width = len(header) - 2
    for row in table:
        name = row.targets if row.rank is not None else f"{row.method} (reference)"
        line = lines.setdefault((row.data, name), ["-"] * width)
        line[ranks.index(row.rank) if row.rank is not None else width - 1] = _spread(row)
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
                    rows.append([f"paper: GPT-3, {data}", named, *line])
    return header, rows


def _spread(row: SweepRow) -> str:
    if not row.test:
        return "failed"
    many = f" ± {100 * row.std:.1f}" if len(row.test) > 1 else ""
    return f"{100 * row.mean:.1f}{many}"


def enough(found: NearlyEnough, table: Table6) -> str:
    """Say which rank is nearly enough."""
    where, rank, best = f"{found.data}, {found.targets}", found.rank, found.best
    if rank is None:
        return f"{where}: best at r = {best}; too few seeds tell which rank is nearly enough"
    if rank == best:
        rows = (row for row in table if (row.data, row.targets) == (found.data, found.targets))
        if not any(row.test and row.rank is not None and row.rank < best for row in rows):
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
        words += f"; validation by lr: {tried}"
    say(words)
    for failure in row.failed:
        say(f"failed: {failure}")
