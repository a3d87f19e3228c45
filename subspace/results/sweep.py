"""Accuracy over rank and target matrices: Table 6 of the LoRA paper, of a sweep of one's own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any, Literal

from subspace.results.base import SCHEMA_VERSION, Part, strict
from subspace.results.notebook import html_table

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class SweepRow:
    """One configuration over its seeds. Accuracies are fractions, in the order of `seeds`.

    Of a task of writing, `test` and `before` are the share of texts that are written exactly
    (`metric`), `train` is undefined, and `validation` the share of tokens that are right.
    """

    data: str
    method: str  # "lora", or a reference: "full", "head"
    targets: str  # joined by "+"; empty for a reference
    rank: int | None
    alpha: float | None
    learning_rate: float
    seeds: tuple[int, ...]
    test: tuple[float, ...]
    validation: tuple[float, ...]
    train: tuple[float, ...]
    before: tuple[float, ...]  # test texts, under the untrained head: what chance gives
    parameters: int | None  # trained
    searched: tuple[tuple[float, float], ...] = ()  # (learning rate, validation accuracy) tried
    failed: tuple[str, ...] = ()  # runs without a record, with the reason
    metric: Literal["accuracy", "exact match"] = "accuracy"  # what `test` counts
    loss: tuple[float, ...] = ()  # of test texts after training; of a token where texts are written

    @property
    def mean(self) -> float:
        """Mean test accuracy; NaN without a run."""
        return mean(self.test) if self.test else math.nan

    @property
    def std(self) -> float:
        """Standard deviation over seeds, ddof 1; NaN below two."""
        return stdev(self.test) if len(self.test) > 1 else math.nan

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python for JSON; undefined is None."""
        plain: dict[str, Any] = strict(vars(self) | {"mean": self.mean, "std": self.std})
        return plain


@dataclass(frozen=True)
class NearlyEnough(Part):
    """The smallest rank that is as good as the best, as far as the seeds can tell."""

    data: str
    targets: str
    rank: int | None  # None: one seed tells nothing of its own spread
    best: int  # the rank of the highest mean
    behind: float  # mean paired difference from the best at `rank`
    error: float  # its standard error


@dataclass(frozen=True, eq=False)
class Table6(Sequence[SweepRow]):
    """Rows of a sweep in its order, and what they say of the rank that is enough."""

    rows: tuple[SweepRow, ...]
    nearly_enough: tuple[NearlyEnough, ...]

    def __getitem__(self, index: Any) -> Any:  # noqa: ANN401 - an int or a slice
        return self.rows[index]

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"Table6({len(self)} rows)"

    def _repr_html_(self) -> str:
        header = ["data", "adapted", "r", "lr", "test mean", "std", "seeds", "failed"]
        rows = [
            [
                *(row.data, row.targets or f"{row.method} (reference)", row.rank),
                *(row.learning_rate, row.mean, row.std, len(row.seeds), len(row.failed)),
            ]
            for row in self.rows
        ]
        return html_table("test accuracy over rank and matrices (Table 6)", header, rows)

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python for strict JSON, schema version 1."""
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": "sweep",
            "rows": [row.to_dict() for row in self.rows],
            "nearly_enough": [found.to_dict() for found in self.nearly_enough],
        }

    def to_frame(self) -> pd.DataFrame:
        """Return tidy rows: one a configuration and seed."""
        import pandas as pd

        return pd.DataFrame(
            [
                {
                    "data": row.data,
                    "method": row.method,
                    "targets": row.targets,
                    "rank": row.rank,
                    "seed": seed,
                    "metric": row.metric,
                    "test": row.test[n],
                    "validation": row.validation[n],
                    "train": row.train[n],
                }
                for row in self.rows
                for n, seed in enumerate(row.seeds)
            ]
        )
