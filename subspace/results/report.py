"""Everything that one report holds: what was compared, every result, and how it was made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from subspace.results.plain import SCHEMA_VERSION, Part, Side

if TYPE_CHECKING:
    from collections.abc import Mapping

    from subspace.results.amplification import Amplification
    from subspace.results.rank import Rank
    from subspace.results.similarity import Similarity
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
