"""Measure what trained LoRA adapters learned (Hu et al. 2021, arXiv:2106.09685, section 7).

>>> import subspace
>>> callable(subspace.load)
True

Names are imported on first use, so that ``import subspace`` alone stays light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from subspace import findings as findings
    from subspace import plots as plots
    from subspace.adapters import Adapter as Adapter
    from subspace.adapters import LowRankUpdate as LowRankUpdate
    from subspace.adapters import align as align
    from subspace.adapters import load as load
    from subspace.adapters.save import save as save
    from subspace.errors import SubspaceError as SubspaceError
    from subspace.measures.amplification.measure import amplification as amplification
    from subspace.measures.amplification.measure import amplifications as amplifications
    from subspace.measures.diff.measure import diff as diff
    from subspace.measures.interference.measure import interference as interference
    from subspace.measures.placement.measure import placement as placement
    from subspace.measures.placement.profile import profile as profile
    from subspace.measures.rank.measure import rank as rank
    from subspace.measures.resize.measure import resize as resize
    from subspace.measures.similarity.matrix import similarities as similarities
    from subspace.measures.similarity.measure import similarity as similarity
    from subspace.reports import report as report
    from subspace.results import Similarity as Similarity
    from subspace.spectra import Spectrum as Spectrum
    from subspace.spectra import spectrum as spectrum

__version__ = "0.1.0"

_HOME = {
    "Adapter": "subspace.adapters",
    "LowRankUpdate": "subspace.adapters",
    "load": "subspace.adapters",
    "SubspaceError": "subspace.errors",
    "align": "subspace.adapters",
    "amplification": "subspace.measures.amplification.measure",
    "amplifications": "subspace.measures.amplification.measure",
    "diff": "subspace.measures.diff.measure",
    "interference": "subspace.measures.interference.measure",
    "placement": "subspace.measures.placement.measure",
    "profile": "subspace.measures.placement.profile",
    "rank": "subspace.measures.rank.measure",
    "report": "subspace.reports",
    "resize": "subspace.measures.resize.measure",
    "save": "subspace.adapters.save",
    "similarities": "subspace.measures.similarity.matrix",
    "similarity": "subspace.measures.similarity.measure",
    "Similarity": "subspace.results",
    "Spectrum": "subspace.spectra",
    "spectrum": "subspace.spectra",
}
_ROOMS = ("findings", "plots")
"""Packages that are names of this one, so that `subspace.plots.figure3(result)` needs no import."""

__all__ = [
    "Adapter",
    "LowRankUpdate",
    "Similarity",
    "Spectrum",
    "SubspaceError",
    "align",
    "amplification",
    "amplifications",
    "diff",
    "findings",
    "interference",
    "load",
    "placement",
    "plots",
    "profile",
    "rank",
    "report",
    "resize",
    "save",
    "similarities",
    "similarity",
    "spectrum",
]


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name in _ROOMS:
        return import_module(f"subspace.{name}")  # which makes it an attribute
    if name not in _HOME:
        raise AttributeError(f"module 'subspace' has no attribute {name!r}")
    value: object = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME, *_ROOMS})
