"""How every verb writes to stdout: a readable table, strict JSON, or CSV; nothing else."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from subspace.cli.shared.narrow import line_width, stacked, wrapped
from subspace.errors import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from subspace.results.table import Table

_NARROWEST = 22  # characters that the first column of a table keeps


def echo_json(value: dict[str, Any]) -> None:
    """Write strict JSON: NaN and infinities must have become null before."""
    click.echo(json_text(value), nl=False)


def json_text(value: dict[str, Any]) -> str:
    """Return what `echo_json` writes."""
    return json.dumps(value, indent=1, allow_nan=False) + "\n"


def echo_csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write CSV; a text that a spreadsheet would run as a formula gets a leading quote."""
    from subspace.results.render import csv_text

    click.echo(csv_text(header, rows), nl=False)


def say(line: str) -> None:
    """Write one line in which names may be strangers'; a narrow terminal has it in several."""
    for part in wrapped(printable(line), line_width()):
        click.echo(part)


def echo_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> None:
    """Write a table, the first `left` columns flush left and the others flush right.

    Cells are plain text, never markup. In a pipe no line is wrapped or cut. A terminal that is too
    narrow for all columns gets each row as a few lines, and never a number cut or parted.
    """
    from rich import box
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

    rows = [[printable(cell) for cell in row] for row in rows]
    columns = list(zip(header, *rows, strict=True))
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)
    for n, cells in enumerate(columns):
        longest = max(len(cell) for cell in cells)
        # In a narrow terminal the first column, the long one, gives way; numbers are never cut.
        table.add_column(
            Text(header[n]),
            justify="left" if n < left else "right",
            overflow="fold",
            no_wrap=n > 0,
            min_width=min(longest, _NARROWEST) if n == 0 else longest,
        )
    for row in rows:
        table.add_row(*map(Text, row))
    width = line_width()
    wide = Console(highlight=False, width=100_000, color_system=None)
    console = wide if width is None else Console(highlight=False, width=width)
    with console.capture() as drawn:
        if width is not None and width < Measurement.get(wide, wide.options, table).minimum:
            for name, below in stacked(header, rows, width, left=left):
                console.print(Text(name, "bold"))
                for line in below:
                    console.print(Text(line), soft_wrap=True)
        else:
            console.print(table)
    lines = [line.rstrip() for line in drawn.get().splitlines()]
    click.echo("\n".join(line for line in lines if line))


def show_table(table: Table) -> None:
    """Write a result's table with its caption above, and below it what explains it."""
    short = table.shortened()
    if short.caption:
        say(short.caption)
    if short.above:
        say(f"modules of {short.above}")
    if short.rows:
        echo_table(short.header, short.rows, left=short.left)
    for line in short.legend:
        say(line)
    show_notes(short)


def show_notes(table: Table) -> None:
    """Write what else a reader of a table must know."""
    for note in table.notes:
        say(f"note: {note}")
