"""Adapters of any format as one thing: a mapping from module path to `LowRankUpdate`.

One file a format; `load` asks each whether a path is its own. To the right of this room there is
only B, A and scale.
"""

from __future__ import annotations

from subspace.adapters.adapter import Adapter, LowRankUpdate, SetAside, UpdateInfo
from subspace.adapters.align import align
from subspace.adapters.load import load

__all__ = ["Adapter", "LowRankUpdate", "SetAside", "UpdateInfo", "align", "load"]
