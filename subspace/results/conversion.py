"""An adapter in another format: what was written where, module by module."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from subspace.results.base import SCHEMA_VERSION, ByModule, Part
from subspace.results.notebook import html_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd


@dataclass(frozen=True)
class ModuleConversion(Part):
    """One module's update as it was read: written, B A times its scale is the same."""

    module: str
    kind: str  # "linear", "embedding", "conv2d", ...
    shape: tuple[int, int]  # (d_out, d_in)
    rank: int
    scale: float
    dtype: str  # of A and B as stored
    parameters: int  # values in A and B

    def to_row(self) -> dict[str, Any]:
        """Return one flat row."""
        row = dict(vars(self))
        d_out, d_in = row.pop("shape")
        first = {name: row.pop(name) for name in ("module", "kind")}
        return first | {"d_out": d_out, "d_in": d_in, **row}


@dataclass(frozen=True, eq=False)
class Conversion(ByModule[ModuleConversion]):
    """What `subspace convert` wrote: a read-only mapping from module path."""

    name: str  # of the adapter
    source_format: str
    format: str  # of what was written
    out: str  # where, as it was given
    modules: Mapping[str, ModuleConversion]
    notes: tuple[str, ...] = ()  # what was folded, filled up or left out

    _lacks = ("was not written", "were")

    @property
    def parameters(self) -> int:
        """Values in A and B of all modules."""
        return sum(m.parameters for m in self.modules.values())

    def __repr__(self) -> str:
        return f"Conversion({self.name!r}, {self.format!r}, {self.out!r}, {len(self)} modules)"

    def _repr_html_(self) -> str:
        header = ["module", "d_out", "d_in", "rank", "scale", "dtype"]
        rows = [[n, *m.shape, m.rank, m.scale, m.dtype] for n, m in self.modules.items()]
        caption = f"{self.name} ({self.source_format}) as {self.format}: {self.out}"
        return html_table(caption, header, rows)

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python for strict JSON, schema version 1."""
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": "conversion",
            "adapter": self.name,
            "source_format": self.source_format,
            "format": self.format,
            "out": self.out,
            "parameters": self.parameters,
            "notes": list(self.notes),
            "modules": [m.to_dict() for m in self.modules.values()],
        }

    def to_frame(self) -> pd.DataFrame:
        """Return tidy rows, one a module."""
        import pandas as pd

        return pd.DataFrame([m.to_row() for m in self.modules.values()])
