"""What the page's explorer needs: small numbers as JSON, grids as compressed 16-bit integers.

224 modules of 64 x 64 cells are 11 MB as JSON text. phi in [0, 1] to 1/65000 and p to 2 % are more
than a screen shows, and exact values are in `Report.to_dict`.
"""

from __future__ import annotations

import base64
import gzip
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.modules.place import place
from subspace.plots.parts.names import kind_labels, layer_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from subspace.results import (
        Amplification,
        ModuleAmplification,
        ModuleSimilarity,
        Rank,
        Report,
        Similarity,
    )

PHI_STEPS = 65000
"""phi = integer / PHI_STEPS."""
P_STEPS = 128
"""p = 10 ** -(integer / P_STEPS)."""
MASKED, UNDEFINED = 65534, 65535
"""In the place of phi: the cell cuts a cluster of singular values; beyond the numerical rank."""
_COLOURS = 64
_LEAST_P = 1e-300  # stands for all below it, zero among them


def build_payload(report: Report) -> tuple[dict[str, Any], str]:
    """Return the numbers as plain JSON, and the grids in base64."""
    # In the model's own order, as each adapter has them.
    names = list(dict.fromkeys(name for rank in report.ranks for name in rank))
    spots = [place(name) for name in names]
    rows = list(dict.fromkeys((spot.prefix, spot.layer) for spot in spots))
    kinds = list(dict.fromkeys(spot.kind for spot in spots))
    words, labels = layer_words(rows), kind_labels(kinds)
    index = {name: n for n, name in enumerate(names)}
    grids = _Grids()
    plain = {
        # What `literal` escapes for matplotlib is plain text here.
        "rows": [words[row].replace(r"\$", "$") for row in rows],
        "columns": [labels[kind] for kind in kinds],
        "modules": [
            [name, rows.index((spot.prefix, spot.layer)), kinds.index(spot.kind)]
            for name, spot in zip(names, spots, strict=True)
        ],
        "sources": [source.name for source in report.sources],
        "side": report.side,
        "level": report.level,
        "pairs": [_pair(pair, index, grids) for pair in report.pairs],
        "adapters": [
            _make_adapter(rank, singular, curve, index)
            for rank, singular, curve in zip(
                report.ranks, report.singular, _each(report.curves, report), strict=True
            )
        ],
        "replicable": [
            {
                "names": list(rank.adapters),
                "modules": {str(index[name]): m.replicable for name, m in rank.items()},
            }
            for rank in report.replicable
        ],
        "colours": _sample_colours(),
        "phi_steps": PHI_STEPS,
        "p_steps": P_STEPS,
        "masked": MASKED,
        "undefined": UNDEFINED,
    }
    return plain, grids.encoded()


class _Grids:
    """Grids one after the other; the explorer is told where each begins."""

    def __init__(self) -> None:
        self._parts: list[NDArray[np.uint16]] = []
        self._length = 0

    def add(self, m: ModuleSimilarity) -> int:
        """Append a module's phi, then its p; return where it begins."""
        at = self._length
        phi = np.full(m.phi.shape, UNDEFINED, dtype="<u2")
        defined = np.isfinite(m.phi)
        phi[defined] = np.rint(np.clip(m.phi[defined], 0, 1) * PHI_STEPS)
        phi[m.masked & ~defined] = MASKED
        p = np.full(m.phi.shape, UNDEFINED, dtype="<u2")
        defined = np.isfinite(m.pvalue)
        p[defined] = np.rint(-np.log10(np.clip(m.pvalue[defined], _LEAST_P, 1)) * P_STEPS)
        self._parts += [phi.ravel(), p.ravel()]
        self._length += phi.size + p.size
        return at

    def encoded(self) -> str:
        """Compress with no time stamp, so that the same numbers give the same page."""
        raw = np.concatenate(self._parts).tobytes() if self._parts else b""
        return base64.b64encode(gzip.compress(raw, 9, mtime=0)).decode("ascii")


def _pair(pair: Similarity, index: Mapping[str, int], grids: _Grids) -> dict[str, Any]:
    return {
        "names": list(pair.adapters),
        "modules": {
            str(index[name]): {
                "a": m.rank_a,
                "b": m.rank_b,
                "d": m.d,
                "real": [m.numerical_rank_a, m.numerical_rank_b],
                "agreeing": m.agreeing,
                "note": m.note,
                "at": grids.add(m),
            }
            for name, m in pair.items()
        },
    }


def _each(results: Sequence[Amplification], report: Report) -> Iterable[Amplification | tuple[()]]:
    return results or ((),) * len(report.sources)


def _make_adapter(
    rank: Rank,
    singular: Mapping[str, Sequence[float]],
    curve: Iterable[ModuleAmplification],
    index: Mapping[str, int],
) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, m in rank.items():
        values = singular[name]
        out[str(index[name])] = {
            "norm": _shorten(math.sqrt(sum(s * s for s in values))),
            "entropy": _shorten(m.entropy.median),
            "stable": _shorten(m.stable.median),
            "rank": m.nominal,
            "S": [_shorten(s) for s in values],
        }
    for row in curve:
        numbers = (row.factor, row.null_factor, row.null_low, row.null_high)
        entry = out[str(index[row.module])]
        entry.setdefault("curve", []).append([row.rank, *map(_shorten, numbers)])
        # Ranks ascend, and the last one is the module's own.
        entry |= {"factor": _shorten(row.factor), "null_ratio": _shorten(row.null_ratio)}
        entry["significant"] = row.finding
    return out


def _shorten(value: float) -> float | None:
    """Five significant digits; None where it is undefined."""
    return float(f"{value:.5g}") if math.isfinite(value) else None


def _sample_colours() -> list[str]:
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    from subspace.plots.parts.colours import PHI_MAP

    scale = colormaps[PHI_MAP]
    return [to_hex(scale(n / (_COLOURS - 1))) for n in range(_COLOURS)]
