"""What adding several adapters to one base would do: a merge by weighted sum, before it is made."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

from subspace.results.base import ByModule, Part
from subspace.results.fields import Field, Level, Module, Note, Shape, described
from subspace.results.numbers import number
from subspace.results.table import Column, Table, make_table

Pair = tuple[str, str]
WHOLE = "whole model"
_ALL = 1 - 1e-9  # a share that rounding alone keeps from 1

# Fields that a module, a pair and the whole model have alike
_Names = Annotated[Pair, Field("Names of the two")]
_Cosine = Annotated[
    float,
    Field(
        "Cosine <dW1, dW2> / (|dW1| |dW2|) of the weighted updates, in [-1, 1]",
        title="cos",
        decimals=3,
        explain=True,
        low=-1,
        high=1,
        undefined="where undefined",
    ),
]
_CosineError = Annotated[
    float, Field("Bound on |cosine - exact|", low=0, undefined="where an update is zero")
]
_CosineP = Annotated[
    float,
    Field(
        "Two-sided probability under the null",
        form="pvalue",
        low=0,
        high=1,
        undefined="where the cosine is undefined",
    ),
]
_Weights = Annotated[tuple[float, ...], Field("Weight of each in the sum")]
_Energy = Annotated[
    float,
    Field(
        "Energy |sum|^2 / sum |w dW|^2: 1 orthogonal, less cancels, more reinforces",
        decimals=3,
        explain=True,
        low=0,
        undefined="where all are zero",
    ),
]
_EnergyError = Annotated[
    float, Field("Bound on |energy - exact|", low=0, undefined="where the energy is")
]
_EnergyStd = Annotated[
    float,
    Field(
        "Standard deviation around 1 of independent random updates",
        title="null std",
        digits=2,
        low=0,
        undefined="where the energy is",
    ),
]
_Kept = Annotated[
    tuple[float, ...],
    Field(
        "Projection coefficient <sum, dW> / |dW|^2, the weight where nothing interferes",
        title="projection",
        decimals=3,
        undefined="where it is zero",
    ),
]


@dataclass(frozen=True)
class SpaceOverlap(Part):
    """phi(r1, r2) of all real directions of two updates on one side, as in `similarity`."""

    phi: Annotated[
        float,
        Field(
            "Overlap in [0, 1]", title="φ", decimals=3, low=0, high=1, undefined="where undefined"
        ),
    ]
    error: Annotated[
        float, Field("Bound on |phi - exact|", low=0, undefined="where nothing is known")
    ]
    null_mean: Annotated[
        float,
        Field(
            "Mean between independent random spaces: max(r1, r2) / d",
            title="null mean",
            decimals=3,
            low=0,
            high=1,
            undefined="where undefined",
        ),
    ]
    p: Annotated[
        float,
        Field(
            "Probability that random spaces overlap as much",
            title="p",
            form="pvalue",
            low=0,
            high=1,
            undefined="where undefined",
        ),
    ]


@dataclass(frozen=True, kw_only=True)
class PairInterference(Part):
    """Two adapters in one module."""

    adapters: _Names
    cosine: _Cosine
    error: _CosineError
    null_std: Annotated[
        float,
        Field(
            "Standard deviation of independent random updates, 1 / sqrt(d_out d_in); their "
            "mean is 0",
            title="null std",
            digits=2,
            low=0,
        ),
    ]
    p: _CosineP
    finding: Annotated[
        bool | None,
        Field("Whether significant at `level`, over modules", undefined="where undefined"),
    ]
    rows: Annotated[
        SpaceOverlap,
        Field(
            "Overlap of all row spaces of delta W, where the input lies", title="in φ", explain=True
        ),
    ]
    columns: Annotated[
        SpaceOverlap,
        Field(
            "Overlap of all column spaces of delta W, where the output lies",
            title="out φ",
            explain=True,
        ),
    ]
    note: Note = ""


@dataclass(frozen=True, kw_only=True)
class ModuleInterference(Part):
    """One module that two or more adapters share; tuples are in the order of `adapters`."""

    module: Module
    shape: Shape
    adapters: Annotated[tuple[str, ...], Field("Names of those that have the module", at_least=2)]
    weights: _Weights
    ranks: Annotated[tuple[int, ...], Field("Numerical rank of each delta W", low=0)]
    norms: Annotated[
        tuple[float, ...],
        Field("Frobenius norm of each delta W, its scale included and its weight not", low=0),
    ]
    pairs: Annotated[tuple[PairInterference, ...], Field("One entry per pair of the adapters")]
    energy: _Energy
    energy_error: _EnergyError
    energy_std: _EnergyStd
    kept: _Kept
    note: Note = ""

    def pair(self, adapters: Pair) -> PairInterference | None:
        """Return two adapters' numbers; None where the module is not in both."""
        return next((p for p in self.pairs if p.adapters == adapters), None)


