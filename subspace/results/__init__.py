"""The frozen result types. Axes have names; NaN means undefined and becomes null in JSON.

Nothing here computes: measures fill these, figures and the command line read them.
"""

from subspace.results.amplification import Amplification, DirectionGain, ModuleAmplification
from subspace.results.base import SCHEMA_VERSION, SIDES, Side, schema, strict
from subspace.results.conversion import Conversion, ModuleConversion
from subspace.results.demo import Demo, DemoRun
from subspace.results.diff import Diff, ModuleDiff, TensorDiff
from subspace.results.interference import (
    Interference,
    ModuleInterference,
    PairInterference,
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
from subspace.results.similarity import ModuleSimilarity, Similarity
from subspace.results.sweep import NearlyEnough, SweepRow, Table6

__all__ = [
    "BY",
    "SCHEMA_VERSION",
    "SIDES",
    "Amplification",
    "Asked",
    "Budget",
    "By",
    "Claim",
    "Conversion",
    "Demo",
    "DemoRun",
    "Diff",
    "DirectionGain",
    "GalleryFigure",
    "Interference",
    "ModuleAmplification",
    "ModuleConversion",
    "ModuleDiff",
    "ModuleInterference",
    "ModuleProfile",
    "ModuleRank",
    "ModuleResize",
    "ModuleSimilarity",
    "NearlyEnough",
    "PairInterference",
    "PairSimilarity",
    "Profile",
    "Rank",
    "Report",
    "Reproduction",
    "Resize",
    "Shared",
    "SharedByRuns",
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
    "Verdict",
    "WholePair",
    "schema",
    "strict",
]
