"""What every result shares: the schema's version, the sides, and how it becomes plain JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

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
