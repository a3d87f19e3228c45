"""Everything that one report holds: what was compared, every result, and how it was made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from subspace.results.base import SCHEMA_VERSION, Part, Side, strict

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from subspace.results.amplification import Amplification, ModuleAmplification
    from subspace.results.rank import ModuleRank, Rank
    from subspace.results.similarity import ModuleSimilarity, Similarity
    from subspace.results.sweep import Table6


@dataclass(frozen=True)
class Source(Part):
    """One adapter as it was read."""

    name: str
    format: str
    method: str
    base_model: str  # as the adapter itself says; empty where it does not
    modules: int
    parameters: int  # stored values of A and B
    ranks: tuple[int, int]  # the smallest and the largest over modules
    files: tuple[tuple[str, str], ...]  # (name, SHA-256 in hex); empty for one made in memory
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python for JSON; a base model that is not named is None."""
        return super().to_dict() | {"base_model": self.base_model or None}


@dataclass(frozen=True, eq=False)
class Report:
    """What `subspace.report` found. Tuples are in the order of `sources`."""

    sources: tuple[Source, ...]
    side: Side
    level: float
    pairs: tuple[Similarity, ...]  # the first adapter with the second, the third, …; then others
    ranks: tuple[Rank, ...]  # each adapter's spectrum alone
    singular: tuple[Mapping[str, tuple[float, ...]], ...]  # of delta W, those that are real
    findings: tuple[str, ...]  # one sentence each
    replicable: tuple[Rank, ...] = ()  # of those that are runs of one configuration
    base: str = ""
    amplifications: tuple[Amplification, ...] = ()  # Table 7 at full rank; empty without a base
    curves: tuple[Amplification, ...] = ()  # likewise at smaller ranks
    sweep: Table6 | None = None
    command: str = ""  # that makes it again
    versions: Mapping[str, str] = field(default_factory=dict)
    base_files: tuple[tuple[str, str], ...] = ()  # (name and size, what identifies it)
    trained: str = ""  # the seeds of the trainings, where a record beside the weights says them

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python for strict JSON, schema version 1."""
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": "report",
            "command": self.command,
            "versions": dict(self.versions),
            "sources": [source.to_dict() for source in self.sources],
            "side": self.side,
            "level": self.level,
            "findings": list(self.findings),
            "pairs": [pair.to_dict() for pair in self.pairs],
            "ranks": [rank.to_dict() for rank in self.ranks],
            "replicable": [rank.to_dict() for rank in self.replicable],
            "singular_values": [
                {name: list(values) for name, values in each.items()} for each in self.singular
            ],
            "base": self.base or None,
            "amplifications": [each.to_dict() for each in self.amplifications],
            "curves": [each.to_dict() for each in self.curves],
            "sweep": None if self.sweep is None else self.sweep.to_dict(),
        }

    def to_rows(self) -> list[dict[str, Any]]:
        """Return flat rows, one an adapter and module; undefined is None.

        Each has the spectrum's ranks; what the module shares with the first adapter's, phi at the
        first direction and at all real ones; and its row of Table 7. All else is in `to_dict`.
        """
        first = self.sources[0].name
        rows = []
        for n, (source, ranks) in enumerate(zip(self.sources, self.ranks, strict=True)):
            pair = self.pairs[n - 1].modules if n else {}
            table = {row.module: row for row in self.amplifications[n]} if self.base else {}
            for name, m in ranks.items():
                row = {"adapter": source.name, "module": name, **_spectrum(m)}
                row |= {"first": first if n else None, **_shared(pair.get(name))}
                rows.append(strict(row | _table7(table.get(name))))
        return rows

    def to_frame(self) -> pd.DataFrame:
        """Return `to_rows` as a frame."""
        import pandas as pd

        return pd.DataFrame(self.to_rows())


def _spectrum(m: ModuleRank) -> dict[str, Any]:
    medians = ("stable", "entropy", "participation", "energy90", "energy95", "energy99")
    values = {name: getattr(m, name).median for name in medians}
    return {"rank": m.nominal, "numerical_rank": m.numerical, **values}


def _shared(m: ModuleSimilarity | None) -> dict[str, Any]:
    names = ("phi_first", "chance_first", "p_first", "phi_whole", "chance_whole", "agreeing")
    if m is None:
        return dict.fromkeys(names)
    whole = (max(m.numerical_rank_a, 1) - 1, max(m.numerical_rank_b, 1) - 1)
    cells = [float(grid[0, 0]) for grid in (m.phi, m.null_mean, m.pvalue)]
    cells += [float(grid[whole]) for grid in (m.phi, m.null_mean)]
    return dict(zip(names, (*cells, m.agreeing), strict=True))


def _table7(row: ModuleAmplification | None) -> dict[str, Any]:
    names = (
        "w_norm", "delta_norm", "w_in_delta", "w_in_w", "w_in_random", "factor", "chance_factor",
        "quotient", "finding",
    )  # fmt: skip
    return {name: None if row is None else getattr(row, name) for name in names}
