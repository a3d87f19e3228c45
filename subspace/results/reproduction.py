"""What ``subspace reproduce`` made: its files, the numbers of its tables, claims and findings."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from subspace.results.amplification import Amplification
from subspace.results.base import Part, Result, Side
from subspace.results.fields import Field
from subspace.results.sweep import SweepRow, Table6

_TABLE7 = (
    "w_norm", "delta_norm", "w_in_delta", "w_in_w", "w_in_random", "factor", "null_factor",
    "null_low", "null_high",
)  # fmt: skip
Verdict = Literal["agrees", "in part", "does not", "inconclusive", "open"]


@dataclass(frozen=True)
class Claim(Part):
    """One thing that the paper says, and what these runs say of it. Printable lines."""

    where: Annotated[str, Field("Table or figure of the paper")]
    paper: Annotated[str, Field("What the paper says")]
    here: Annotated[str, Field("Numbers of these runs, each beside its chance level or its spread")]
    verdict: Annotated[
        Verdict,
        Field(
            "Whether they agree; inconclusive at so few seeds, open where undefined or untrained"
        ),
    ]


@dataclass(frozen=True)
class GalleryFigure(Part):
    """One figure of a gallery."""

    file: Annotated[str, Field("Its name within the folder")]
    words: Annotated[str, Field("What it shows")]
    command: Annotated[
        str, Field("Command that draws it within the folder; of Table 6, the one that makes all")
    ]


@dataclass(frozen=True)
class Shared(Part):
    """What two runs share on one side, medians over modules; NaN where it is undefined."""

    phi: Annotated[
        float, Field("phi(1,1), 0 to 1", decimals=3, low=0, high=1, undefined="where undefined")
    ]
    agreeing: Annotated[
        float,
        Field(
            "Number of leading directions that agree above chance",
            low=0,
            undefined="where undefined",
        ),
    ]


@dataclass(frozen=True)
class SharedByRuns(Part):
    """What two runs share on every side, and what they shared before they were trained."""

    runs: Annotated[tuple[str, str], Field("Names of the two")]
    sides: Annotated[Mapping[Side, Shared], Field("By side; delta-A is A minus its initial value")]
    initial: Annotated[
        Shared | None, Field("What the two initial A share", undefined="where one is not stored")
    ]


@dataclass(frozen=True, eq=False, kw_only=True)
class Reproduction(Result):
    """A gallery as it was written. Names of files are within `folder`."""

    kind = "reproduction"
    of_rows = Claim
    row_name = "claims"

    command: Annotated[str, Field("Command that makes it again")]
    folder: Annotated[str, Field("Folder that holds all of it, as --out says")]
    page: Annotated[str, Field("Name of the page, within the folder")]
    figures: Annotated[
        tuple[GalleryFigure, ...], Field("One entry per figure, in the page's order")
    ]
    adapters: Annotated[tuple[str, ...], Field("Folders of the compared runs, as they were given")]
    table6: Annotated[Table6, Field("Accuracy over rank and target matrices")]
    table7: Annotated[
        tuple[Amplification, Amplification],
        Field("Amplification by the run of the smaller rank and by that of the larger one"),
    ]
    shared: Annotated[
        tuple[SharedByRuns, ...],
        Field("What runs share with others and with controls, one entry per pair"),
    ]
    claims: Annotated[
        tuple[Claim, ...],
        Field("What the paper says beside what these runs show, in the paper's order"),
    ]
    findings: Annotated[tuple[str, ...], Field("What was found, one sentence each")]

    def __repr__(self) -> str:
        return f"Reproduction({self.folder!r}, {len(self.figures)} figures)"

    def caption(self) -> str:
        """Say where the gallery is."""
        return f"what the paper claims, and these runs: {self.folder}"

    def to_rows(self) -> list[dict[str, Any]]:
        """Return one row per file, number of a table, part of a claim, and finding."""
        names = ("part", "item", "quantity", "value")
        return [dict(zip(names, line, strict=True)) for line in self._lines()]

    def _lines(self) -> Iterator[tuple[str, str, str, object]]:
        yield "file", self.page, "shows", "the page"
        yield from (("file", figure.file, "shows", figure.words) for figure in self.figures)
        yield from (("file", folder, "shows", "a compared run") for folder in self.adapters)
        for row in self.table6:
            item = _configuration(row)
            yield "Table 6", item, "mean", row.mean
            yield "Table 6", item, "std", row.std
            for seed, test in zip(row.seeds, row.test, strict=True):
                yield "Table 6", item, f"test, seed {seed}", test
        for table in self.table7:
            for module in table:
                item = f"{table.adapter}, {module.module}, r = {module.rank}"
                yield from (("Table 7", item, name, getattr(module, name)) for name in _TABLE7)
        for pair in self.shared:
            item = " and ".join(pair.runs)
            sides = {f"side {side}": shared for side, shared in pair.sides.items()}
            for where, shared in (sides | {"initial A": pair.initial}).items():
                if shared is not None:
                    yield "shared", item, f"phi(1,1), {where}", shared.phi
                    yield "shared", item, f"agreeing, {where}", shared.agreeing
        for n, claim in enumerate(self.claims, start=1):
            item = f"{claim.where}, claim {n}"
            yield "claim", item, "the paper", claim.paper
            yield "claim", item, "here", claim.here
            yield "claim", item, "verdict", claim.verdict
        for n, text in enumerate(self.findings, start=1):
            yield "finding", str(n), "says", text


def _configuration(row: SweepRow) -> str:
    if row.rank is None:
        return f"{row.data}, {row.method} (reference)"
    return f"{row.data}, {row.targets}, r = {row.rank}"
