"""Two full checkpoints: what tuning changed, module by module, and how few directions hold it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from subspace.results.base import SCHEMA_VERSION, ByModule, Part, strict
from subspace.results.notebook import html_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from subspace.adapters import Adapter

    Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ModuleDiff(Part):
    """One module's delta W = tuned - base, and its leading directions. NaN, None: see `note`."""

    module: str
    kind: str  # "linear", "embedding", "conv2d", ...
    shape: tuple[int, int]  # (d_out, d_in) of the map
    base_dtype: str  # as stored
    tuned_dtype: str
    unchanged: float  # share of the entries that are equal
    w_norm: float  # |W|_F of the base
    delta_norm: float  # |delta W|_F
    rank: int  # leading directions that are kept: those asked for, told apart from zero
    sigma: Array  # (rank,) singular values of delta W, descending
    error: Array  # (rank,) a singular value lies this close to each
    method: str  # "gram": all were computed; "krylov": a lower bound, since one may be missed
    energy: float  # share of |delta W|_F^2 in the kept directions
    stable: float  # |delta W|_F^2 / sigma_1^2: as many directions as strong as the first hold it
    rounding: float  # what storing both rounded away, Frobenius norm, root mean square
    level: float  # a singular value up to this may be rounding alone
    real: int | None  # leading directions beyond `level` and `error`
    more: bool  # the last direction computed is real too: there may be more
    note: str = ""

    @property
    def relative(self) -> float:
        """|delta W|_F / |W|_F; NaN where W is zero."""
        return self.delta_norm / self.w_norm if self.w_norm else math.nan

    @property
    def held(self) -> str:
        """How many directions are real, as a table shows it."""
        return "-" if self.real is None else f"{'≥' if self.more else ''}{self.real}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python for JSON; undefined is None."""
        plain: dict[str, Any] = strict(vars(self) | {"relative": self.relative})
        return plain


@dataclass(frozen=True)
class TensorDiff(Part):
    """A tensor of both checkpoints that is no module's matrix: a bias, a norm, stacked experts."""

    tensor: str
    shape: tuple[int, ...]  # of the tuned one
    changed: bool
    relative: float  # norm of the change over that of the base's; NaN: that is zero, or of a shape


@dataclass(frozen=True, eq=False)
class Diff(ByModule[ModuleDiff]):
    """What tuning changed: a read-only mapping from the modules that are not equal."""

    base: str
    tuned: str
    rank: int | None  # directions asked for of each module
    energy: float | None  # or the share of each module's energy
    modules: Mapping[str, ModuleDiff]
    equal: tuple[str, ...]  # modules that are the same number by number
    only_base: tuple[str, ...]  # modules, and tensors that are none's, without a counterpart
    only_tuned: tuple[str, ...]
    tensors: tuple[TensorDiff, ...]
    notes: tuple[str, ...] = ()
    adapter: Adapter | None = field(default=None, repr=False)
    """The kept directions as an adapter of the base, B A = U S V^T; None where not asked for."""

    _lacks = ("did not change, or is not in both", "did")

    @property
    def delta_norm(self) -> float:
        """|delta W|_F over all modules."""
        return math.hypot(*(m.delta_norm for m in self.modules.values()))

    @property
    def kept(self) -> float:
        """Share of the whole |delta W|_F^2 in the kept directions; NaN where nothing changed."""
        whole = self.delta_norm
        parts = (m.energy * (m.delta_norm / whole) ** 2 for m in self.modules.values())
        return sum(parts) if whole else math.nan

    def __repr__(self) -> str:
        return f"Diff(base={self.base!r}, tuned={self.tuned!r}, {len(self)} modules changed)"

    def _repr_html_(self) -> str:
        header = ["module", "r", "|W|", "|ΔW|", "|ΔW|/|W|", "σ1", "energy", "stable", "rounding"]
        rows = [
            [
                name,
                *(m.rank, m.w_norm, m.delta_norm, m.relative),
                float(m.sigma[0]) if m.rank else None,
                *(m.energy, m.stable, m.rounding, m.held),
            ]
            for name, m in self.modules.items()
        ]
        caption = (
            f"{self.tuned} - {self.base}: {len(self)} modules changed, {len(self.equal)} equal"
        )
        return html_table(caption, [*header, "real"], rows)

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python for strict JSON, schema version 1."""
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": "diff",
            "base": self.base,
            "tuned": self.tuned,
            "rank": self.rank,
            "energy": self.energy,
            "delta_norm": self.delta_norm,
            "kept": strict(self.kept),
            "equal": list(self.equal),
            "only_base": list(self.only_base),
            "only_tuned": list(self.only_tuned),
            "tensors": [tensor.to_dict() for tensor in self.tensors],
            "notes": list(self.notes),
            "modules": [result.to_dict() for result in self.modules.values()],
        }

    def to_frame(self) -> pd.DataFrame:
        """Return tidy rows, one a module that changed; ``sigma_1`` is its first singular value."""
        import pandas as pd

        return pd.DataFrame(list(map(row, self.modules.values())), columns=list(COLUMNS))


COLUMNS = (
    *("module", "kind", "d_out", "d_in", "sigma_1", "base_dtype", "tuned_dtype", "unchanged"),
    *("w_norm", "delta_norm", "rank", "method", "energy", "stable", "rounding", "level", "real"),
    *("more", "note", "relative"),
)
"""Of `row`."""


def row(module: ModuleDiff) -> dict[str, Any]:
    """Return one module's numbers as one flat row."""
    plain = module.to_dict()
    (d_out, d_in), sigma = plain.pop("shape"), plain.pop("sigma")
    del plain["error"]
    first = {"module": plain.pop("module"), "kind": plain.pop("kind")}
    return first | {"d_out": d_out, "d_in": d_in, "sigma_1": sigma[0] if sigma else None} | plain
