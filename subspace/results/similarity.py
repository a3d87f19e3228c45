"""Two adapters compared."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

from subspace.results.base import SCHEMA_VERSION, ByModule, Side, strict
from subspace.results.notebook import html_table, of, probability

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    Grid = NDArray[np.float64]

Method = Literal["cholesky", "cholesky_qr2", "householder_qr", "none"]


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
    method_a: Method  # that split a's factors; none: its update is exactly zero
    method_b: Method
    note: str = ""  # why something is undefined, in words
    angles: NDArray[np.float64] | None = None  # (min,) principal angles in radians, on request
    angle_edge: float | None = None  # smallest principal angle that chance gives at large d
    distances: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python for JSON; undefined is None."""
        out = {f.name: getattr(self, f.name) for f in fields(self)}
        out["distances"] = self.distances or None
        plain: dict[str, Any] = strict(out)
        return plain


@dataclass(frozen=True, eq=False)
class Similarity(ByModule[ModuleSimilarity]):
    """Two adapters compared module by module: a read-only mapping from module path."""

    adapters: tuple[str, str]
    side: Side
    modules: Mapping[str, ModuleSimilarity]
    level: float  # at which `agreeing` was counted
    unmatched: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())  # modules that only one has
    initial: Similarity | None = None  # the same, of the two initial A, where both are stored
    control: Similarity | None = None  # the first adapter against a control, on request
    notes: tuple[str, ...] = ()
    of_base: bool = False  # the first is W itself (`subspace.placement`); in JSON its name says so

    _lacks = ("was not compared", "were")

    def __repr__(self) -> str:
        a, b = self.adapters
        return f"Similarity({a!r}, {b!r}, side={self.side!r}, {len(self)} modules)"

    def _repr_html_(self) -> str:
        a, b = self.adapters
        header = ["module", "r", "φ(1,1)", "chance", "p", "φ(r,r)", "chance", "agree"]
        rows = []
        for name, m in self.modules.items():
            real = (m.numerical_rank_a, m.numerical_rank_b)
            i, j = (r - 1 for r in real) if all(real) else (-1, -1)
            row = [name, f"{m.rank_a}, {m.rank_b}", float(m.phi[0, 0]), float(m.null_mean[0, 0])]
            row += [probability(m.pvalue[0, 0]), float(m.phi[i, j]), float(m.null_mean[i, j])]
            rows.append([*row, of(m.agreeing, min(real))])
        return html_table(f"phi of {a} (i) and {b} (j), side {self.side}", header, rows)

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python for strict JSON, schema version 1."""
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": "similarity",
            "side": self.side,
            "adapters": list(self.adapters),
            "level": self.level,
            "unmatched": [list(names) for names in self.unmatched],
            "notes": list(self.notes),
            "modules": [result.to_dict() for result in self.modules.values()],
            "initial": None if self.initial is None else self.initial.to_dict(),
            "control": None if self.control is None else self.control.to_dict(),
        }

    def to_frame(self) -> pd.DataFrame:
        """Return tidy rows: one a module and cell (i, j); undefined is missing."""
        import numpy as np
        import pandas as pd

        frames = []
        for name, m in self.modules.items():
            i, j = np.indices(m.phi.shape) + 1
            grids = ("phi", "error", "masked", "null_mean", "null_std", "pvalue")
            columns = {"module": name, "i": i.ravel(), "j": j.ravel()}
            frames.append(pd.DataFrame(columns | {g: getattr(m, g).ravel() for g in grids}))
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
