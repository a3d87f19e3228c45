"""The frozen result types. Axes have names; NaN and None mean undefined and become null in JSON.

Nothing here computes: measures fill these, figures and the command line read them. Start reading
with `fields` (what a field says of itself), then `table` (how a result is shown). A class that is
imported below and has a ``kind`` is in the JSON Schema.
"""

import json
from typing import Any

from subspace.results.amplification import (
    Amplification,
    Amplifications,
    DirectionGain,
    ModuleAmplification,
)
from subspace.results.base import SCHEMA_VERSION, SIDES, ByModule, Part, Result, Side, strict
from subspace.results.conversion import Conversion, InspectedModule
from subspace.results.demo import Demo, DemoRun
from subspace.results.diff import Diff, ModuleDiff, TensorDiff
from subspace.results.inspection import Inspected, Inspection, SetAsideTensor
from subspace.results.interference import (
    Interference,
    ModuleInterference,
    PairInterference,
    SharedInitial,
    SpaceOverlap,
    WholePair,
)
from subspace.results.matrix import BY, By, PairSimilarity, SimilarityMatrix
from subspace.results.profile import ModuleProfile, Profile, TopEnergy
from subspace.results.rank import ModuleRank, Rank, Spread
from subspace.results.report import Report, Source
from subspace.results.reproduction import (
    Claim,
    GalleryFigure,
    Reproduction,
    Shared,
    SharedByRuns,
    Verdict,
)
from subspace.results.resize import Asked, Budget, ModuleResize, Resize
from subspace.results.similarity import Distances, Method, ModuleSimilarity, Similarity
from subspace.results.sweep import NearlyEnough, SweepRow, Table6
from subspace.results.training import FailedRun, FinishedRun, RunRow, Training, TrainingRuns

__all__ = [
    "BY",
    "KINDS",
    "SCHEMA_VERSION",
    "SIDES",
    "Amplification",
    "Amplifications",
    "Asked",
    "Budget",
    "By",
    "ByModule",
    "Claim",
    "Conversion",
    "Demo",
    "DemoRun",
    "Diff",
    "DirectionGain",
    "Distances",
    "FailedRun",
    "FinishedRun",
    "GalleryFigure",
    "Inspected",
    "InspectedModule",
    "Inspection",
    "Interference",
    "Method",
    "ModuleAmplification",
    "ModuleDiff",
    "ModuleInterference",
    "ModuleProfile",
    "ModuleRank",
    "ModuleResize",
    "ModuleSimilarity",
    "NearlyEnough",
    "PairInterference",
    "PairSimilarity",
    "Part",
    "Profile",
    "Rank",
    "Report",
    "Reproduction",
    "Resize",
    "Result",
    "RunRow",
    "SetAsideTensor",
    "Shared",
    "SharedByRuns",
    "SharedInitial",
    "Side",
    "Similarity",
    "SimilarityMatrix",
    "Source",
    "SpaceOverlap",
    "Spread",
    "SweepRow",
    "Table6",
    "TensorDiff",
    "TopEnergy",
    "Training",
    "TrainingRuns",
    "Verdict",
    "WholePair",
    "schema",
    "schema_text",
    "strict",
]

KINDS: dict[str, type[Result]] = {
    each.kind: each
    for each in tuple(vars().values())
    if isinstance(each, type) and issubclass(each, Result) and "kind" in vars(each)
}
"""Every kind of document, by the name that it has in JSON."""


def schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of all that the verbs write with ``--json``.

    A document's `kind` says which of its definitions it follows. Within one `SCHEMA_VERSION` no
    field is dropped or changes its meaning. ``docs/schema.json`` is the same.

    Examples
    --------
    >>> from subspace.results import Rank
    >>> kinds = schema()["$defs"]
    >>> kinds["rank"]["properties"]["level"]["description"]
    'False discovery rate over modules, a probability.'
    >>> "additionalProperties" in kinds["rank"]
    True
    """
    from subspace.results.schemas import build_schema

    return build_schema(KINDS)


def schema_text() -> str:
    """Return what ``docs/schema.json`` holds; ``python docs/refresh.py`` writes it."""
    return json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"
