"""Findings on a sweep over ranks: which rank is nearly enough, and which rate may not be the best.

Table 6 of Hu et al. 2021, arXiv:2106.09685. The claims on it stand in `claims.table6`.
"""

from __future__ import annotations

from statistics import mean, stdev
from typing import TYPE_CHECKING

from subspace.errors import printable
from subspace.findings.paper import TABLE6, TABLE6_RANKS, matrices

if TYPE_CHECKING:
    from subspace.results import NearlyEnough, SweepRow, Table6


def describe_enough(result: NearlyEnough, table: Table6) -> str:
    """Say which rank is nearly enough on one data set and target set, in one line.

    >>> from subspace.results import NearlyEnough, Table6
    >>> none = NearlyEnough(data="d", targets="q", rank=None, best=8, behind=0.0, error=0.0)
    >>> describe_enough(none, Table6((), ()))
    'd, q: best at r = 8; too few seeds tell which rank is nearly enough'
    """
    where, rank, best = f"{result.data}, {result.targets}", result.rank, result.best
    rows = [row for row in table if (row.data, row.targets) == (result.data, result.targets)]
    reached = {test for row in rows for test in row.test}
    if len(rows) > 1 and len(reached) == 1:
        (same,) = reached
        percent = "-" if same != same else f"{same:.1%}"
        return f"{where}: every run reached {percent}, which tells nothing of the rank"
    if rank is None:
        return f"{where}: best at r = {best}; too few seeds tell which rank is nearly enough"
    if rank == best:
        if not any(row.test and row.rank is not None and row.rank < best for row in rows):
            return f"{where}: r = {best} is the best, and no smaller rank was trained"
        return f"{where}: no smaller rank is nearly as good as r = {best}"
    return f"{where}: r = {rank} is nearly enough (best: r = {best})"


def describe_rates(table: Table6) -> str:
    """Name the rows whose learning rate is at an end of those tried; empty if there is none.

    >>> from subspace.results import Table6
    >>> describe_rates(Table6((), ()))
    ''
    """
    edges = "; ".join(_name(row) for row in table if is_at_edge(row))
    if not edges:
        return ""
    return printable(f"At an end of what was tried, so that a better one may lie beyond: {edges}.")


def is_at_edge(row: SweepRow) -> bool:
    """Tell whether the rate that was used is the smallest or the largest of those tried."""
    rates = [rate for rate, _ in row.searched]
    return bool(rates) and row.learning_rate in (min(rates), max(rates))


def _name(row: SweepRow) -> str:
    if row.rank is None:
        return f"{row.data}, {row.method} (reference)"
    return f"{row.data}, {row.targets}, r = {row.rank}"


def set_beside_paper(table: Table6, *, counted: bool = False) -> tuple[list[str], list[list[str]]]:
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
        for what, cell in _list_counts(row) if counted else [("", _format_spread(row))]:
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


def _list_counts(row: SweepRow) -> list[tuple[str, str]]:
    counts = [(f"{row.metric} (%)", _format_spread(row))]
    if row.metric != "accuracy" and row.loss:
        many = f" ± {stdev(row.loss):.3f}" if len(row.loss) > 1 else ""
        counts.append(("token loss (nats)", f"{mean(row.loss):.3f}{many}"))
    return counts


def _format_spread(row: SweepRow) -> str:
    if not row.test:
        return "failed"
    many = f" ± {100 * row.std:.1f}" if len(row.test) > 1 else ""
    return f"{100 * row.mean:.1f}{many}"