@dataclass(frozen=True, kw_only=True)
class WholePair(Part):
    """Two adapters over the whole model: every delta W of each laid out as one long vector."""

    adapters: _Names
    cosine: _Cosine
    error: _CosineError
    null_std: Annotated[
        float,
        Field(
            "Standard deviation of independent random updates; their mean is 0",
            title="null std",
            digits=2,
            low=0,
            undefined="where undefined",
        ),
    ]
    p: _CosineP
    modules: Annotated[int, Field("Modules with a cosine", low=0)]
    same: Annotated[
        int, Field("Modules that are significant with a cosine above 0", explain=True, low=0)
    ]
    opposite: Annotated[
        int, Field("Modules that are significant with a cosine below 0", explain=True, low=0)
    ]
    compared: Annotated[
        tuple[float, float],
        Field(
            "Of each adapter the share of |delta W|^2 in modules that both have",
            low=0,
            high=1,
            undefined="where all of it is zero",
        ),
    ] = (1.0, 1.0)

    def coverage(self) -> str:
        """Say how much of the adapters is compared; nothing where it is all.

        >>> whole = dict(adapters=("a", "b"), cosine=0.5, error=0.0, null_std=0.1, p=0.1, same=0)
        >>> WholePair(**whole, opposite=0, modules=3, compared=(0.25, 1.0)).coverage()
        '3 modules that both have, with 25 % and 100 % of their |dW|^2'
        """
        if not min(self.compared) < _ALL:
            return ""
        a, b = (f"{100 * share:.3g} %" for share in self.compared)
        return f"{self.modules} modules that both have, with {a} and {b} of their |dW|^2"


@dataclass(frozen=True)
class SharedInitial(Part):
    """How many modules of a pair have the same initial A."""

    adapters: _Names
    modules: Annotated[int, Field("Modules with the same initial A", low=0)]


@dataclass(frozen=True, kw_only=True)
class ModulePair(Part):
    """A row of the table: two adapters in one module, and all adapters of the module together."""

    module: Module
    names: Annotated[str, Field("The two adapters", title="adapters")]
    pair: Annotated[PairInterference, Field("The two")]
    energy: Annotated[float, described(ModuleInterference)["energy"].field]
    energy_std: Annotated[float, described(ModuleInterference)["energy_std"].field]
    kept_a: Annotated[float, described(ModuleInterference)["kept"].field]
    kept_b: Annotated[float, described(ModuleInterference)["kept"].field]

    def to_row(self) -> dict[str, Any]:
        """Return one flat row."""
        (a, b), pair = self.pair.adapters, self.pair.to_row()
        note = pair.pop("note")
        both = {"energy": self.energy, "energy_std": self.energy_std}
        kept = {"kept_a": self.kept_a, "kept_b": self.kept_b, "note": note}
        return {"module": self.module, "a": a, "b": b, **pair, **both, **kept}


@dataclass(frozen=True, kw_only=True)
class _Share(Part):
    adapter: Annotated[str, Field("Name of the adapter")]
    weight: Annotated[float, Field("Weight in the sum", digits=6)]
    norm: Annotated[float, Field("Frobenius norm of delta W over the whole model", title="|ΔW|")]
    share: Annotated[float, Field("Part of sum |w dW|^2", decimals=3, explain=True)]
    kept: Annotated[float, replace(described(ModuleInterference)["kept"].field, explain=True)]


