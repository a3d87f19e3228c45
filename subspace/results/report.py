"""Everything that one report holds: what was compared, every result, and how it was made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from subspace.results.amplification import Amplification, ModuleAmplification
from subspace.results.base import Part, Result, strict
from subspace.results.fields import HIDDEN, Field, Level
from subspace.results.rank import ModuleRank, Rank
from subspace.results.similarity import ModuleSimilarity, SideOf, Similarity
from subspace.results.sweep import Table6
from subspace.results.table import Column


@dataclass(frozen=True, kw_only=True)
class Source(Part):
    """One adapter as it was read."""

    name: Annotated[str, Field("Name of the adapter", title="adapter")]
    format: Annotated[str, Field("Format, such as PEFT")]
    method: Annotated[str, Field("Method, such as LoRA or rsLoRA")]
    base_model: Annotated[
        str | None,
        Field(
            "Base model that the adapter names", title="trained on", undefined="where it names none"
        ),
    ]
    modules: Annotated[int, Field("Number of modules", low=1)]
    parameters: Annotated[int, Field("Stored values of all A and B", low=0)]
    ranks: Annotated[tuple[int, int], Field("Smallest and largest stored rank over modules", low=1)]
    files: Annotated[
        tuple[tuple[str, str], ...],
        Field("Name and SHA-256 in hex of each file; empty for one made in memory"),
    ]
    notes: Annotated[tuple[str, ...], Field("What else a reader must know of the adapter")]


@dataclass(frozen=True, eq=False, kw_only=True)
class Report(Result):
    """What `subspace.report` found. Tuples are in the order of `sources`."""

    kind = "report"
    of_rows = Source
    row_name = "sources"

    sources: Annotated[
        tuple[Source, ...], Field("One entry per adapter, in the order given", at_least=1)
    ]
    side: SideOf
    level: Level
    pairs: Annotated[
        tuple[Similarity, ...],
        Field("Similarities: the first adapter with the second, the third and so on, then others"),
    ]
    ranks: Annotated[
        tuple[Rank, ...], Field("Ranks of each adapter's spectrum alone, in the order of `sources`")
    ]
    singular: Annotated[
        tuple[Mapping[str, tuple[float, ...]], ...],
        Field(
            "Of each adapter, by module, the singular values of delta W that are real, descending",
            low=0,
            key="singular_values",
        ),
    ]
    findings: Annotated[tuple[str, ...], Field("What was found, one sentence each")]
    replicable: Annotated[
        tuple[Rank, ...],
        Field("Ranks of runs of one configuration, one entry per set of two or more"),
    ] = ()
    base: Annotated[
        str | None, Field("Name of the base checkpoint", undefined="where none was given")
    ] = None
    amplifications: Annotated[
        tuple[Amplification, ...],
        Field("Table 7 of each adapter at its own rank; empty without a base"),
    ] = ()
    curves: Annotated[
        tuple[Amplification, ...], Field("Likewise at smaller ranks too; empty without a base")
    ] = ()
    sweep: Annotated[
        Table6 | None, Field("Table 6 of a sweep", undefined="where none was given")
    ] = None
    command: Annotated[
        str, Field("Command that makes the report again; empty where Python made it")
    ] = ""
    versions: Annotated[Mapping[str, str], Field("Version of every package that computed")] = field(
        default_factory=dict
    )
    base_files: Annotated[tuple[tuple[str, str], ...], HIDDEN] = ()
    trained: Annotated[str, HIDDEN] = ""

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

    def caption(self) -> str:
        """Say what the page says first."""
        return "What was compared"

    def columns(self) -> Sequence[Column]:
        """Return what each adapter is."""
        return [
            Column("name"),
            Column("ranks", "rank", text=lambda s: "-".join(map(str, dict.fromkeys(s.ranks)))),
            *map(Column, ("modules", "parameters")),
            Column("format", value=lambda s: f"{s.format}, {s.method}"),
            Column("base_model"),
        ]


def _spectrum(m: ModuleRank) -> dict[str, Any]:
    medians = ("stable", "entropy", "participation", "energy90", "energy95", "energy99")
    values = {name: getattr(m, name).median for name in medians}
    return {"rank": m.nominal, "numerical_rank": m.numerical, **values}


def _shared(m: ModuleSimilarity | None) -> dict[str, Any]:
    names = ("phi_first", "null_first", "p_first", "phi_whole", "null_whole", "agreeing")
    if m is None:
        return dict.fromkeys(names)
    whole = (max(m.numerical_rank_a, 1) - 1, max(m.numerical_rank_b, 1) - 1)
    cells = [float(grid[0, 0]) for grid in (m.phi, m.null_mean, m.pvalue)]
    cells += [float(grid[whole]) for grid in (m.phi, m.null_mean)]
    return dict(zip(names, (*cells, m.agreeing), strict=True))


def _table7(row: ModuleAmplification | None) -> dict[str, Any]:
    names = (
        "w_norm", "delta_norm", "w_in_delta", "w_in_w", "w_in_random", "factor", "null_factor",
        "null_ratio", "finding",
    )  # fmt: skip
    return {name: None if row is None else getattr(row, name) for name in names}
