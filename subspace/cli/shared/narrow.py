"""A narrow terminal: how wide a line may be, prose that is wrapped, a table whose rows are stacked.

In a pipe there is no such width: a line is whole, and a table has a line a row.
"""

from __future__ import annotations

import os
import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_LEAST = 20  # characters; of a narrower terminal some lines are broken by itself
_GAP = "  "


def line_width() -> int | None:
    """Return how many characters a line may have: COLUMNS, or the terminal's; None in a pipe."""
    asked = os.environ.get("COLUMNS", "")
    if asked.isdecimal() and int(asked) > 0:
        return max(_LEAST, int(asked))
    from rich.console import Console

    console = Console()
    return max(_LEAST, console.width) if console.is_terminal else None


def wrapped(text: str, width: int | None, *, indent: str = _GAP) -> list[str]:
    """Return a text as lines of `width`, parted between words; paths and names stay whole.

    >>> wrapped("energy: the kept share of all of it", 20)
    ['energy: the kept', '  share of all of it']
    >>> wrapped("energy: the kept share of all of it", None)
    ['energy: the kept share of all of it']
    """
    if width is None:
        return [text]
    return textwrap.wrap(
        text,
        width,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    ) or [text]


def stacked(
    header: Sequence[str], rows: Sequence[Sequence[str]], width: int, *, left: int = 1
) -> list[tuple[str, list[str]]]:
    """Return each row as its name and lines below it: every number beside its column's title.

    Parameters
    ----------
    header, rows
        Cells as text; the first `left` of a row are its name.
    width
        Characters of a line. A column stands in the same line of every row.

    Examples
    --------
    >>> stacked(["module", "r", "error"], [["q", "8", "0.01"], ["v", "16", "0.1"]], 20)
    [('q', ['  r  8  error 0.01']), ('v', ['  r 16  error  0.1'])]
    >>> stacked(["module", "r", "error"], [["q", "8", "0.01"]], 14)
    [('q', ['  r 8', '  error 0.01'])]
    """
    from rich.cells import cell_len

    columns = range(left, len(header))
    wide = {n: max(cell_len(row[n]) for row in rows) for n in columns} if rows else {}
    lines: list[list[int]] = []
    room = 0
    for n in wide:
        needs = cell_len(header[n]) + 1 + wide[n] + len(_GAP)
        if not lines or needs > room:
            lines.append([])
            room = width
        lines[-1].append(n)
        room -= needs
    out = []
    for row in rows:
        below = []
        for line in lines:
            items = []
            for n in line:
                space = " " * (wide[n] - cell_len(row[n]) if len(line) > 1 else 0)
                items += [f"{header[n]} {space}{row[n]}"] if row[n] else []
            text = _GAP + _GAP.join(items)
            if cell_len(text) > width:
                below += textwrap.wrap(text, width, subsequent_indent=2 * _GAP)
            elif items:
                below.append(text)
        out.append((_GAP.join(cell for cell in row[:left] if cell), below))
    return out
