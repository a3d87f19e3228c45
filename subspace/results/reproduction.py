"""What ``subspace reproduce`` made: its files, the numbers of its tables, claims and findings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from subspace.results.base import SCHEMA_VERSION, Part, Side

if TYPE_CHECKING:
    from collections.abc import Mapping

    from subspace.results.amplification import Amplification
    from subspace.results.sweep import Table6

Verdict = Literal["agrees", "in part", "does not", "open"]


@dataclass(frozen=True)
class Claim(Part):
    """One thing that the paper says, and what these runs say of it. Printable lines."""

    where: str  # the table or figure of the paper
    paper: str  # what it says, in our words
    here: str  # our numbers, each beside its chance level or its spread
    verdict: Verdict  # "open": undefined or too few, `here` says why


@dataclass(frozen=True)
class GalleryFigure(Part):
    """One figure of a gallery."""

    file: str  # within the gallery
    words: str  # what it shows
    command: str  # draws it again, within the gallery; of Table 6, makes the whole gallery


@dataclass(frozen=True)
class Shared(Part):
    """What two runs share on one side, medians over modules; NaN where it is undefined."""

    phi: float  # φ(1, 1)
    agreeing: float  # leading directions that agree beyond chance


@dataclass(frozen=True)
class SharedByRuns(Part):
    """What two runs share on every side, and what they shared before they were trained."""

    runs: tuple[str, str]
    sides: Mapping[Side, Shared]
    start: Shared | None  # of the two initial A; None where one is not stored


@dataclass(frozen=True, eq=False)
class Reproduction:
    """A gallery as it was written. Names of files are within `folder`."""

    command: str  # that makes it again
    folder: str
    page: str
    figures: tuple[GalleryFigure, ...]
    adapters: tuple[str, ...]  # folders of the compared runs
    table6: Table6
    table7: tuple[Amplification, Amplification]  # of the smaller rank and of the larger one
    shared: tuple[SharedByRuns, ...]
    claims: tuple[Claim, ...]
    findings: tuple[str, ...]  # one sentence each

    def __repr__(self) -> str:
        return f"Reproduction({self.folder!r}, {len(self.figures)} figures)"

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python for strict JSON, schema version 1."""
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": "reproduction",
            "command": self.command,
            "folder": self.folder,
            "page": self.page,
            "figures": [figure.to_dict() for figure in self.figures],
            "adapters": list(self.adapters),
            "claims": [claim.to_dict() for claim in self.claims],
            "findings": list(self.findings),
            "shared": [pair.to_dict() for pair in self.shared],
            "table6": self.table6.to_dict(),
            "table7": [each.to_dict() for each in self.table7],
        }
