"""Figures: axes-level functions take and return an Axes, figure-level ones return a Figure.

>>> import subspace
>>> callable(subspace.plots.figure3)
True

Names are imported on first use: matplotlib comes with the first figure, not before.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from subspace.plots.accuracy.figure import accuracy_figure as accuracy_figure
    from subspace.plots.amplification_curve import curve_figure as curve_figure
    from subspace.plots.amplification_map import amplification_map as amplification_map
    from subspace.plots.amplification_map import map_figure as map_figure
    from subspace.plots.figure3 import figure3 as figure3
    from subspace.plots.figure4 import figure4 as figure4
    from subspace.plots.gains import gains as gains
    from subspace.plots.gains import gains_figure as gains_figure
    from subspace.plots.heatmap import phi_heatmap as phi_heatmap
    from subspace.plots.interference_map import interference_figure as interference_figure
    from subspace.plots.interference_map import interference_map as interference_map
    from subspace.plots.layers import layers_figure as layers_figure
    from subspace.plots.matrix import matrix_figure as matrix_figure
    from subspace.plots.matrix import matrix_map as matrix_map
    from subspace.plots.profile import profile_curve as profile_curve
    from subspace.plots.profile import profile_figure as profile_figure
    from subspace.plots.rank import rank_figure as rank_figure
    from subspace.plots.save import save as save

_HOME = {
    "accuracy_figure": "subspace.plots.accuracy.figure",
    "amplification_map": "subspace.plots.amplification_map",
    "curve_figure": "subspace.plots.amplification_curve",
    "figure3": "subspace.plots.figure3",
    "figure4": "subspace.plots.figure4",
    "gains": "subspace.plots.gains",
    "gains_figure": "subspace.plots.gains",
    "interference_figure": "subspace.plots.interference_map",
    "interference_map": "subspace.plots.interference_map",
    "layers_figure": "subspace.plots.layers",
    "map_figure": "subspace.plots.amplification_map",
    "matrix_figure": "subspace.plots.matrix",
    "matrix_map": "subspace.plots.matrix",
    "phi_heatmap": "subspace.plots.heatmap",
    "profile_curve": "subspace.plots.profile",
    "profile_figure": "subspace.plots.profile",
    "rank_figure": "subspace.plots.rank",
    "save": "subspace.plots.save",
}

__all__ = [
    "accuracy_figure",
    "amplification_map",
    "curve_figure",
    "figure3",
    "figure4",
    "gains",
    "gains_figure",
    "interference_figure",
    "interference_map",
    "layers_figure",
    "map_figure",
    "matrix_figure",
    "matrix_map",
    "phi_heatmap",
    "profile_curve",
    "profile_figure",
    "rank_figure",
    "save",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'subspace.plots' has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})


class _Plots(ModuleType):
    """Keeps `subspace.plots.figure3` the function: importing the file of that name sets it too."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Plots
