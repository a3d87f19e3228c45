"""The page's tables: rows of text, each column with the anchor of its definition."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from subspace.reports.provenance import records

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from subspace.results import Amplification, ModuleRank, Rank, Report, Similarity, Table6


class Table(NamedTuple):
    """A header of (text, anchor of its definition), and rows; the first cell names the row."""

    caption: str
    above: str  # the path that all modules share, left out of their names
    header: Sequence[tuple[str, str]]
    rows: Sequence[Sequence[str]]
    row_id: str = ""  # with a number after it, each row's anchor


def of_sources(report: Report) -> Table:
    """Say what was compared, one row an adapter."""
    names = ("adapter", "rank", "modules", "parameters", "format", "trained on")
    rows = [
        [
            source.name, "–".join(map(str, dict.fromkeys(source.ranks))), str(source.modules),
            f"{source.parameters:,}", f"{source.format}, {source.method}",
            source.base_model or "not said",
        ]
        for source in report.sources
    ]  # fmt: skip
    return Table("What was compared", "", [(name, "") for name in names], rows)


def of_table6(table: Table6) -> Table:
    """Table 6; a column that says one thing in every row goes into the caption."""
    names = ("adapted", "r", "accuracy", "seeds", "learning rate", "alpha", "data")
    rows = []
    for row in table:
        spread = f"{100 * row.mean:.1f}" if row.test else "failed"
        spread += f" ± {100 * row.std:.1f}" if len(row.test) > 1 else ""
        rows.append(
            [
                ", ".join(row.targets.split("+")) if row.targets else f"{row.method} (reference)",
                "–" if row.rank is None else str(row.rank), spread, str(len(row.test)),
                f"{row.learning_rate:g}", "–" if row.alpha is None else f"{row.alpha:g}", row.data,
            ]
        )  # fmt: skip
    same = [n for n in (6, 5, 3) if len({row[n] for row in rows if row[n] != "–"}) == 1]
    kept = [n for n in range(len(names)) if n not in same]
    told = "".join(f"; {names[n]} {next(r[n] for r in rows if r[n] != '–')}" for n in same)
    exact = {row.metric == "exact match" for row in table}
    what = "Test texts written exactly" if exact == {True} else "Test accuracy"
    what += ", or texts written exactly," if len(exact) > 1 else ""
    return Table(
        f"{what} in percent, mean ± standard deviation over seeds{told}",
        "",
        [(names[n], "") for n in kept],
        [[row[n] for n in kept] for row in rows],
        "row",
    )


def of_files(report: Report) -> Table:
    """All files that were read, and what identifies each."""
    rows = [
        [source.name, name, f"SHA-256 {digest}"]
        for source in report.sources
        for name, digest in source.files
    ]
    rows += [[f"{report.base} (base)", *each] for each in report.base_files]
    if report.sweep is not None:
        rows.append(["sweep (--runs)", *records(report.sweep)])
    header = [("what was read", ""), ("file", ""), ("what identifies it", "")]
    return Table("Files that were read", "", header, rows)


def of_pair(pair: Similarity) -> Table:
    """Phi and the count of directions that agree, one row a module."""
    a, b = pair.adapters
    header = [
        ("module", ""), ("φ(1,1)", "phi"), ("chance", "chance"), ("p", "chance"),
        ("φ(r,r)", "phi"), ("chance", "chance"), ("agree", "agreeing"),
    ]  # fmt: skip
    header += [("start φ(1,1)", "phi")] if pair.initial is not None else []
    header += [("control φ(1,1)", "phi"), ("agree", "agreeing")] if pair.control else []
    above, short = _named(list(pair))
    rows = []
    for name, m in pair.items():
        i, j = (max(rank, 1) - 1 for rank in (m.numerical_rank_a, m.numerical_rank_b))
        row = [
            short[name],
            number(m.phi[0, 0]), number(m.null_mean[0, 0]), probability(m.pvalue[0, 0]),
            number(m.phi[i, j]), number(m.null_mean[i, j]), count(m.agreeing),
        ]  # fmt: skip
        if pair.initial is not None:
            start = pair.initial.modules.get(name)
            row.append("–" if start is None else number(start.phi[0, 0]))
        if pair.control is not None:
            there = pair.control.modules.get(name)
            row += ["–", "–"] if there is None else [number(there.phi[0, 0]), count(there.agreeing)]
        rows.append(row)
    return Table(f"{a} (i) and {b} (j), side {pair.side}", above, header, rows)


def of_ranks(ranks: Sequence[Rank]) -> Table:
    """Show every adapter's ranks of its spectrum, one row a module and adapter."""
    header = [
        ("module", ""), ("adapter", ""), ("r", ""), ("stable", "ranks"), ("by entropy", "ranks"),
        ("90 %", "ranks"), ("99 %", "ranks"),
    ]  # fmt: skip
    names = list(dict.fromkeys(name for rank in ranks for name in rank))
    above, short = _named(names)
    rows = [
        [
            short[name], rank.adapters[0], str(m.nominal), number(m.stable.median),
            number(m.entropy.median), f"{m.energy90.median:g}", f"{m.energy99.median:g}",
        ]
        for name in names
        for rank in ranks
        if (m := rank.modules.get(name)) is not None
    ]  # fmt: skip
    return Table("Ranks of the spectrum of ΔW", above, header, rows)


