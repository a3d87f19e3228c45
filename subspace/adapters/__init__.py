"""Adapters of any format as one thing: a mapping from module path to `LowRankUpdate`.

One file a format; `load` asks each whether a path is its own. To the right of this room there is
only B, A and scale. Start reading with `adapter`.
"""

from __future__ import annotations

from subspace.adapters.adapter import Adapter, LowRankUpdate, UpdateInfo
from subspace.adapters.align import Aligned, align
from subspace.adapters.load import load
from subspace.adapters.method import Method
from subspace.adapters.set_aside import SetAside, SetAsideReason

__all__ = [
    "Adapter",
    "Aligned",
    "LowRankUpdate",
    "Method",
    "SetAside",
    "SetAsideReason",
    "UpdateInfo",
    "align",
    "load",
]
