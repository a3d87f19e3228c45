"""What every result shares: the schema, the sides, and how it becomes plain JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import Any, ClassVar, Literal, TypeVar

from subspace.errors import UnknownModuleError

SCHEMA_VERSION = "1"

Side = Literal["A", "B", "in", "out", "delta-A"]
SIDES: tuple[Side, ...] = ("A", "B", "in", "out", "delta-A")


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


def schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of all that the verbs write with ``--json``.

    A document's `kind` says which of its definitions it follows. Within one `SCHEMA_VERSION` no
    field is dropped or changes its meaning.

    Returns
    -------
    The content of ``subspace/results/schema.json``, a fresh copy each time.

    Examples
    --------
    >>> from subspace.results import Rank
    >>> kinds = schema()["$defs"]
    >>> kinds["rank"]["properties"]["level"]["description"]
    'Level at which directions count as agreeing, a probability.'
    >>> set(kinds["rank"]["required"]) == set(Rank((), "in", 0.01, {}, (), None).to_dict())
    True
    """
    text = files("subspace.results").joinpath("schema.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


class Part:
    """A small piece of a result, a dataclass whose fields are all that it says."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python for JSON; undefined is None."""
        plain: dict[str, Any] = strict(vars(self))
        return plain


Result = TypeVar("Result")


class ByModule(Mapping[str, Result]):
    """A result of a whole adapter as a read-only mapping from module path to that module's."""

    modules: Mapping[str, Result]
    _lacks: ClassVar[tuple[str, str]]  # what a module that is not here is or has not; what is

    def __getitem__(self, module: str) -> Result:
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
