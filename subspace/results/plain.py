"""What every result shares: the schema's version, the sides, and how it becomes plain JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
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
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(k): strict(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [strict(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


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
