"""A field of a result, described where it is declared and nowhere else.

Every field of a result class is ``Annotated`` with a `Field`: what it means, its title in a table,
its unit, how many digits a reader sees, and when it is undefined. Derived from that: `to_dict`,
`to_frame`, CSV, the columns of every table and their legends (`subspace.results.table`), the
report's definitions, the API page, and the JSON Schema (`subspace.results.schemas`).

To add a result:

1. Write a file in ``subspace/results/``, without ``from __future__ import annotations``. One
   module's numbers are a frozen dataclass that inherits `Part`; the whole inherits `ByModule` (or
   `Result`, where it is not by module) and says its ``kind``, a ``caption`` and, where not every
   scalar is a column, its ``columns``.
2. Import both classes in ``subspace/results/__init__.py``. Nothing else has to be registered.

    @dataclass(frozen=True)
    class ModuleOverlap(Part):
        module: Module
        value: Annotated[float, Field("Overlap of the traces", title="tr", undefined="where zero")]

NaN and None are undefined. Both become null in JSON, and a dash in a table.
"""

from __future__ import annotations

import functools
import sys
from dataclasses import KW_ONLY, dataclass, fields
from types import SimpleNamespace, UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ForwardRef,
    Literal,
    NamedTuple,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from subspace.results.numbers import number, percent, pvalue

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    Vector = NDArray[np.float64]
    Grid = NDArray[np.float64]
    Mask = NDArray[np.bool_]
else:  # what they are in JSON
    Vector = list[float]
    Grid = list[list[float]]
    Mask = list[list[bool]]


@dataclass(frozen=True)
class Field:
    """What a field is.

    Parameters
    ----------
    meaning
        One clause of at most about 100 characters, without a period at its end.
    title
        Head of a column; by default the field's name.
    unit
        Such as ``rad``; empty for a pure number or a name.
    digits, decimals
        A number is shown with so many significant digits, or with so many decimals.
    form
        How a value is shown: as a number, a p-value, or in percent.
    least_shown
        A p-value below this is shown as no more than smaller than it.
    undefined
        When it is undefined, in words that follow "null ": "where masked". Its numbers may then be
        NaN; without it no number may be.
    low, high, above, below
        Bounds of its numbers: `low` and `high` are allowed, `above` and `below` are not.
    at_least
        Fewest entries of a list.
    missing
        When the field may not be there at all, in words that follow "missing ".
    key
        Name in JSON, where it is not the attribute's.
    row
        Names in flat rows of the entries of a tuple: ("d_out", "d_in").
    explain
        Whether the meaning stands below a table that shows the field.
    definition, source
        More words, and where they come from, for the report's page; `meaning` by default.
    """

    meaning: str
    _: KW_ONLY
    title: str = ""
    unit: str = ""
    digits: int = 3
    decimals: int | None = None
    form: Literal["number", "pvalue", "percent"] = "number"
    least_shown: float = 1e-12
    undefined: str = ""
    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None
    at_least: int | None = None
    missing: str = ""
    key: str = ""
    row: tuple[str, ...] = ()
    explain: bool = False
    definition: str = ""
    source: str = ""

    @property
    def description(self) -> str:
        """The sentence of the JSON Schema."""
        null = f"; null {self.undefined}" if self.undefined else ""
        missing = f"; missing {self.missing}" if self.missing else ""
        return f"{self.meaning}{null}{missing}."

    def text(self, value: object) -> str:
        """Return a value as a table shows it.

        >>> Field("Share", decimals=3).text(0.12345), Field("Probability", form="pvalue").text(0.5)
        ('0.123', '0.50')
        """
        if self.form == "pvalue":
            return pvalue(value, least=self.least_shown)
        if self.form == "percent":
            return percent(value)
        return number(value, digits=self.digits, decimals=self.decimals)


HIDDEN = "hidden"
"""Annotates what is in no JSON, table or frame: an object in memory."""


class Described(NamedTuple):
    """One field or property of a result class."""

    name: str  # of the attribute
    hint: Any  # its type, without the description
    field: Field

    @property
    def key(self) -> str:
        """Its name in JSON."""
        return self.field.key or self.name

    @property
    def title(self) -> str:
        """Its head in a table."""
        return self.field.title or self.name.replace("_", " ")


def described(cls: type) -> Mapping[str, Described]:
    """Return what a result class says: its fields in their order, then its described properties.

    Raises
    ------
    TypeError
        A field has no description and is not `HIDDEN`.
    """
    return _described(cls)


@functools.cache
def _described(cls: Any) -> Mapping[str, Described]:  # noqa: ANN401 - of classes mypy doubts a hash
    hints = {field.name: field.type for field in fields(cls)}
    for base in reversed(cls.__mro__):
        for name, value in vars(base).items():
            if isinstance(value, property) and value.fget is not None:
                hint = value.fget.__annotations__.get("return")
                if get_origin(hint) is Annotated:
                    hints[name] = hint
    out = {}
    for name, hint in hints.items():
        inner, *about = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        declared = [each for each in about if isinstance(each, Field)]
        if declared:
            out[name] = Described(name, _resolved(inner, cls), declared[-1])
        elif HIDDEN not in about:
            raise TypeError(f"{cls.__name__}.{name} says nothing of itself: annotate it")
    return out


def _resolved(hint: Any, cls: type) -> Any:  # noqa: ANN401 - types
    if not isinstance(hint, (str, ForwardRef)):
        return hint
    holder = SimpleNamespace(__annotations__={"it": hint})
    return get_type_hints(holder, vars(sys.modules[cls.__module__]), include_extras=True)["it"]


def optional(hint: Any) -> tuple[Any, bool]:  # noqa: ANN401 - types
    """Return a type without None, and whether None was in it.

    >>> optional(int | None), optional(int)
    ((<class 'int'>, True), (<class 'int'>, False))
    """
    if get_origin(hint) in (Union, UnionType):
        others = tuple(each for each in get_args(hint) if each is not type(None))
        if len(others) < len(get_args(hint)):
            return (others[0] if len(others) == 1 else Union[others]), True  # noqa: UP007
    return hint, False


def is_scalar(hint: Any) -> bool:  # noqa: ANN401 - types
    """Whether a type is a text, a number or a flag, and so one cell of a row."""
    hint, _ = optional(hint)
    return hint in (str, int, float, bool) or get_origin(hint) is Literal


# Fields that many results have

Module = Annotated[str, Field("Path of the module in the base model", title="module")]
Shape = Annotated[
    tuple[int, int],
    Field("d_out and d_in of the map y = delta W x", title="shape", low=1, row=("d_out", "d_in")),
]
Note = Annotated[str, Field("What is undefined or in doubt, and why; empty where nothing is")]
Level = Annotated[
    float, Field("False discovery rate over modules, a probability", digits=6, above=0, below=1)
]
