"""Table 7 of one adapter."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from subspace.results.base import Part, Result
from subspace.results.fields import Field, Module, Note, Shape, described
from subspace.results.numbers import number, with_range
from subspace.results.table import Column, Head, Table, make_table, module_notes

_PAPER = "Hu et al. 2021, arXiv:2106.09685"


@dataclass(frozen=True, kw_only=True)
class DirectionGain(Part):
    """One direction k of an update: what it adds, and what W does there. None: undefined."""

    sigma: Annotated[
        float,
        Field(
            "Singular value sigma_k of delta W, in the unit of the weights", title="sigma", low=0
        ),
    ]
    w: Annotated[
        float | None,
        Field(
            "u_k^T W v_k, signed, in the unit of the weights",
            explain=True,
            undefined="where rounding hides it",
        ),
    ]
    ratio: Annotated[
        float | None, Field("sigma / |w|", title="sigma/|w|", low=0, undefined="where w is")
    ]
    gain: Annotated[
        float | None,
        Field(
            "1 + sigma / w, what the direction is multiplied by",
            explain=True,
            undefined="where w is",
        ),
    ]


@dataclass(frozen=True, eq=False, kw_only=True)
class ModuleAmplification(Part):
    """One row of Table 7 (Hu et al. 2021, section 7.3) at one rank. NaN: undefined, see `note`."""

    module: Module
    rank: Annotated[
        int, Field("k: both sides are cut to the update's leading k directions", title="r", low=1)
    ]
    shape: Shape
    w_norm: Annotated[float, Field("Frobenius norm of W", title="|W|", low=0)]
    delta_norm: Annotated[
        float,
        Field(
            "Frobenius norm of delta W's leading k directions",
            title="|ΔW|",
            definition="Frobenius norm of the update, its scale (alpha / r) included.",
            source=f"Eq. 3, {_PAPER}",
            low=0,
            undefined="beyond the numerical rank",
        ),
    ]
    w_in_delta: Annotated[
        float,
        Field(
            "|U^T W V|_F with U, V from delta W",
            title="in ΔW",
            explain=True,
            low=0,
            undefined="beyond the numerical rank, and at a cut through equal singular values",
        ),
    ]
    w_in_w: Annotated[
        float,
        Field(
            "The same with W's own leading r directions, the most there is",
            title="in W",
            explain=True,
            low=0,
            undefined="where not computed",
        ),
    ]
    w_in_w_error: Annotated[
        float,
        Field(
            "Bound on how far w_in_w is from k singular values of W",
            low=0,
            undefined="where not computed",
        ),
    ]
    w_in_w_method: Annotated[
        Literal["gram", "krylov", "rough", "skipped"],
        Field(
            "How w_in_w was found: gram all of W's values, krylov a lower bound, skipped not at all"
        ),
    ]
    w_in_random: Annotated[
        float,
        Field(
            "The same with random directions, root mean square", title="random", explain=True, low=0
        ),
    ]
    factor: Annotated[
        float,
        Field(
            "Amplification factor delta_norm / w_in_delta",
            title="factor",
            definition="‖ΔW‖_F / ‖UᵀWV‖_F, with U and V the singular vectors of ΔW: how "
            "large the update is beside what W does in the same directions.",
            source=f"Table 7, section 7.3, {_PAPER}",
            low=0,
            undefined="where undefined",
        ),
    ]
    null_factor: Annotated[
        float,
        Field(
            "Factor of a random update of the same norm",
            title="null factor",
            low=0,
            undefined="where undefined",
        ),
    ]
    null_low: Annotated[
        float,
        Field(
            "Lower end of the central 95 % of the factor by chance",
            low=0,
            undefined="where undefined",
        ),
    ]
    null_high: Annotated[
        float,
        Field(
            "Upper end of the central 95 % of the factor by chance",
            low=0,
            undefined="where undefined",
        ),
    ]
    null_drawn: Annotated[
        bool,
        Field(
            "Whether the range is from random draws; else from a Gamma distribution of two moments"
        ),
    ]
    null_w: Annotated[
        float, Field("|u^T W v| of one random direction, root mean square", title="null |w|", low=0)
    ]
    directions: Annotated[
        tuple[DirectionGain, ...],
        Field("One entry per direction up to k; empty where they are rounding"),
    ]
    note: Note = ""

    @property
    def null_ratio(
        self,
    ) -> Annotated[
        float,
        Field(
            "Ratio to the null, how many times more of W than a random update is met",
            title="null ratio",
            digits=3,
            explain=True,
            definition="How many times more of W the update meets than a random one of the "
            "same norm: the null factor over the factor found. Above 1 it lies more along "
            "W's directions than a random update; a star marks what is outside the central "
            "95 % of the null.",
            source="simulated from W's own singular values",
            low=0,
            undefined="where undefined",
        ),
    ]:
        """`null_factor` / `factor`: how many times more of W the update meets than chance."""
        return self.null_factor / self.factor

    @property
    def finding(
        self,
    ) -> Annotated[
        bool | None,
        Field(
            "Whether the factor is outside the central 95 % of chance", undefined="where undefined"
        ),
    ]:
        """Whether the factor lies outside the null; None where either is undefined."""
        if math.isnan(self.factor + self.null_low + self.null_high):
            return None
        # Where chance is certain, as in spaces without room, rounding is no finding.
        return not self.null_low * (1 - 1e-9) <= self.factor <= self.null_high * (1 + 1e-9)


@dataclass(frozen=True, kw_only=True)
class _OneDirection(DirectionGain):
    module: Module
    k: Annotated[int, Field("Index of the direction, from 1", low=1)]
    null_w: Annotated[
        float, Field("|u^T W v| of one random direction, root mean square", title="null |w|", low=0)
    ]


@dataclass(frozen=True, eq=False, kw_only=True)
class Amplification(Result, Sequence[ModuleAmplification]):
    """Table 7 of one adapter: rows in the model's order, ranks ascending within a module."""

    kind = "amplification"
    of_rows = ModuleAmplification
    row_name = "rows"

    adapter: Annotated[str, Field("Name of the adapter")]
    base: Annotated[str, Field("Name of the base checkpoint")]
    scaled: Annotated[bool, Field("Whether delta W has its scale alpha / r in it")]
    seed: Annotated[int, Field("Seed of the random draws", low=0)]
    rows: Annotated[
        tuple[ModuleAmplification, ...],
        Field(
            "One entry per module and rank, modules in the model's order, ranks ascending",
            key="modules",
        ),
    ]
    notes: Annotated[tuple[str, ...], Field("What else a reader must know of the adapter")] = ()

    def __getitem__(self, index: Any) -> Any:  # noqa: ANN401 - an int or a slice
        return self.rows[index]

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"Amplification({self.adapter!r}, base={self.base!r}, {len(self)} rows)"

    def caption(self) -> str:
        """Say what amplifies what."""
        scale = "with" if self.scaled else "without"
        return f"amplification by {self.adapter} of {self.base}, delta W {scale} its scale alpha/r"

    def columns(self) -> Sequence[Column]:
        """Table 7, and the null beside."""
        names = ("module", "rank", "w_norm", "delta_norm", "w_in_delta", "w_in_w", "w_in_random")
        return [
            *map(Column, names),
            Column("factor"),
            Column("null_factor", text=_with_null_range),
            Column("null_ratio", star=lambda row: row.finding),
        ]

    def legend(self) -> Sequence[str]:
        """Say what the star is, and how near W's own values are known."""
        lines = ["*: outside the central 95 % of the null"]
        if any(row.rank == 1 for row in self):
            lines.append(
                "at r = 1 the null factor is by a root mean square: half of all random updates "
                "have a null ratio below about 0.7, or less where W is steep"
            )
        approximate = [row for row in self if row.w_in_w_method == "krylov" and row.w_in_w > 0]
        if approximate:
            bound = max(row.w_in_w_error / row.w_in_w for row in approximate)
            lines.append(
                f"in W: by block Krylov, each singular value found to {bound:.0e} or better; a "
                "lower bound, since no residual proves that none was missed"
            )
        return lines

    def remarks(self) -> Sequence[str]:
        """Say what is undefined in a module, and why."""
        return [*self.notes, *module_notes({row.module: row for row in self.rows})]

    def directions(self) -> Table:
        """Return one row per direction; of several ranks the largest, which has the others'."""
        rows = [
            _OneDirection(module=row.module, k=k, null_w=row.null_w, **vars(gain))
            for row in {row.module: row for row in self.rows}.values()
            for k, gain in enumerate(row.directions, start=1)
        ]
        columns = list(map(Column, ("module", "k", "sigma", "w", "null_w", "ratio", "gain")))
        return make_table(
            _OneDirection, columns, rows, caption=self.caption(), notes=self.remarks()
        )


@dataclass(frozen=True, eq=False)
class Amplifications(Result):
    """Table 7 of several adapters of one base."""

    kind = "amplifications"

    results: Annotated[
        tuple[Amplification, ...], Field("One table per adapter, in the order given", at_least=2)
    ]

    def table(self) -> Table:
        """Return the tables of all adapters as one, each row with its adapter's name."""
        tables = [result.table() for result in self.results]
        name = described(Amplification)["adapter"]
        rows = [
            (result.adapter, *row)
            for result, table in zip(self.results, tables, strict=True)
            for row in table.rows
        ]
        heads = (Head("adapter", name), *tables[0].heads)
        return replace(tables[0], caption="amplification", heads=heads, rows=tuple(rows), left=2)

    def to_rows(self) -> list[dict[str, Any]]:
        """Return one flat row per adapter, module and rank."""
        return [{"adapter": r.adapter} | row for r in self.results for row in r.to_rows()]


def _with_null_range(row: ModuleAmplification) -> str:
    ends = (row.null_factor, row.null_low, row.null_high)
    return with_range(*map(number, ends))
