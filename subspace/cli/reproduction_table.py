"""What ``subspace reproduce`` made, as lines for a spreadsheet."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from subspace.results import Reproduction, SweepRow

HEADER = ("part", "item", "quantity", "value")
_TABLE7 = (
    "w_norm", "delta_norm", "w_in_delta", "w_in_w", "w_in_random", "factor", "chance_factor",
    "chance_low", "chance_high",
)  # fmt: skip


def reproduction_lines(made: Reproduction) -> list[tuple[str, str, str, object]]:
    """Return one line a file, a number of a table, a claim's verdict, and a finding."""
    lines: list[tuple[str, str, str, object]] = [("file", made.page, "shows", "the page")]
    lines += [("file", figure.file, "shows", figure.words) for figure in made.figures]
    lines += [("file", folder, "shows", "a compared run") for folder in made.adapters]
    lines += _numbers(made)
    for number, claim in enumerate(made.claims, start=1):
        item = f"{claim.where}, claim {number}"
        lines += [
            ("claim", item, "the paper", claim.paper),
            ("claim", item, "here", claim.here),
            ("claim", item, "verdict", claim.verdict),
        ]
    lines += [("finding", str(n), "says", text) for n, text in enumerate(made.findings, start=1)]
    return lines


def _numbers(made: Reproduction) -> Iterator[tuple[str, str, str, object]]:
    for row in made.table6:
        item = _configuration(row)
        yield "Table 6", item, "mean", row.mean
        yield "Table 6", item, "std", row.std
        for seed, test in zip(row.seeds, row.test, strict=True):
            yield "Table 6", item, f"test, seed {seed}", test
    for table in made.table7:
        for module in table:
            item = f"{table.adapter}, {module.module}, r = {module.rank}"
            for name in _TABLE7:
                yield "Table 7", item, name, getattr(module, name)
    for pair in made.shared:
        item = " and ".join(pair.runs)
        for side, shared in (*pair.sides.items(), ("initial A", pair.start)):
            if shared is not None:
                where = side if shared is pair.start else f"side {side}"
                yield "shared", item, f"phi(1,1), {where}", shared.phi
                yield "shared", item, f"agreeing, {where}", shared.agreeing


def _configuration(row: SweepRow) -> str:
    if row.rank is None:
        return f"{row.data}, {row.method} (reference)"
    return f"{row.data}, {row.targets}, r = {row.rank}"
