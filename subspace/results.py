"""The frozen result types. Axes have names; NaN means undefined and becomes null in JSON.

Nothing here computes: measures fill these, figures and the command line read them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

from subspace.errors import UnknownModuleError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    Grid = NDArray[np.float64]

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


@dataclass(frozen=True, eq=False)
class ModuleSimilarity:
    """phi(i, j) of one module (Eq. 4 of Hu et al. 2021), with all that qualifies it.

    Every grid is (r_a, r_b) float64; entry [i-1, j-1] belongs to the leading i directions of `a`
    and the leading j of `b`.
    """

    module: str
    side: Side
    d: int  # the dimension of the space in which directions are compared
    rank_a: int  # stored; the numerical ranks are below
    rank_b: int
    numerical_rank_a: int
    numerical_rank_b: int
    phi: Grid  # in [0, 1]; NaN beyond the numerical rank and where `masked`
    error: Grid  # bound on |phi - exact|; NaN beyond the numerical rank
    masked: NDArray[np.bool_]  # the cell cuts a cluster of singular values: undefined
    null_mean: Grid  # what independent random subspaces give
    null_std: Grid
    pvalue: Grid  # P(phi_null >= phi)
    agreeing: int | None  # leading directions that agree beyond chance; None: undefined
    overlap_a: NDArray[np.float64]  # (r_a,) energy of a's k-th direction within all of b's
    overlap_b: NDArray[np.float64]  # (r_b,) energy of b's k-th direction within all of a's
    rung_a: int  # of the ladder in `subspace.linalg` that gave a's directions
    rung_b: int
    note: str = ""  # why something is undefined, in words
    angles: NDArray[np.float64] | None = None  # (min,) principal angles in radians, on request
    angle_edge: float | None = None  # smallest principal angle that chance gives at large d
    distances: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python for JSON; undefined is None."""
        names = [
            "module",
            "side",
            "d",
            "rank_a",
            "rank_b",
            "numerical_rank_a",
            "numerical_rank_b",
            "phi",
            "error",
            "masked",
            "null_mean",
            "null_std",
            "pvalue",
            "agreeing",
            "overlap_a",
            "overlap_b",
            "rung_a",
            "rung_b",
            "note",
        ]
        out: dict[str, Any] = {name: getattr(self, name) for name in names}
        if self.angles is not None:
            out |= {"angles": self.angles, "angle_edge": self.angle_edge}
            out["distances"] = self.distances
        plain: dict[str, Any] = strict(out)
        return plain


@dataclass(frozen=True, eq=False)
class Similarity(Mapping[str, ModuleSimilarity]):
    """Two adapters compared module by module: a read-only mapping from module path."""

    adapters: tuple[str, str]
    side: Side
    modules: Mapping[str, ModuleSimilarity]
    level: float  # at which `agreeing` was counted
    unmatched: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())  # modules that only one has
    initial: Similarity | None = None  # the same, of the two initial A, where both are stored
    control: Similarity | None = None  # the first adapter against a control, on request
    notes: tuple[str, ...] = ()

    def __getitem__(self, module: str) -> ModuleSimilarity:
        if module not in self.modules:
            have = ", ".join(list(self.modules)[:4])
            raise UnknownModuleError(f"module {module!r} was not compared; {have}, … were")
        return self.modules[module]

    def __contains__(self, module: object) -> bool:
        return module in self.modules

    def __iter__(self) -> Iterator[str]:
        return iter(self.modules)

    def __len__(self) -> int:
        return len(self.modules)

    def __repr__(self) -> str:
        a, b = self.adapters
        return f"Similarity({a!r}, {b!r}, side={self.side!r}, {len(self)} modules)"

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python for strict JSON, schema version 1."""
        out: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "kind": "similarity",
            "side": self.side,
            "adapters": list(self.adapters),
            "level": self.level,
            "unmatched": [list(names) for names in self.unmatched],
            "notes": list(self.notes),
            "modules": [result.to_dict() for result in self.modules.values()],
        }
        for name, other in (("initial", self.initial), ("control", self.control)):
            if other is not None:
                out[name] = other.to_dict()
        return out

    def to_frame(self) -> pd.DataFrame:
        """Return tidy rows: one a module and cell, columns module, i, j, phi, error, null, p."""
        import numpy as np
        import pandas as pd

        frames = []
        for name, m in self.modules.items():
            i, j = np.indices(m.phi.shape) + 1
            grids = ("phi", "error", "masked", "null_mean", "null_std", "pvalue")
            columns = {"module": name, "i": i.ravel(), "j": j.ravel()}
            frames.append(pd.DataFrame(columns | {g: getattr(m, g).ravel() for g in grids}))
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


@dataclass(frozen=True)
class DirectionGain:
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
    w_in_random: float  # the same with random directions, root mean square
    factor: float  # delta_norm / w_in_delta
    chance_factor: float  # the factor of a random update of the same norm
    chance_low: float  # central 95 % of what chance gives
    chance_high: float
    chance_drawn: bool  # the range is from Haar draws; else from the Gamma of T's moments
    w_by_chance: float  # |w| of one random direction, root mean square
    directions: tuple[DirectionGain, ...]
    note: str = ""

    @property
    def quotient(self) -> float:
        """`chance_factor` / `factor`: how many times more of W the update meets than chance."""
        return self.chance_factor / self.factor

    @property
    def finding(self) -> bool | None:
        """Whether the factor lies outside what chance gives; None where it is undefined."""
        if math.isnan(self.factor):
            return None
        return not self.chance_low <= self.factor <= self.chance_high

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python for JSON; undefined is None."""
        out = {f.name: getattr(self, f.name) for f in fields(self)}
        out["quotient"], out["finding"] = self.quotient, self.finding
        out["directions"] = [vars(d) for d in self.directions]
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
