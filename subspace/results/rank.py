"""How many of an update's directions are real: what several runs of one configuration share."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from subspace.results.base import SIDE_WORDS, ByModule, Part
from subspace.results.fields import Field, Level, Module, Note
from subspace.results.numbers import number, of, with_range
from subspace.results.similarity import SideOf
from subspace.results.table import Column, module_notes

_PAPER = "Hu et al. 2021, arXiv:2106.09685"
SPECTRUM = ("stable", "entropy", "participation", "energy90", "energy95", "energy99")


@dataclass(frozen=True)
class Spread(Part):
    """A number of every run: the median over the runs, the smallest and the largest. NaN: none."""

    median: Annotated[float, Field("Median over the runs", undefined="where undefined")]
    low: Annotated[float, Field("Smallest over the runs", undefined="where undefined")]
    high: Annotated[float, Field("Largest over the runs", undefined="where undefined")]

    def to_row(self) -> dict[str, Any]:
        """Return the median under the name of the whole, and beside it the range."""
        return {"": self.median, "low": self.low, "high": self.high}


@dataclass(frozen=True, eq=False, kw_only=True)
class ModuleRank(Part):
    """One module's ranks. Those of the spectrum are of delta W = scale * B A, run by run."""

    module: Module
    d: Annotated[int, Field("Dimension of the space in which directions are compared", low=1)]
    nominal: Annotated[int, Field("Stored rank, the smallest over the runs", title="r", low=1)]
    numerical: Annotated[
        int, Field("Rank of delta W told apart from rounding, the smallest over the runs", low=0)
    ]
    counted: Annotated[
        int, Field("The same of the compared side, of which agreeing directions are counted", low=0)
    ]
    agreeing: Annotated[
        tuple[int | None, ...],
        Field(
            "Leading directions shared, one entry per pair in the order of `pairs` above",
            low=0,
            undefined="where undefined",
        ),
    ]
    pairs: Annotated[int, Field("How many entries of `agreeing` are defined", low=0)]
    replicable: Annotated[
        float | None,
        Field(
            "Leading directions that runs share above chance, the median over pairs of runs",
            explain=True,
            definition="How many leading directions two runs of one configuration, of "
            "different seeds, share above chance; over more than two the median over their "
            "pairs, with its range. Recommended: rounded up, and 1 at least. Adapters of the "
            "same modules, ranks and scales are taken for such runs; two tasks trained alike "
            "look the same from their files. The count is not owed to the task alone: runs on "
            "the same texts share directions whatever the labels.",
            source=f"after the comparison of seeds, Figure 4, section 7.2, {_PAPER}",
            low=0,
            undefined="where none is defined",
        ),
    ]
    replicable_low: Annotated[
        int | None, Field("Smallest of `agreeing`", low=0, undefined="where none is defined")
    ]
    replicable_high: Annotated[
        int | None, Field("Largest of `agreeing`", low=0, undefined="where none is defined")
    ]
    shared: Annotated[
        float | None,
        Field(
            "Directions that runs share above chance in any order, the median over pairs of runs",
            low=0,
            undefined="where none is defined",
        ),
    ] = None
    stable: Annotated[
        Spread,
        Field(
            "Stable rank |delta W|_F^2 / |delta W|_2^2",
            definition="Stable: ‖ΔW‖²_F / ‖ΔW‖²₂. By entropy: exp of the entropy of the "
            "singular values over their sum. 90 %: the fewest directions with that share of "
            "‖ΔW‖²_F. They say how the energy is spread, not what was learned.",
            source="Roy & Vetterli 2007 for the entropy",
        ),
    ]
    entropy: Annotated[
        Spread, Field("Effective rank: exp of the entropy of the singular values over their sum")
    ]
    participation: Annotated[
        Spread, Field("Participation ratio (sum S^2)^2 / sum S^4", title="partic.")
    ]
    energy90: Annotated[
        Spread, Field("Fewest leading directions with 90 % of |delta W|_F^2", title="90%")
    ]
    energy95: Annotated[
        Spread, Field("Fewest leading directions with 95 % of |delta W|_F^2", title="95%")
    ]
    energy99: Annotated[
        Spread, Field("Fewest leading directions with 99 % of |delta W|_F^2", title="99%")
    ]
    recommended: Annotated[
        int | None,
        Field("`replicable` rounded up, and 1 at least", low=1, undefined="where it is undefined"),
    ]
    note: Note = ""

    @property
    def full(
        self,
    ) -> Annotated[bool, Field("Whether all directions agree, so that the count ends at the rank")]:
        """Whether all directions agree: the count ends at the rank, and may be larger than it."""
        return self.replicable is not None and 0 < self.counted <= self.replicable

    @property
    def replicable_text(self) -> str:
        """The replicable rank with its range, where there are several pairs of runs."""
        if len(self.agreeing) < 2:
            return number(self.replicable)
        return with_range(
            *map(number, (self.replicable, self.replicable_low, self.replicable_high))
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Rank(ByModule[ModuleRank]):
    """The ranks of one or more runs, module by module: a read-only mapping from module path."""

    kind = "rank"
    of_rows = ModuleRank

    adapters: Annotated[tuple[str, ...], Field("Names of the runs")]
    side: SideOf
    level: Level
    modules: Annotated[
        Mapping[str, ModuleRank], Field("One entry per module, in the model's order")
    ]
    pairs: Annotated[
        tuple[tuple[str, str], ...],
        Field("Names of the two runs of every pair, the order of each module's `agreeing`"),
    ]
    recommended: Annotated[
        int | None,
        Field(
            "Smallest rank that is enough for nine in ten modules",
            low=1,
            undefined="where none has one",
        ),
    ]
    same_initial: Annotated[
        tuple[tuple[str, str], ...],
        Field("Pairs of runs that are known to have the same initial A"),
    ] = ()
    notes: Annotated[tuple[str, ...], Field("What else a reader must know of the runs")] = ()

    _lacks = ("has no rank here", "have")

    def __repr__(self) -> str:
        return (
            f"Rank({', '.join(map(repr, self.adapters))}, side={self.side!r}, {len(self)} modules)"
        )

    def caption(self) -> str:
        """Say whose ranks, and of which side."""
        return f"ranks of {', '.join(self.adapters)}, side {self.side}: {SIDE_WORDS[self.side]}"

    def columns(self) -> Sequence[Column]:
        """Return what runs share, beside the ranks of the spectrum."""
        return [
            Column("module"),
            Column("nominal", text=_stored),
            Column("replicable", text=lambda m: m.replicable_text),
            *spectrum_columns(),
            Column("recommended"),
        ]

    def legend(self) -> Sequence[str]:
        """Say at which level directions agree, and what the ranks of the spectrum are over."""
        runs = ", median over the runs" if len(self.adapters) > 1 else ""
        level = f"above chance: level {self.level:g}, Benjamini-Hochberg over {len(self)} modules"
        if len(self.pairs) > 1:
            level += f", median over {len(self.pairs)} pairs of runs (range)"
        return [
            *([level] if self.pairs else []),
            f"stable to 99%: ranks of the spectrum of delta W{runs}; %: directions with that "
            "energy",
        ]

    def remarks(self) -> Sequence[str]:
        """Say what is undefined in modules that is not said of all."""
        noted = {name: m for name, m in self.items() if m.note not in self.notes}
        return [*module_notes(noted), *self.notes]


def spectrum_columns(names: Sequence[str] = SPECTRUM) -> list[Column]:
    """Return columns of the medians over the runs of the spectrum's ranks."""
    return [Column(name, value=_median_of(name)) for name in names]


def _median_of(name: str) -> Callable[[ModuleRank], float]:
    return lambda m: getattr(m, name).median


def _stored(m: ModuleRank) -> str:
    return number(m.nominal) if m.nominal == m.numerical else of(m.numerical, m.nominal)
