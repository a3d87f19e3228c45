"""Table 7 of one adapter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from subspace.results.base import SCHEMA_VERSION, Part, strict
from subspace.results.notebook import beyond, html_table

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class DirectionGain(Part):
    """One direction k of an update: what it adds, and what W does there. None: undefined."""

    sigma: float  # sigma_k of delta W
    w: float | None  # u_k^T W v_k, signed
    ratio: float | None  # sigma / |w|
    gain: float | None  # 1 + sigma / w: what the direction is multiplied by; negative: reversed


@dataclass(frozen=True, eq=False)
class ModuleAmplification:
    """One row of Table 7 (Hu et al. 2021, section 7.3) at one rank. NaN: undefined, see `note`."""

    module: str
    rank: int  # k: both sides are truncated to the update's leading k directions
    shape: tuple[int, int]  # (d_out, d_in)
    w_norm: float  # |W|_F
    delta_norm: float  # |delta W_k|_F
    w_in_delta: float  # |U_k^T W V_k|_F, U and V of delta W
    w_in_w: float  # the same with W's own leading k: the most that k directions can hold
    w_in_w_error: float  # bound on how far it is from k singular values of W; NaN: not computed
    w_in_w_method: str  # "gram": all were found; "krylov": a lower bound, since one may be missed
    w_in_random: float  # the same with random directions, root mean square
    factor: float  # delta_norm / w_in_delta
    chance_factor: float  # the factor of a random update of the same norm
    chance_low: float  # central 95 % of what chance gives
    chance_high: float
    chance_drawn: bool  # the range is from Haar draws; else from the Gamma of two moments
    w_by_chance: float  # |w| of one random direction, root mean square
    directions: tuple[DirectionGain, ...]
    note: str = ""

    @property
    def quotient(self) -> float:
        """`chance_factor` / `factor`: how many times more of W the update meets than chance."""
        return self.chance_factor / self.factor

    @property
    def finding(self) -> bool | None:
        """Whether the factor lies outside what chance gives; None where either is undefined."""
        if math.isnan(self.factor + self.chance_low + self.chance_high):
            return None
        # Where chance is certain, as in spaces without room, rounding is no finding.
        return not self.chance_low * (1 - 1e-9) <= self.factor <= self.chance_high * (1 + 1e-9)

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python for JSON; undefined is None."""
        out = {f.name: getattr(self, f.name) for f in fields(self)}
        out["quotient"], out["finding"] = self.quotient, self.finding
        plain: dict[str, Any] = strict(out)
        return plain


@dataclass(frozen=True, eq=False)
class Amplification(Sequence[ModuleAmplification]):
    """Table 7 of one adapter: rows in the model's order, ranks ascending within a module."""

    adapter: str
    base: str
    scaled: bool  # whether delta W includes the adapter's scale (alpha / r)
    seed: int  # of the Haar draws
    rows: tuple[ModuleAmplification, ...]

    def __getitem__(self, index: Any) -> Any:  # noqa: ANN401 - an int or a slice
        return self.rows[index]

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"Amplification({self.adapter!r}, base={self.base!r}, {len(self)} rows)"

    def _repr_html_(self) -> str:
        header = ["module", "r", "|W|", "|ΔW|", "in ΔW", "in W", "random", "factor", "by chance"]
        rows = [
            [
                row.module,
                row.rank,
                row.w_norm,
                row.delta_norm,
                row.w_in_delta,
                row.w_in_w,
                row.w_in_random,
                row.factor,
                row.chance_factor,
                beyond(row.quotient, row.finding),
            ]
            for row in self.rows
        ]
        caption = f"amplification by {self.adapter} of {self.base}; * beyond chance"
        return html_table(caption, [*header, "x chance"], rows)

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python for strict JSON, schema version 1."""
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": "amplification",
            "adapter": self.adapter,
            "base": self.base,
            "scaled": self.scaled,
            "seed": self.seed,
            "modules": [row.to_dict() for row in self.rows],
        }

    def to_frame(self) -> pd.DataFrame:
        """Return tidy rows: one a module and rank, the columns of `ModuleAmplification`."""
        import pandas as pd

        rows = [row.to_dict() for row in self.rows]
        return pd.DataFrame([{k: v for k, v in row.items() if k != "directions"} for row in rows])
