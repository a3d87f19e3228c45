"""Accuracy over rank and target matrices: Table 6 of the LoRA paper, of a sweep of one's own."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Annotated, Any, Literal

from subspace.results.base import Part, Result
from subspace.results.fields import Field
from subspace.results.table import Column


@dataclass(frozen=True, kw_only=True)
class SweepRow(Part):
    """One configuration over its seeds. Accuracies are fractions, in the order of `seeds`.

    Of a task of writing, `test` and `before` are the share of texts that are written exactly
    (`metric`), `train` is undefined, and `validation` the share of tokens that are right.
    """

    data: Annotated[str, Field("Name of the data set")]
    method: Annotated[
        Literal["lora", "full", "head"],
        Field("lora, or a reference: full fine-tuning, or the head alone"),
    ]
    targets: Annotated[
        str, Field("Target matrices, joined by +; empty for a reference", title="adapted")
    ]
    rank: Annotated[int | None, Field("Rank r", title="r", low=1, undefined="for a reference")]
    alpha: Annotated[
        float | None, Field("Alpha as a number", digits=6, above=0, undefined="for a reference")
    ]
    learning_rate: Annotated[float, Field("Learning rate at its peak", digits=6, above=0)]
    seeds: Annotated[tuple[int, ...], Field("Seeds of the runs that ended well", low=0)]
    test: Annotated[
        tuple[float, ...],
        Field(
            "Accuracy on test texts after training; `metric` says what is counted",
            low=0,
            high=1,
            undefined="where undefined",
        ),
    ]
    validation: Annotated[
        tuple[float, ...],
        Field(
            "Last accuracy on validation texts, of tokens where texts are written",
            low=0,
            high=1,
            undefined="where not looked at",
        ),
    ]
    train: Annotated[
        tuple[float, ...],
        Field(
            "Last accuracy on training texts", low=0, high=1, undefined="where it was not looked at"
        ),
    ]
    before: Annotated[
        tuple[float, ...],
        Field(
            "Accuracy on test texts before training, under the untrained head",
            low=0,
            high=1,
            undefined="where undefined",
        ),
    ]
    parameters: Annotated[
        int | None, Field("Values that were trained", low=0, undefined="without a run")
    ]
    searched: Annotated[
        tuple[tuple[float, float | None], ...],
        Field(
            "Each learning rate tried, with its accuracy on validation texts; empty without "
            "a search",
            undefined="where undefined",
        ),
    ] = ()
    failed: Annotated[tuple[str, ...], Field("Runs that failed, each with the reason")] = ()
    metric: Annotated[
        Literal["accuracy", "exact match"],
        Field("Whether `test`, `before` and `mean` count right classes or texts written exactly"),
    ] = "accuracy"
    loss: Annotated[
        tuple[float, ...],
        Field(
            "Loss on test texts after training, of a token where texts are written",
            low=0,
            undefined="if unknown",
        ),
    ] = ()

    @property
    def mean(
        self,
    ) -> Annotated[
        float,
        Field("Mean test accuracy", title="test mean", low=0, high=1, undefined="without a run"),
    ]:
        """Mean test accuracy; NaN without a run."""
        return mean(self.test) if self.test else math.nan

    @property
    def std(
        self,
    ) -> Annotated[
        float,
        Field(
            "Standard deviation of the test accuracy over seeds, ddof 1",
            low=0,
            undefined="below two",
        ),
    ]:
        """Standard deviation over seeds, ddof 1; NaN below two."""
        return stdev(self.test) if len(self.test) > 1 else math.nan


@dataclass(frozen=True, kw_only=True)
class NearlyEnough(Part):
    """The smallest rank that is as good as the best, as far as the seeds can tell."""

    data: Annotated[str, Field("Name of the data set")]
    targets: Annotated[str, Field("Target matrices, joined by +")]
    rank: Annotated[int | None, Field("That rank", low=1, undefined="where too few seeds tell")]
    best: Annotated[int, Field("Rank of the highest mean", low=1)]
    behind: Annotated[
        float,
        Field(
            "Mean paired difference in accuracy from the best", undefined="where too few seeds tell"
        ),
    ]
    error: Annotated[
        float, Field("Standard error of `behind`", low=0, undefined="where too few seeds tell")
    ]


@dataclass(frozen=True, eq=False)
class Table6(Result, Sequence[SweepRow]):
    """Rows of a sweep in its order, and what they say of the rank that is enough."""

    kind = "sweep"
    of_rows = SweepRow
    row_name = "rows"

    rows: Annotated[tuple[SweepRow, ...], Field("One entry per configuration")]
    nearly_enough: Annotated[
        tuple[NearlyEnough, ...], Field("One entry per data set and target set that has a run")
    ]

    def __getitem__(self, index: Any) -> Any:  # noqa: ANN401 - an int or a slice
        return self.rows[index]

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"Table6({len(self)} rows)"

    def caption(self) -> str:
        """Say what is counted."""
        exact = {row.metric == "exact match" for row in self}
        what = "test texts written exactly" if exact == {True} else "test accuracy"
        what += ", or texts written exactly," if len(exact) > 1 else ""
        return f"{what} over rank and matrices (Table 6)"

    def columns(self) -> Sequence[Column]:
        """One configuration over its seeds."""
        return [
            Column("data"),
            Column("targets", value=adapted),
            *map(Column, ("rank", "learning_rate", "mean", "std")),
            Column("seeds", value=lambda row: len(row.seeds)),
            Column("failed", value=lambda row: len(row.failed)),
        ]

    def to_rows(self) -> list[dict[str, Any]]:
        """Return tidy rows: one per configuration and seed."""
        names = ("data", "method", "targets", "rank")
        return [
            {name: getattr(row, name) for name in names}
            | {"seed": seed, "metric": row.metric, "test": row.test[n]}
            | {"validation": row.validation[n], "train": row.train[n]}
            for row in self.rows
            for n, seed in enumerate(row.seeds)
        ]


def adapted(row: SweepRow) -> str:
    """Return which matrices a configuration adapts; of a reference its method."""
    return row.targets or f"{row.method} (reference)"