def of_replicable(rank: Rank) -> Table:
    """Show what runs of one configuration share, one row a module."""
    header = [
        ("module", ""), ("r", ""), ("replicable", "replicable"), ("recommended", "replicable"),
        ("stable", "ranks"), ("90 %", "ranks"),
    ]  # fmt: skip
    above, short = _named(list(rank))
    rows = [
        [
            short[name], str(m.nominal),
            _replicable(m), count(m.recommended), number(m.stable.median), f"{m.energy90.median:g}",
        ]
        for name, m in rank.items()
    ]  # fmt: skip
    return Table(
        f"Replicable rank of {', '.join(rank.adapters)}, side {rank.side}", above, header, rows
    )


def of_amplification(result: Amplification) -> Table:
    """Table 7 of one adapter."""
    header = [
        ("module", ""), ("r", ""), ("‖W‖", ""), ("‖ΔW‖", "norm"), ("‖UᵀWV‖ in ΔW", "factor"),
        ("in W", "factor"), ("random", "chance"), ("factor", "factor"), ("by chance", "factor"),
        ("× chance", "quotient"),
    ]  # fmt: skip
    above, short = _named([row.module for row in result])
    rows = []
    for row in result:
        star = "*" if row.finding else ""
        rows.append(
            [
                short[row.module], str(row.rank), number(row.w_norm), number(row.delta_norm),
                number(row.w_in_delta), number(row.w_in_w), number(row.w_in_random),
                number(row.factor),
                f"{number(row.chance_factor)} ({number(row.chance_low)}–{number(row.chance_high)})",
                number(row.quotient) + star,
            ]
        )  # fmt: skip
    return Table(f"{result.adapter} of {result.base}", above, header, rows)


def of_matrix(report: Report) -> Table | None:
    """Median phi(1, 1) and agreeing directions of every pair, where there are several."""
    if len(report.pairs) < 2:
        return None
    header = [("pair", ""), ("modules", ""), ("median φ(1,1)", "phi"), ("median agree", "agreeing")]
    rows = []
    for pair in report.pairs:
        first = [m.phi[0, 0] for m in pair.values() if m.phi[0, 0] == m.phi[0, 0]]
        agree = [m.agreeing for m in pair.values() if m.agreeing is not None]
        rows.append([" and ".join(pair.adapters), str(len(pair)), _median(first), _median(agree)])
    return Table("All pairs", "", header, rows)


def _replicable(m: ModuleRank) -> str:
    if m.replicable is None:
        return "–"
    several = f" ({m.replicable_low}–{m.replicable_high})" if len(m.agreeing) > 1 else ""
    return f"{m.replicable:g}{several}"


def number(value: float) -> str:
    """Write three significant digits; a dash where it is undefined."""
    return f"{value:.3g}" if value == value else "–"


def probability(p: float) -> str:
    """Write two significant digits, down to what the null's tail is known to."""
    return "–" if p != p else "< 1e-12" if p < 1e-12 else f"{p:.1e}" if p < 0.01 else f"{p:.2f}"


def count(value: int | None) -> str:
    """Write a count; a dash where it is undefined."""
    return "–" if value is None else str(value)


def _median(values: Iterable[float]) -> str:
    from statistics import median

    held = list(values)
    return number(float(median(held))) if held else "–"


def _named(names: Sequence[str]) -> tuple[str, dict[str, str]]:
    """Return the path that all modules share, and what is left of each name."""
    above: list[str] = []
    for words in zip(*(name.split(".")[:-1] for name in names), strict=False):
        if len(set(words)) > 1:
            break
        above.append(words[0])
    path = ".".join(above)
    return path, {name: name.removeprefix(f"{path}.") for name in names}
