"""The demo's story: what was trained, how far it agrees, and what it amplifies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from subspace.results.base import SCHEMA_VERSION, Part
from subspace.results.notebook import html_table

if TYPE_CHECKING:
    import pandas as pd

    from subspace.results.amplification import Amplification
    from subspace.results.similarity import Similarity


@dataclass(frozen=True)
class DemoRun(Part):
    """One adapter that the demo trained. Accuracies are fractions of the test texts."""

    name: str
    rank: int
    seed: int
    before: float  # under the untrained head: what chance gives
    after: float
    reused: bool  # it was there already
    folder: str


@dataclass(frozen=True, eq=False)
class Demo:
    """All that `subspace demo` shows."""

    runs: tuple[DemoRun, ...]
    pairs: tuple[Similarity, ...]  # of two ranks (Figure 3), of two seeds (Figure 4)
    amplifications: tuple[Amplification, ...]  # Table 7
    findings: tuple[str, ...]  # one sentence each
    figures: tuple[str, ...]  # files that were drawn

    def __repr__(self) -> str:
        return f"Demo({', '.join(repr(run.name) for run in self.runs)})"

    def _repr_html_(self) -> str:
        header = ["run", "rank", "seed", "accuracy before", "after"]
        rows = [[run.name, run.rank, run.seed, run.before, run.after] for run in self.runs]
        return html_table(" ".join(self.findings), header, rows)

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python for strict JSON, schema version 1."""
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": "demo",
            "runs": [run.to_dict() for run in self.runs],
            "pairs": [pair.to_dict() for pair in self.pairs],
            "amplifications": [table.to_dict() for table in self.amplifications],
            "findings": list(self.findings),
            "figures": list(self.figures),
        }

    def to_frame(self) -> pd.DataFrame:
        """Return tidy rows, one a run."""
        import pandas as pd

        return pd.DataFrame([vars(run) for run in self.runs])
