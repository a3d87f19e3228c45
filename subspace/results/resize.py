"""What an adapter keeps and loses by fewer directions: module by module, and over all of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from subspace.results.base import SCHEMA_VERSION, ByModule, Part, strict
from subspace.results.notebook import html_table, shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from subspace.adapters import Adapter

Budget = Literal["module", "all"]
Asked = Literal["rank", "energy", "error"]


@dataclass(frozen=True)
class ModuleResize(Part):
    """One module before and after; delta W = scale * B A in both."""

    module: str
    shape: tuple[int, int]  # (d_out, d_in)
    before: int  # rank as it was stored
    after: int  # directions that are kept; 0: the module is left out
    energy: float  # kept share of |delta W|_F^2, in [0, 1]; NaN: delta W is zero
    error: float  # |delta W - kept|_F / |delta W|_F, by Eckart & Young the least; NaN: zero
    norm: float  # |delta W|_F before
    parameters_before: int  # values in A and B
    parameters_after: int

    def to_row(self) -> dict[str, Any]:
        """Return one flat row, undefined as NaN."""
        row = dict(vars(self))
        d_out, d_in = row.pop("shape")
        return {"module": row.pop("module"), "d_out": d_out, "d_in": d_in, **row}


@dataclass(frozen=True, eq=False)
class Resize(ByModule[ModuleResize]):
    """A truncated adapter and what that costs: a read-only mapping from module path."""

    name: str  # of the adapter
    asked: Asked
    value: float  # of what was asked
    budget: Budget
    dtype: str  # of the new factors
    modules: Mapping[str, ModuleResize]
    energy: float  # over all modules: kept share of the sum of |delta W|_F^2
    error: float
    notes: tuple[str, ...] = ()
    adapter: Adapter = field(kw_only=True, repr=False)
    """What is left: in memory, ready for `subspace.save`."""

    _lacks = ("is not in the adapter", "are")

    @property
    def parameters_before(self) -> int:
        """Values in A and B of all modules."""
        return sum(m.parameters_before for m in self.modules.values())

    @property
    def parameters_after(self) -> int:
        """Values in A and B of all modules that are kept."""
        return sum(m.parameters_after for m in self.modules.values())

    def __repr__(self) -> str:
        return (
            f"Resize({self.name!r}, {self.asked}={self.value:g}, budget={self.budget!r}, "
            f"{len(self)} modules, error {shown(self.error)})"
        )

    def _repr_html_(self) -> str:
        header = ["module", "r before", "r after", "energy kept", "error"]
        rows = [[n, m.before, m.after, m.energy, m.error] for n, m in self.modules.items()]
        caption = (
            f"{self.name} resized by {self.asked} {self.value:g}, budget {self.budget}: energy "
            f"{shown(self.energy)}, error {shown(self.error)}, {self.parameters_after:,} of "
            f"{self.parameters_before:,} parameters"
        )
        return html_table(caption, header, rows)

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python for strict JSON, schema version 1; the factors are not in it."""
        plain: dict[str, Any] = strict(
            {
                "schema_version": SCHEMA_VERSION,
                "kind": "resize",
                "adapter": self.name,
                "asked": self.asked,
                "value": self.value,
                "budget": self.budget,
                "dtype": self.dtype,
                "energy": self.energy,
                "error": self.error,
                "parameters_before": self.parameters_before,
                "parameters_after": self.parameters_after,
                "notes": list(self.notes),
                "modules": [result.to_dict() for result in self.modules.values()],
            }
        )
        return plain

    def to_frame(self) -> pd.DataFrame:
        """Return tidy rows, one a module; undefined is missing."""
        import pandas as pd

        return pd.DataFrame([m.to_row() for m in self.modules.values()])
