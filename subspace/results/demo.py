"""The demo's story: what was trained, how far it agrees, and what it amplifies."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from subspace.results.amplification import Amplification
from subspace.results.base import Part, Result
from subspace.results.fields import Field
from subspace.results.similarity import Similarity
from subspace.results.table import Column


@dataclass(frozen=True, kw_only=True)
class DemoRun(Part):
    """One adapter that the demo trained. Accuracies are fractions of the test texts."""

    name: Annotated[str, Field("Name of the run, and of its folder", title="run")]
    rank: Annotated[int, Field("Rank r", low=1)]
    seed: Annotated[int, Field("Seed of all that is random", low=0)]
    before: Annotated[
        float,
        Field(
            "Share of the test texts that the untrained head gets right",
            title="accuracy before",
            form="percent",
            low=0,
            high=1,
        ),
    ]
    after: Annotated[float, Field("The same after training", form="percent", low=0, high=1)]
    reused: Annotated[bool, Field("Whether the run was there already")]
    folder: Annotated[str, Field("Folder of the adapter, in the one that was given")]


@dataclass(frozen=True, eq=False)
class Demo(Result):
    """All that `subspace demo` shows."""

    kind = "demo"
    of_rows = DemoRun
    row_name = "runs"

    runs: Annotated[
        tuple[DemoRun, ...],
        Field("One entry an adapter that was trained, or was there", at_least=1),
    ]
    pairs: Annotated[
        tuple[Similarity, ...],
        Field("Similarities: of two ranks (Figure 3), of two seeds (Figure 4)"),
    ]
    amplifications: Annotated[tuple[Amplification, ...], Field("Table 7 of each rank")]
    findings: Annotated[tuple[str, ...], Field("What was found, one sentence each")]
    figures: Annotated[
        tuple[str, ...], Field("Files that were drawn, in the folder that was given")
    ]

    def __repr__(self) -> str:
        return f"Demo({', '.join(repr(run.name) for run in self.runs)})"

    def caption(self) -> str:
        """Say what was found."""
        return " ".join(self.findings)

    def columns(self) -> Sequence[Column]:
        """Return what was trained."""
        return list(map(Column, ("name", "rank", "seed", "before", "after")))
