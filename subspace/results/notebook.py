"""How a result shows itself in a notebook: a plain HTML table, names escaped, nothing that runs."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from subspace.errors import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST = 40  # rows; a notebook is read, and `to_frame` has the rest


def html_table(caption: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table without style or script; of more than 40 rows the last says how many more.

    Parameters
    ----------
    caption
        One line above.
    header
        Titles of the columns.
    rows
        Cells, one for each column: texts as they are, numbers to three digits, None and NaN as a
        dash.

    Examples
    --------
    >>> html_table("ranks", ["module", "r"], [["<q>", 8], ["v", None]])
    '<table><caption>ranks</caption><thead><tr><th>module</th><th>r</th></tr></thead><tbody>\
<tr><td>&lt;q&gt;</td><td>8</td></tr><tr><td>v</td><td>-</td></tr></tbody></table>'
    """
    titles = "".join(f"<th>{_text(name)}</th>" for name in header)
    lines = ["".join(f"<td>{_text(shown(cell))}</td>" for cell in row) for row in rows[:MOST]]
    if len(rows) > MOST:
        lines.append(f'<td colspan="{len(header)}">and {len(rows) - MOST:,} more</td>')
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return (
        f"<table><caption>{_text(caption)}</caption><thead><tr>{titles}</tr></thead>"
        f"<tbody>{body}</tbody></table>"
    )


def _text(text: str) -> str:
    return escape(printable(text))


def shown(cell: object) -> str:
    """Return a cell's text.

    >>> shown("q"), shown(8), shown(0.12345), shown(None)
    ('q', '8', '0.123', '-')
    """
    if cell is None or cell != cell:
        return "-"
    return f"{cell:.3g}" if isinstance(cell, float) else str(cell)


def beyond(number: float | None, finding: bool | None) -> str:
    """Return a number, with a star where it is beyond chance.

    >>> beyond(0.12345, True), beyond(0.5, False), beyond(float("nan"), None)
    ('0.123*', '0.5', '-')
    """
    return shown(number) + ("*" if finding else "")


def of(number: int | None, most: int) -> str:
    """Return a count out of so many.

    >>> of(2, 8), of(None, 8)
    ('2/8', '-')
    """
    return "-" if number is None else f"{number}/{most}"


def probability(p: float, least: float = 1e-12) -> str:
    """Return a p-value, which below `least` is no more than small.

    >>> probability(0.00123), probability(1e-30), probability(float("nan"))
    ('0.0012', '< 1e-12', '-')
    """
    return f"< {least:.0e}".replace("e-0", "e-") if p < least else "-" if p != p else f"{p:.2g}"
