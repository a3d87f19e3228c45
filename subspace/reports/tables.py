"""The page's tables, made of the results' own columns; some are over several results."""

# No `from __future__ import annotations`: `FileRead` is described by its annotations.
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Annotated

from subspace.reports.provenance import records
from subspace.results import (
    ModuleRank,
    ModuleSimilarity,
    Part,
    Rank,
    Report,
    Similarity,
    SweepRow,
    Table6,
)
from subspace.results.fields import Field
from subspace.results.numbers import UNDEFINED
from subspace.results.rank import spectrum_columns
from subspace.results.sweep import adapted
from subspace.results.table import Column, Table, make_table


@dataclass(frozen=True)
class FileRead(Part):
    """A file that was read, and what identifies it."""

    read: Annotated[str, Field("What was read", title="what was read")]
    file: Annotated[str, Field("Name of the file")]
    identity: Annotated[str, Field("What identifies it", title="what identifies it")]


def tabulate_table6(table: Table6) -> Table:
    """Table 6; a column that says one thing in every row goes into the caption."""
    columns = [
        Column("targets", value=lambda row: ", ".join(adapted(row).split("+"))),
        Column("rank"),
        Column("mean", "accuracy", text=_format_spread),
        Column("seeds", value=lambda row: len(row.test)),
        *map(Column, ("learning_rate", "alpha", "data")),
    ]
    whole = make_table(SweepRow, columns, table)
    values_by_column = [{row[n] for row in whole.rows} - {UNDEFINED} for n in range(len(columns))]
    same = [n for n in (6, 5, 3) if len(values_by_column[n]) == 1]
    kept = [n for n in range(len(columns)) if n not in same]
    once = "".join(
        f"; {whole.header[n].replace('_', ' ')} {next(iter(values_by_column[n]))}" for n in same
    )
    exact = {row.metric == "exact match" for row in table}
    what = "Test texts written exactly" if exact == {True} else "Test accuracy"
    what += ", or texts written exactly," if len(exact) > 1 else ""
    return replace(
        whole,
        caption=f"{what} in percent, mean ± standard deviation over seeds{once}",
        heads=tuple(whole.heads[n] for n in kept),
        rows=tuple(tuple(row[n] for n in kept) for row in whole.rows),
    )


def _format_spread(row: SweepRow) -> str:
    if not row.test:
        return "failed"
    spread = f" ± {100 * row.std:.1f}" if len(row.test) > 1 else ""
    return f"{100 * row.mean:.1f}{spread}"


def tabulate_files(report: Report) -> Table:
    """All files that were read, and what identifies each."""
    rows = [
        FileRead(source.name, name, f"SHA-256 {digest}")
        for source in report.sources
        for name, digest in source.files
    ]
    rows += [FileRead(f"{report.base} (base)", *each) for each in report.base_files]
    if report.sweep is not None:
        rows.append(FileRead("sweep (--runs)", *records(report.sweep)))
    columns = list(map(Column, ("read", "file", "identity")))
    return make_table(FileRead, columns, rows, caption="Files that were read")


def tabulate_ranks(ranks: Sequence[Rank]) -> Table:
    """Show every adapter's ranks of its spectrum, one row per module and adapter."""
    rows = [
        (rank.adapters[0], m)
        for name in dict.fromkeys(name for rank in ranks for name in rank)
        for rank in ranks
        if (m := rank.modules.get(name)) is not None
    ]
    spectrum = [
        replace(column, value=_of_module(column))
        for column in spectrum_columns(("stable", "entropy", "energy90", "energy99"))
    ]
    columns = [
        Column("module", value=lambda row: row[1].module),
        Column("module", "adapter", value=lambda row: row[0]),
        Column("nominal", value=lambda row: row[1].nominal),
        *spectrum,
    ]
    return make_table(ModuleRank, columns, rows, caption="Ranks of the spectrum of ΔW").shortened()


def _of_module(column: Column) -> Callable[[tuple[str, ModuleRank]], object]:
    value = column.value
    assert value is not None
    return lambda row: value(row[1])


def tabulate_matrix(pairs: Sequence[Similarity]) -> Table | None:
    """Median phi(1, 1) and agreeing directions of every pair, where there are several."""
    if len(pairs) < 2:
        return None
    columns = [
        Column("module", "pair", value=lambda pair: " and ".join(pair.adapters)),
        Column("module", "modules", text=lambda pair: str(len(pair))),
        Column("phi", "median φ(1,1)", value=_median_phi),
        Column("agreeing", "median agree", value=lambda pair: _median(_count_cells(pair))),
    ]
    return make_table(ModuleSimilarity, columns, pairs, caption="All pairs")


def _median_phi(pair: Similarity) -> float | None:
    return _median(float(m.phi[0, 0]) for m in pair.values())


def _count_cells(pair: Similarity) -> Iterable[float]:
    return (m.agreeing for m in pair.values() if m.agreeing is not None)


def _median(values: Iterable[float]) -> float | None:
    defined = [float(value) for value in values if value == value]
    return median(defined) if defined else None