@dataclass(frozen=True, kw_only=True)
class _Lowest(Part):
    names: Annotated[str, Field("The two adapters", title="adapters")]
    whole: Annotated[WholePair, Field("Over the whole model")]
    cosine: Annotated[float, Field("Lowest cosine of a module", title="lowest cos", decimals=3)]
    module: Annotated[str, Field("Module of the lowest cosine", title="in module")]


@dataclass(frozen=True, eq=False, kw_only=True)
class Interference(ByModule[ModuleInterference]):
    """A merge of adapters, module by module: a read-only mapping from module path.

    The whole model's numbers are sums over all modules that were chosen, those that a single
    adapter has among them: such a module adds to the energy and meets nothing.
    """

    kind = "interference"
    of_rows = ModulePair

    adapters: Annotated[tuple[str, ...], Field("Names of the adapters", at_least=2)]
    weights: _Weights
    level: Level
    modules: Annotated[
        Mapping[str, ModuleInterference],
        Field("One entry per module that two or more share, in the model's order"),
    ]
    pairs: Annotated[
        tuple[WholePair, ...], Field("One entry per pair of adapters, over the whole model")
    ]
    norms: Annotated[
        tuple[float, ...],
        Field(
            "Frobenius norm of each adapter's delta W over the whole model, weight not included",
            low=0,
        ),
    ]
    energy: _Energy
    energy_error: _EnergyError
    energy_std: _EnergyStd
    kept: _Kept
    alone: Annotated[
        tuple[tuple[str, ...], ...], Field("Of each adapter the modules that no other has")
    ] = ()
    same_initial: Annotated[
        "tuple[SharedInitial, ...] | None",
        Field("One entry per pair", undefined="where an initial A is not stored"),
    ] = None
    notes: Annotated[tuple[str, ...], Field("What else a reader must know of the adapters")] = ()

    _lacks = ("is not shared by two adapters", "are")

    def __repr__(self) -> str:
        return f"Interference({', '.join(map(repr, self.adapters))}, {len(self)} modules)"

    @property
    def shares(
        self,
    ) -> Annotated[
        tuple[float, ...],
        Field(
            "Of the sum of |w delta W|^2 the part of each adapter",
            low=0,
            high=1,
            undefined="where all are zero",
        ),
    ]:
        """Of the energy sum |w_k dW_k|^2 the part of each adapter; NaN where all are zero."""
        largest = max(abs(w) * n for w, n in zip(self.weights, self.norms, strict=True)) or 1.0
        sizes = [(w * n / largest) ** 2 for w, n in zip(self.weights, self.norms, strict=True)]
        total = sum(sizes)
        return tuple(size / total if total else float("nan") for size in sizes)

    def row_parts(self) -> Sequence[ModulePair]:
        """Return one row per module and pair of adapters."""
        return [
            ModulePair(
                module=name,
                names=" + ".join(pair.adapters),
                pair=pair,
                energy=m.energy,
                energy_std=m.energy_std,
                kept_a=m.kept[m.adapters.index(pair.adapters[0])],
                kept_b=m.kept[m.adapters.index(pair.adapters[1])],
            )
            for name, m in self.modules.items()
            for pair in m.pairs
        ]

    def caption(self) -> str:
        """Say which sum interferes."""
        pairs = zip(self.weights, self.adapters, strict=True)
        terms = [name if weight == 1 else f"{weight:g} x {name}" for weight, name in pairs]
        return (
            f"interference in {' + '.join(terms)}: what a merge by weighted sum of delta W would do"
        )

    def columns(self) -> Sequence[Column]:
        """Cosine and overlaps of two adapters in one module, each beside its null."""
        return [
            Column("module"),
            *([Column("names")] if len(self.adapters) > 2 else []),
            Column("pair.cosine", star=lambda row: row.pair.finding),
            Column("pair.null_std", text=lambda row: f"±{number(row.pair.null_std, digits=2)}"),
            Column("pair.p"),
            Column("pair.rows", value=lambda row: row.pair.rows.phi),
            Column("pair.rows.null_mean"),
            Column("pair.columns", value=lambda row: row.pair.columns.phi),
            Column("pair.columns.null_mean"),
            *([Column("energy")] if len(self.adapters) == 2 else []),
        ]

    def legend(self) -> Sequence[str]:
        """Say what the star is."""
        return [f"*: significant at FDR {self.level:g} over modules"]

    def table(self) -> Table:
        """Return one row per module and pair; of two adapters the last row is the whole model."""
        whole = None
        if len(self.adapters) == 2:
            (pair,) = self.pairs
            about = described(WholePair)
            covered = pair.coverage()
            whole = [
                f"{WHOLE}: {covered}" if covered else WHOLE,
                about["cosine"].field.text(pair.cosine),
                f"±{number(pair.null_std, digits=2)}",
                about["p"].field.text(pair.p),
                *[""] * 4,
                described(Interference)["energy"].field.text(self.energy),
            ]
        return make_table(
            ModulePair,
            self.columns(),
            self.row_parts(),
            caption=self.caption(),
            legend=self.legend(),
            notes=self.remarks(),
            left=1 if len(self.adapters) == 2 else 2,
            total=whole,
        )

    def pairs_table(self) -> Table:
        """Return one row per pair of adapters over the whole model, with its worst module."""
        names = ("cosine", "null_std", "p", "modules", "same", "opposite")
        columns = [Column(f"whole.{name}") for name in names]
        columns[1] = Column(
            "whole.null_std", text=lambda row: f"±{number(row.whole.null_std, digits=2)}"
        )
        rows = [self._lowest(pair) for pair in self.pairs]
        columns = [Column("names"), *columns, Column("cosine"), Column("module")]
        return make_table(
            _Lowest, columns, rows, caption=self.caption(), legend=self.legend(),
            notes=self.remarks(),
        )  # fmt: skip

    def _lowest(self, whole: WholePair) -> _Lowest:
        cosines = [(p.cosine, name) for name, m in self.items() if (p := m.pair(whole.adapters))]
        ordered = sorted(each for each in cosines if not math.isnan(each[0]))
        low, where = ordered[0] if ordered else (math.nan, "-")
        return _Lowest(names=" + ".join(whole.adapters), whole=whole, cosine=low, module=where)

    def lowest_energies(self, most: int) -> Table:
        """Return the modules of lowest energy, each with the pair of the lowest cosine."""
        defined = [m for m in self.values() if not math.isnan(m.energy)]
        rows = []
        for m in sorted(defined, key=lambda m: m.energy)[:most]:
            low = min(
                (p for p in m.pairs if not math.isnan(p.cosine)),
                key=lambda p: p.cosine,
                default=None,
            )
            rows.append((m, low))
        columns = [
            Column("module", value=lambda row: row[0].module),
            Column("energy", value=lambda row: row[0].energy),
            Column("energy_std", text=lambda row: f"1±{number(row[0].energy_std, digits=2)}"),
            Column("pair.cosine", "lowest cos", value=lambda row: row[1] and row[1].cosine),
            Column("names", "between", value=lambda row: row[1] and " + ".join(row[1].adapters)),
        ]
        caption = f"modules of lowest energy, {min(most, len(self))} of {len(self)}"
        return make_table(ModulePair, columns, rows, caption=caption)

    def shares_table(self) -> Table:
        """Return one row per adapter: its share of the energy, and what is left of it."""
        rows = [
            _Share(adapter=name, weight=weight, norm=norm, share=share, kept=kept)
            for name, weight, norm, share, kept in zip(
                self.adapters, self.weights, self.norms, self.shares, self.kept, strict=True
            )
        ]
        return make_table(_Share, list(map(Column, described(_Share))), rows)
