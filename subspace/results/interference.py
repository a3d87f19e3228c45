"""What adding several adapters to one base would do: a merge by weighted sum, before it is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from subspace.results.base import SCHEMA_VERSION, ByModule, Part, strict
from subspace.results.notebook import beyond, html_table, probability, shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

Pair = tuple[str, str]


@dataclass(frozen=True)
class SpaceOverlap(Part):
    """phi(r1, r2) of all real directions of two updates on one side, as in `similarity`."""

    phi: float  # in [0, 1]; NaN where an update has none
    error: float  # bound on |phi - exact|
    chance: float  # max(r1, r2) / d: what independent random spaces give
    p: float  # P(phi_null >= phi)


@dataclass(frozen=True)
class PairInterference(Part):
    """Two adapters in one module."""

    adapters: Pair
    cosine: float  # <w1 dW1, w2 dW2> / (|w1 dW1| |w2 dW2|) in [-1, 1]; NaN: undefined
    error: float  # bound on |cosine - exact|
    chance_std: float  # 1 / sqrt(d_out d_in): independent random updates; their mean is 0
    p: float  # two-sided, under that null with both spectra as they are
    finding: bool | None  # beyond chance at the result's level, over modules; None: undefined
    rows: SpaceOverlap  # of the row spaces of delta W, where its input lies (side in)
    columns: SpaceOverlap  # of the column spaces, where its output lies (side out)
    note: str = ""  # why something is undefined, in words


@dataclass(frozen=True)
class ModuleInterference(Part):
    """One module that two or more adapters share; tuples are in the order of `adapters`."""

    module: str
    shape: tuple[int, int]  # (d_out, d_in)
    adapters: tuple[str, ...]  # those that have it
    weights: tuple[float, ...]
    ranks: tuple[int, ...]  # numerical, of delta W
    norms: tuple[float, ...]  # |dW_k|_F, scale included, weight not
    pairs: tuple[PairInterference, ...]
    energy: float  # |sum w_k dW_k|^2 / sum |w_k dW_k|^2, in [0, number of adapters]; NaN: all zero
    energy_error: float  # bound on |energy - exact|
    energy_std: float  # around 1, of independent random updates
    kept: tuple[float, ...]  # <sum, dW_k> / |dW_k|^2: w_k where nothing interferes; NaN: dW_k is 0
    note: str = ""

    def pair(self, adapters: Pair) -> PairInterference | None:
        """Return two adapters' numbers; None where the module is not in both."""
        return next((p for p in self.pairs if p.adapters == adapters), None)

    def to_rows(self) -> list[dict[str, Any]]:
        """Return one flat row a pair."""
        return [
            {
                "module": self.module,
                "a": pair.adapters[0],
                "b": pair.adapters[1],
                "cosine": pair.cosine,
                "error": pair.error,
                "chance_std": pair.chance_std,
                "p": pair.p,
                "finding": pair.finding,
                "rows_phi": pair.rows.phi,
                "rows_chance": pair.rows.chance,
                "rows_p": pair.rows.p,
                "columns_phi": pair.columns.phi,
                "columns_chance": pair.columns.chance,
                "columns_p": pair.columns.p,
                "energy": self.energy,  # of all adapters of the module together
                "energy_std": self.energy_std,
                "kept_a": self.kept[self.adapters.index(pair.adapters[0])],
                "kept_b": self.kept[self.adapters.index(pair.adapters[1])],
                "note": pair.note,
            }
            for pair in self.pairs
        ]


@dataclass(frozen=True)
class WholePair(Part):
    """Two adapters over the whole model: every delta W of each laid out as one long vector."""

    adapters: Pair
    cosine: float
    error: float
    chance_std: float
    p: float
    modules: int  # with a cosine
    same: int  # of those that are beyond chance, above 0
    opposite: int  # below 0


@dataclass(frozen=True, eq=False)
class Interference(ByModule[ModuleInterference]):
    """A merge of adapters, module by module: a read-only mapping from module path.

    The whole model's numbers are sums over all modules that were chosen, those that a single
    adapter has among them: such a module adds to the energy and meets nothing.
    """

    adapters: tuple[str, ...]
    weights: tuple[float, ...]
    level: float  # false discovery rate over modules, for each pair
    modules: Mapping[str, ModuleInterference]
    pairs: tuple[WholePair, ...]
    norms: tuple[float, ...]
    energy: float
    energy_error: float
    energy_std: float
    kept: tuple[float, ...]
    alone: tuple[tuple[str, ...], ...] = ()  # of each adapter the modules that no other has
    same_start: Mapping[Pair, int] | None = None  # modules begun with the same A; None: unknown
    notes: tuple[str, ...] = ()

    _lacks = ("is not shared by two adapters", "are")

    def __repr__(self) -> str:
        return f"Interference({', '.join(map(repr, self.adapters))}, {len(self)} modules)"

    def _repr_html_(self) -> str:
        header = ["module", "a", "b", "cos", "chance ±", "p", "in φ", "out φ", "energy"]
        rows = [
            [
                *(name, *pair.adapters, beyond(pair.cosine, pair.finding), pair.chance_std),
                *(probability(pair.p), pair.rows.phi, pair.columns.phi, m.energy),
            ]
            for name, m in self.modules.items()
            for pair in m.pairs
        ]
        whole = f"energy {shown(self.energy)} over the whole model"
        caption = f"interference in {' + '.join(self.adapters)}: {whole}; * beyond chance"
        return html_table(caption, header, rows)

    @property
    def shares(self) -> tuple[float, ...]:
        """Of the energy sum |w_k dW_k|^2 the part of each adapter; NaN where all are zero."""
        largest = max(abs(w) * n for w, n in zip(self.weights, self.norms, strict=True)) or 1.0
        sizes = [(w * n / largest) ** 2 for w, n in zip(self.weights, self.norms, strict=True)]
        total = sum(sizes)
        return tuple(size / total if total else float("nan") for size in sizes)

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python for strict JSON, schema version 1."""
        out: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "kind": "interference",
            "adapters": list(self.adapters),
            "weights": list(self.weights),
            "level": self.level,
            "pairs": [pair.to_dict() for pair in self.pairs],
            "norms": list(self.norms),
            "shares": list(self.shares),
            "energy": self.energy,
            "energy_error": self.energy_error,
            "energy_std": self.energy_std,
            "kept": list(self.kept),
            "alone": [list(names) for names in self.alone],
            "same_start": None
            if self.same_start is None
            else [{"adapters": pair, "modules": n} for pair, n in self.same_start.items()],
            "notes": list(self.notes),
            "modules": [result.to_dict() for result in self.modules.values()],
        }
        plain: dict[str, Any] = strict(out)
        return plain

    def to_frame(self) -> pd.DataFrame:
        """Return tidy rows, one a module and pair; undefined is missing."""
        import pandas as pd

        return pd.DataFrame([row for m in self.modules.values() for row in m.to_rows()])
