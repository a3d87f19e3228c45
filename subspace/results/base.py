"""What every result shares: how it becomes JSON, flat rows, a frame and a table."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar, get_args, get_origin

from subspace.errors import UnknownModuleError
from subspace.results import render
from subspace.results.fields import described, is_scalar
from subspace.results.table import Column, Table, make_table, module_notes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pandas as pd

SCHEMA_VERSION = "2"

Side = Literal["A", "B", "in", "out", "delta-A"]
SIDES: tuple[Side, ...] = get_args(Side)
SIDE_WORDS: Mapping[Side, str] = {
    "A": "right singular vectors of A (the paper's choice; depends on the gauge of B A)",
    "B": "left singular vectors of B (depends on the gauge of B A)",
    "in": "right singular vectors of delta W = B A",
    "out": "left singular vectors of delta W = B A",
    "delta-A": "right singular vectors of A - A_0",
}


def strict(value: Any) -> Any:  # noqa: ANN401 - any nesting of arrays, mappings and numbers
    """Return `value` as plain Python for strict JSON: arrays to lists, NaN and infinities to None.

    >>> strict({"phi": [1.0, float("nan")]})
    {'phi': [1.0, None]}
    """
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(k): strict(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [strict(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


class Part:
    """A piece of a result: a dataclass whose described fields are all that it says."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python for strict JSON; undefined is None."""
        return {
            each.key: strict(list(value.values()) if is_by_module(each.hint) else value)
            for each in described(type(self)).values()
            for value in (getattr(self, each.name),)
        }

    def to_row(self) -> dict[str, Any]:
        """Return what is one number, text or flag as one flat row; undefined is None or NaN.

        A part's fields have its name before theirs; lists and arrays are left out.
        """
        row: dict[str, Any] = {}
        for each in described(type(self)).values():
            value = getattr(self, each.name)
            if is_scalar(each.hint):
                row[each.key] = value
            elif each.field.row:
                row |= zip(each.field.row, value, strict=True)
            elif isinstance(value, Part):
                inner = value.to_row()
                row |= {f"{each.key}_{n}" if n else each.key: inner[n] for n in inner}
        return row


def is_by_module(hint: Any) -> bool:  # noqa: ANN401 - types
    """Whether a type is a mapping from module path to parts that say their module themselves.

    In JSON that is a list.
    """
    if get_origin(hint) is not Mapping:
        return False
    part = get_args(hint)[1]
    return isinstance(part, type) and issubclass(part, Part) and "module" in described(part)


class Result(Part):
    """A result that is a document of its own: `kind` says in JSON what it is."""

    kind: ClassVar[str]
    schema_versions: ClassVar[tuple[str, ...]] = (SCHEMA_VERSION,)  # of documents that are the same
    of_rows: ClassVar[type]  # class of the rows of the table
    row_name: ClassVar[str] = "modules"  # the field that has them

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python for strict JSON; undefined is None."""
        return {"schema_version": SCHEMA_VERSION, "kind": self.kind, **super().to_dict()}

    def row_parts(self) -> Iterable[Any]:
        """Return the rows of the table, which are parts."""
        rows = getattr(self, self.row_name)
        return rows.values() if isinstance(rows, Mapping) else rows

    def caption(self) -> str:
        """Return the line above the table."""
        return self.kind

    def columns(self) -> Sequence[Column]:
        """Return the columns of the table: by default every number, text and flag but the note."""
        return [
            Column(each.name)
            for each in described(self.of_rows).values()
            if is_scalar(each.hint) and each.name != "note"
        ]

    def legend(self) -> Sequence[str]:
        """Return lines below the table, after the meanings of its columns."""
        return ()

    def remarks(self) -> Sequence[str]:
        """Return what else a reader must know: the notes of modules, and those of the whole."""
        modules = getattr(self, "modules", {})
        noted = {name: part for name, part in modules.items() if getattr(part, "note", "")}
        return [*module_notes(noted), *getattr(self, "notes", ())]

    def table(self) -> Table:
        """Return the table that a terminal, a notebook, Markdown, LaTeX and the report show."""
        return make_table(
            self.of_rows,
            self.columns(),
            self.row_parts(),
            caption=self.caption(),
            legend=self.legend(),
            notes=self.remarks(),
        )

    def to_rows(self) -> list[dict[str, Any]]:
        """Return tidy rows with every digit; undefined is None or NaN."""
        return [part.to_row() for part in self.row_parts()]

    def to_frame(self) -> pd.DataFrame:
        """Return `to_rows` as a frame; undefined is missing."""
        import pandas as pd

        return pd.DataFrame(self.to_rows())

    def to_csv(self) -> str:
        """Return `to_rows` as CSV; undefined is empty."""
        rows = self.to_rows()
        return render.csv_text(list(rows[0]) if rows else [], (list(row.values()) for row in rows))

    def to_markdown(self) -> str:
        """Return the table for a model card."""
        return render.markdown(self.table())

    def to_latex(self) -> str:
        """Return the table for a paper, with booktabs' rules."""
        return render.latex(self.table())

    def _repr_html_(self) -> str:
        return render.html(self.table())


One = TypeVar("One")


class ByModule(Result, Mapping[str, One]):
    """A result of a whole adapter as a read-only mapping from module path to that module's."""

    modules: Mapping[str, One]
    _lacks: ClassVar[tuple[str, str]] = ("is not in this result", "are")  # a missing module; others

    def __getitem__(self, module: str) -> One:
        if module not in self.modules:
            have = ", ".join(list(self.modules)[:4])
            lacks, has = self._lacks
            raise UnknownModuleError(f"module {module!r} {lacks}; {have}, … {has}")
        return self.modules[module]

    def __contains__(self, module: object) -> bool:
        return module in self.modules

    def __iter__(self) -> Iterator[str]:
        return iter(self.modules)

    def __len__(self) -> int:
        return len(self.modules)
