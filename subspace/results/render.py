"""A table as Markdown, LaTeX, HTML or CSV. Names may come from untrusted files: all are escaped."""

from __future__ import annotations

import csv
import io
from html import escape
from typing import TYPE_CHECKING

from subspace.errors import printable
from subspace.results.numbers import is_undefined

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from subspace.results.table import Table

MOST = 40  # rows in a notebook, where `to_frame` has the rest


def markdown(table: Table) -> str:
    """Return a table for a model card."""
    return markdown_table(table.header, table.rows, left=table.left)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> str:
    """Return cells as a Markdown table, the first `left` columns flush left."""

    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    rule = [":--" if n < left else "--:" for n in range(len(header))]
    lines = [line(map(markdown_text, header)), line(rule)]
    return "\n".join(lines + [line(map(markdown_text, row)) for row in rows])


def markdown_text(text: str) -> str:
    r"""Return one line that Markdown shows as it is.

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
    "σ": r"$\sigma$",
    "|": r"$\Vert$",
    "<": "$<$",  # the fonts that TeX begins with have other signs in these places
    ">": "$>$",
    **{c: f"\\{c}" for c in "{}$&#_%"},
}


def latex(table: Table) -> str:
    """Return a table for a paper."""
    return latex_table(table.header, table.rows, left=table.left)


def latex_table(header: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> str:
    """Return cells as a LaTeX tabular with booktabs' rules; all is text, never a command."""

    def line(cells: Iterable[str]) -> str:
        escaped = ("".join(_LATEX.get(c, c) for c in printable(cell)) for cell in cells)
        return "  " + " & ".join(escaped) + r" \\"

    lines = [rf"\begin{{tabular}}{{{'l' * left}{'r' * (len(header) - left)}}}", "  \\toprule"]
    lines += [line(header), "  \\midrule", *map(line, rows), "  \\bottomrule", r"\end{tabular}"]
    return "\n".join(lines)


def html(table: Table) -> str:
    """Return an HTML table without style or script; of more than 40 rows the last says how many."""
    titles = "".join(f"<th>{_html(title)}</th>" for title in table.header)
    lines = ["".join(f"<td>{_html(cell)}</td>" for cell in row) for row in table.rows[:MOST]]
    if len(table.rows) > MOST:
        lines.append(f'<td colspan="{len(table.heads)}">and {len(table.rows) - MOST:,} more</td>')
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return (
        f"<table><caption>{_html(table.caption)}</caption><thead><tr>{titles}</tr></thead>"
        f"<tbody>{body}</tbody></table>"
    )


def _html(text: str) -> str:
    return escape(printable(text))


def csv_text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return CSV; undefined is empty, and a text that a spreadsheet would run gets a quote."""
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
    return "" if is_undefined(value) else value
