"""How every verb writes to stdout: a readable table, strict JSON, or CSV; nothing else."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any

import click

from subspace.cli.shared.narrow import line_width, stacked, wrapped
from subspace.errors import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_NARROWEST = 22  # characters that the first column of a table keeps


def echo_json(value: dict[str, Any]) -> None:
    """Write strict JSON: NaN and infinities must have become null before."""
    click.echo(json_text(value), nl=False)


def json_text(value: dict[str, Any]) -> str:
    """Return what `echo_json` writes."""
    return json.dumps(value, indent=1, allow_nan=False) + "\n"


def echo_csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write CSV; a text that a spreadsheet would run as a formula gets a leading quote."""
    click.echo(csv_text(header, rows), nl=False)


def csv_text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return what `echo_csv` writes."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        writer.writerow([_harmless(value) for value in row])
    return text.getvalue()


def _harmless(value: object) -> object:
    if isinstance(value, str):
        line = printable(value)
        return f"'{line}" if line[:1] in "=+-@" and line else line
    return value


def say(line: str) -> None:
    """Write one line in which names may be strangers'; a narrow terminal has it in several."""
    for part in wrapped(printable(line), line_width()):
        click.echo(part)


def common_path(names: list[str]) -> str:
    """Return the path that all modules stand below, to say it once.

    >>> common_path(["enc.layer.0.q", "enc.layer.1.q"])
    'enc.layer'
    """
    shared = []
    for parts in zip(*(name.split(".")[:-1] for name in names), strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return ".".join(shared)


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


def echo_markdown(header: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> None:
    """Write what `markdown_table` returns; no cell can break out of its place."""
    click.echo(markdown_table(header, rows, left=left))


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> str:
    """Return the same table as text, the first `left` columns flush left."""

    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    rule = [":--" if n < left else "--:" for n in range(len(header))]
    lines = [line(map(markdown_text, header)), line(rule)]
    return "\n".join(lines + [line(map(markdown_text, row)) for row in rows])


def markdown_text(text: str) -> str:
    r"""Return one line that Markdown shows as it is: names may be strangers'.

    >>> markdown_text("<b> of q_lin | A")
    '\\<b\\> of q\\_lin \\| A'
    """
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>#|$" else c for c in printable(text))


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "Δ": r"$\Delta$",
    "φ": r"$\varphi$",
    "|": r"$\Vert$",
    "<": "$<$",  # the fonts that TeX begins with have other signs in these places
    ">": "$>$",
    **{c: f"\\{c}" for c in "{}$&#_%"},
}


def echo_latex(header: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> None:
    """Write a LaTeX tabular with booktabs' rules; every cell is text, never a command."""

    def line(cells: Iterable[str]) -> str:
        escaped = ("".join(_LATEX.get(c, c) for c in printable(cell)) for cell in cells)
        return "  " + " & ".join(escaped) + r" \\"

    click.echo(rf"\begin{{tabular}}{{{'l' * left}{'r' * (len(header) - left)}}}")
    click.echo("  \\toprule")
    click.echo(line(header))
    click.echo("  \\midrule")
    for row in rows:
        click.echo(line(row))
    click.echo("  \\bottomrule")
    click.echo(r"\end{tabular}")
