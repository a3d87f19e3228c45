"""How many of an update's directions are real: what several runs of one configuration share."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from subspace.results.base import SCHEMA_VERSION, ByModule, Part, Side, strict
from subspace.results.notebook import html_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd


@dataclass(frozen=True)
class Spread(Part):
    """A number of every run: the median over the runs, the smallest and the largest. NaN: none."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class ModuleRank:
    """One module's ranks. Those of the spectrum are of delta W = scale * B A, run by run."""

    module: str
    d: int  # the dimension of the space in which directions are compared
    nominal: int  # stored rank, the smallest over the runs
    numerical: int  # of delta W, told apart from the factors' rounding; the smallest over the runs
    counted: int  # the same of the compared side, of which agreeing directions are counted
    agreeing: tuple[int | None, ...]  # leading directions shared, a pair of `Rank.pairs` each
    pairs: int  # how many of those are defined
    replicable: float | None  # their median (a half where two middle ones differ); None: undefined
    replicable_low: int | None
    replicable_high: int | None
    stable: Spread  # |delta W|_F^2 / |delta W|_2^2
    entropy: Spread  # exp of the entropy of S / sum S (Roy & Vetterli 2007)
    participation: Spread  # (sum S^2)^2 / sum S^4
    energy90: Spread  # fewest leading directions with 90 % of |delta W|_F^2
    energy95: Spread
    energy99: Spread
    recommended: int | None  # `replicable` rounded up, and 1 at least
    note: str = ""  # why something is undefined, in words

    @property
    def full(self) -> bool:
        """Whether all directions agree: the count ends at the rank, and may be larger than it."""
        return self.replicable is not None and 0 < self.counted <= self.replicable

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python for JSON; undefined is None."""
        out = {f.name: getattr(self, f.name) for f in fields(self)}
        plain: dict[str, Any] = strict(out | {"full": self.full})
        return plain

    def to_row(self) -> dict[str, Any]:
        """Return one flat row: ``stable`` is a median, beside ``stable_low``, ``stable_high``."""
        row: dict[str, Any] = {}
        for name, value in self.to_dict().items():
            if isinstance(value, dict):
                row |= {name: value["median"]}
                row |= {f"{name}_{end}": value[end] for end in ("low", "high")}
            elif name != "agreeing":
                row[name] = value
        return row


@dataclass(frozen=True, eq=False)
class Rank(ByModule[ModuleRank]):
    """The ranks of one or more runs, module by module: a read-only mapping from module path."""

    adapters: tuple[str, ...]
    side: Side  # whose directions were compared
    level: float
    modules: Mapping[str, ModuleRank]
    pairs: tuple[tuple[str, str], ...]  # of adapters; every `ModuleRank.agreeing` has this order
    recommended: int | None  # the smallest rank that is enough for nine in ten modules
    same_start: tuple[tuple[str, str], ...] = ()  # pairs known to have begun with the same A
    notes: tuple[str, ...] = ()

    _lacks = ("has no rank here", "have")

    def __repr__(self) -> str:
        return (
            f"Rank({', '.join(map(repr, self.adapters))}, side={self.side!r}, {len(self)} modules)"
        )

    def _repr_html_(self) -> str:
        spectrum = ("stable", "entropy", "participation", "energy90", "energy95", "energy99")
        header = ["module", "r", "replicable", "stable", "entropy", "partic.", "90%", "95%", "99%"]
        rows = [
            [
                name,
                m.nominal,
                m.replicable,
                *(getattr(m, part).median for part in spectrum),
                m.recommended,
            ]
            for name, m in self.modules.items()
        ]
        caption = f"ranks of {', '.join(self.adapters)}, side {self.side}"
        return html_table(caption, [*header, "recommended"], rows)

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python for strict JSON, schema version 1."""
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": "rank",
            "adapters": list(self.adapters),
            "side": self.side,
            "level": self.level,
            "pairs": [list(pair) for pair in self.pairs],
            "recommended": self.recommended,
            "same_start": [list(pair) for pair in self.same_start],
            "notes": list(self.notes),
            "modules": [result.to_dict() for result in self.modules.values()],
        }

    def to_frame(self) -> pd.DataFrame:
        """Return tidy rows, one a module; undefined is missing."""
        import pandas as pd

        return pd.DataFrame([m.to_row() for m in self.modules.values()])
