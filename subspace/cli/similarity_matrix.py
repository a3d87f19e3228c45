"""``subspace similarity`` of three adapters or more: the triangle of pairs, and their chance."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from subspace.cli.shared import hints, options, reading
from subspace.cli.shared.narrow import line_width
from subspace.cli.shared.printing import echo_table, say, show_table
from subspace.cli.shared.progress import progress
from subspace.errors import ArgumentError, printable, shorten
from subspace.results.numbers import significant

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from matplotlib.figure import Figure

    from subspace.cli.shared.output import FigureStyle, Output
    from subspace.results import By, PairSimilarity, Side, SimilarityMatrix
    from subspace.results.table import Table

_OF_TWO = {
    "--control": "control",
    "--angles": "angles",
    "--figure": "figure",
    "--contour": "contour",
    "--above-chance": "above_chance",
    "--initial": "initial",
}
LISTED = 6  # pairs that are printed with all their numbers; all pairs of four adapters
_GAP = 2  # characters between the columns of a table
_NAME = 22  # characters that a narrow terminal leaves a name
_WIDE = 100  # characters of a table in a pipe, up to which names head its columns


class Pairs(NamedTuple):
    """What is compared of each pair of adapters, and how they are ordered."""

    by: By
    k: int | None
    order: str


def compare_all(
    paths: Sequence[Path],
    pairs: Pairs,
    *,
    side: Side,
    modules: str | None,
    level: float,
    device: str,
    output: Output,
) -> None:
    """Compare, draw and print."""
    _check(len(paths))
    from subspace.measures.similarity.matrix import MOST, similarities

    if len(paths) > MOST:  # before any is read
        raise ArgumentError(f"{len(paths)} adapters were given; a matrix is of 2 to {MOST}")
    adapters = reading.adapters(paths)
    shared = Counter(name for x in adapters for name in x.select(modules))
    with progress("comparing", sum(count > 1 for count in shared.values())) as advance:
        result = similarities(
            adapters,
            by=pairs.by,
            k=pairs.k,
            side=side,
            modules=modules,
            level=level,
            device=device,
            progress=advance,
        )
    clustered = pairs.order == "clustered"

    def draw(style: FigureStyle) -> Figure:
        from subspace.plots.matrix import matrix_figure

        # Unless asked, as wide as the numbers need.
        return matrix_figure(
            result, clustered=clustered, width=style.width if style.asked else None
        )

    output.emit(
        result,
        table=lambda: draw_triangle(result, clustered=clustered),
        show=lambda: show(result, clustered=clustered),
        draw=draw,
        next_commands=[
            hints.suggest_again("--out", "matrix.png"),
            hints.suggest("similarity", paths[:2]),
        ],
    )


def _check(adapters: int) -> None:
    """Refuse what a matrix has no use for, before the work is done."""
    refused = [name for name, of in _OF_TWO.items() if options.given(of)]
    if refused:
        raise ArgumentError(
            f"{', '.join(refused)}: for two adapters only, and {adapters} were given; leave it "
            "out, or compare two at a time"
        )


def show(result: SimilarityMatrix, *, clustered: bool = True) -> None:
    """Print the lower triangle, the pairs that are most alike, and how to read both."""
    say(result.caption())
    for part in _triangles(result, _order(result, clustered=clustered), line_width()):
        echo_table(*part)
    nearest = sorted(
        (pair for pair in result.pairs if not math.isnan(pair.value)),
        key=lambda pair: pair.value if result.by == "distance" else -pair.value,
    )
    if len(nearest) > LISTED:
        say(f"the {LISTED} of {len(result.pairs)} pairs that are most alike (--csv writes all)")
    linkage = f"average linkage on {result.clustered_on}"
    order = linkage if clustered else "as the adapters were given"
    table = result.table(nearest[:LISTED])
    show_table(replace(table, caption="", legend=(*table.legend, f"order: {order}")))


def draw_triangle(result: SimilarityMatrix, *, clustered: bool = True) -> Table:
    """Return the whole lower triangle as a table."""
    from subspace.results import PairSimilarity
    from subspace.results.fields import described
    from subspace.results.table import Head, Table

    ((header, rows),) = _triangles(result, _order(result, clustered=clustered), None)
    return Table(
        caption=result.caption(),
        heads=tuple(Head(title, described(PairSimilarity)["value"]) for title in header),
        rows=tuple(map(tuple, rows)),
    )


def _order(result: SimilarityMatrix, *, clustered: bool) -> Sequence[int]:
    return result.order if clustered else range(len(result.adapters))


def _triangles(
    result: SimilarityMatrix, order: Sequence[int], width: int | None
) -> Iterator[tuple[list[str], list[list[str]]]]:
    """Yield header and rows of the lower triangle for so many characters; None for any number.

    Where the names do not fit above the columns, numbers stand there; a terminal that is too
    narrow even then gets some columns at a time.
    """
    names = [result.adapters[n] for n in order]
    cells = [[_value(result, result.pair(a, b)) for b in order[:at]] for at, a in enumerate(order)]
    longest = max(len(cell) for row in cells for cell in row)
    lengths = [len(printable(name)) for name in names]
    needed = max(lengths) + sum(max(length, longest) + _GAP for length in lengths[:-1])
    heads = names[:-1]
    first = 1
    if needed > (width or _WIDE):
        heads = [str(n) for n in range(1, len(names))]
        names = [f"{n} {name}" for n, name in enumerate(names, 1)]
        first = 0  # the first name has a row too, for its number
    if width is not None:
        names = [shorten(printable(name), max(_NAME, width // 3)) for name in names]
    beside = max(len(printable(name)) for name in names)
    step = len(heads) if width is None else max(1, (width - beside) // (longest + _GAP))
    for at in range(0, len(heads), step):
        some = heads[at : at + step]
        rows = zip(names[at + first :], cells[at + first :], strict=True)
        yield (
            ["", *some],
            [
                [name, *row[at : at + step], *[""] * (at + len(some) - len(row))]
                for name, row in rows
            ],
        )


def _value(result: SimilarityMatrix, pair: PairSimilarity) -> str:
    return significant(result.value_text(pair), pair.finding)
