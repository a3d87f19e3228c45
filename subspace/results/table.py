"""A result as a table, from which terminal, Markdown, LaTeX, notebook and report all draw.

A `Column` names a field of the rows, so that its title, meaning and digits are those of the field
(`subspace.results.fields`); it says which entry of the field is shown, and out of how many:

    Column("module")
    Column("phi", "φ(1,1)", value=lambda m: m.phi[0, 0])
    Column("agreeing", of=lambda m: m.rank)
    Column("cosine", star=lambda pair: pair.significant)
    Column("top.energy")                                   # a field of a part

`result.columns()` names the columns and `result.caption()` the line above them. `make_table` puts
the cells into words; nothing else formats a number of a result. `subspace.results.render` writes
a `Table` as Markdown, LaTeX or HTML, `subspace.cli.shared.printing.show_table` to a terminal.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from subspace.results.fields import Described, described, optional
from subspace.results.numbers import number, of, significant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

NAMED = 3  # modules of one note


@dataclass(frozen=True)
class Column:
    """One column: a field of the rows, and how a cell is made of it.

    Parameters
    ----------
    path
        Name of the field; of a part's field with a dot.
    title
        In place of the field's own.
    value
        What a row's cell shows; by default the field itself.
    text
        A cell in words, in place of what the field makes of `value`.
    of
        The most that the value could be.
    star
        Whether a cell is significant.
    """

    path: str
    title: str = ""
    _: KW_ONLY
    value: Callable[[Any], object] | None = None
    text: Callable[[Any], str] | None = None
    of: Callable[[Any], object] | None = None
    star: Callable[[Any], bool | None] | None = None

    def about(self, row: type) -> Described:
        """Return the description of the field in a class of rows."""
        *parts, name = self.path.split(".")
        for part in parts:
            row, _ = optional(described(row)[part].hint)
        return described(row)[name]

    def cell(self, row: object, about: Described) -> str:
        """Return the text of one row's cell."""
        if self.text is not None:
            return self.text(row)
        value = get(row, self.path) if self.value is None else self.value(row)
        shown = about.field.text(value) if self.of is None else of(value, self.of(row))
        return significant(shown, None if self.star is None else self.star(row))


class Head(NamedTuple):
    """Title of a column, and the description of its field."""

    title: str
    about: Described

    @property
    def is_words(self) -> bool:
        """Whether the cells are names or other words, not numbers."""
        return optional(self.about.hint)[0] is str


@dataclass(frozen=True, kw_only=True)
class Table:
    """Cells as text, below a caption, with what a reader must know to read them."""

    caption: str
    heads: tuple[Head, ...]
    rows: tuple[tuple[str, ...], ...]
    left: int = 1  # columns that are flush left: the names
    above: str = ""  # path that all modules share, left out of their names
    legend: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def header(self) -> tuple[str, ...]:
        """Titles of the columns."""
        return tuple(head.title for head in self.heads)

    def shortened(self) -> Table:
        """Return the table with the path that all modules share said once, in `above`."""
        at = next((n for n, head in enumerate(self.heads) if head.about.name == "module"), None)
        if at is None:
            return self
        above = common_path([row[at] for row in self.rows if "." in row[at]])
        rows = tuple((*r[:at], r[at].removeprefix(f"{above}."), *r[at + 1 :]) for r in self.rows)
        return replace(self, above=above, rows=rows)


def make_table(
    row: type,
    columns: Sequence[Column],
    rows: Iterable[object],
    *,
    caption: str = "",
    legend: Sequence[str] = (),
    notes: Sequence[str] = (),
    left: int = 1,
    total: Sequence[str] | None = None,
) -> Table:
    """Put the cells of some rows into words.

    Parameters
    ----------
    row
        Class of the rows, whose fields the columns name.
    columns, rows
        What is shown.
    caption
        One line above.
    legend
        Lines below, after the meanings of those columns that ask to be explained.
    notes
        What else a reader must know.
    left
        Columns of names, which stand first.
    total
        Cells of a last row, of all rows together.
    """
    abouts = [column.about(row) for column in columns]
    heads = [Head(c.title or a.title, a) for c, a in zip(columns, abouts, strict=True)]
    cells = [tuple(c.cell(each, a) for c, a in zip(columns, abouts, strict=True)) for each in rows]
    meanings = {f"{a.title}: {_within(a.field.meaning)}": None for a in abouts if a.field.explain}
    return Table(
        caption=caption,
        heads=tuple(heads),
        rows=(*cells, *([] if total is None else [tuple(total)])),
        left=left,
        legend=(*meanings, *legend) if cells else (),
        notes=tuple(notes),
    )


def _within(sentence: str) -> str:
    """Return a sentence as it stands behind a colon: names and signs keep their capitals."""
    return sentence[0].lower() + sentence[1:] if sentence[1:2].islower() else sentence


def get(row: object, path: str) -> object:
    """Return the value at a dotted path."""
    for name in path.split("."):
        row = getattr(row, name)
    return row


def common_path(names: Sequence[str]) -> str:
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


def module_notes(modules: Mapping[str, Any]) -> list[str]:
    """Return what modules note of themselves, those of one note together.

    >>> from types import SimpleNamespace
    >>> module_notes({name: SimpleNamespace(note="zero") for name in "abcde"})
    ['a, b, c and 2 more: zero']
    """
    named: dict[str, list[str]] = {}
    for name, module in modules.items():
        if module.note:
            named.setdefault(module.note, []).append(name)
    return [f"{some(names)}: {note}" for note, names in named.items()]


def some(names: Sequence[str], most: int = NAMED) -> str:
    """Return the first of some names, and how many more there are."""
    more = f" and {number(len(names) - most)} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
