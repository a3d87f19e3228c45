"""Where does the update lie in W? phi between the top directions of W and those of delta W.

Hu et al. 2021, arXiv:2106.09685, appendix H.3, Figure 8.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import torch

from subspace import linalg
from subspace.adapters import Adapter, Aligned, LowRankUpdate
from subspace.errors import ArgumentError, NonFiniteError
from subspace.measures.bases import fit_modules, open_base
from subspace.measures.similarity.measure import compare
from subspace.spectra import usable

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from subspace.pretrained import Pretrained
    from subspace.results import Similarity

MOST = 64  # of W's directions, unless asked; and no more than a tenth of its dimensions
_TOLERANCE = 1e-12  # of W's directions: an angle is only as sure as this over a gap


def placement(
    adapter: Adapter,
    base: Pretrained | str | os.PathLike[str],
    *,
    side: Literal["in", "out"] = "in",
    k: int | None = None,
    modules: str | None = None,
    device: str | torch.device = "cpu",
    progress: Callable[[int], None] | None = None,
) -> Similarity:
    """Compare W's top directions (i) with those of delta W (j), module by module.

    W's leading part, ``U_k S_k V_k^T``, is a low-rank update itself, so that this is `similarity`
    of it and the adapter: the same phi, null, p-values, error bounds and figures.

    Parameters
    ----------
    adapter, base
        An adapter and the checkpoint that it was trained on, open or as a path.
    side
        ``"in"``: right singular vectors of both; ``"out"``: left ones.
    k
        How many of W's directions; by default min(64, d/10), d the smaller dimension.
    modules
        A shell-style pattern.
    device, progress
        As in `subspace.similarity`.

    Returns
    -------
    `Similarity` between ``W of <base>`` and the adapter.

    Raises
    ------
    ArgumentError
        `k` is below 1, or a side other than in and out.
    UnknownModuleError, ShapeError
        The base is not the adapter's.
    NonFiniteError
        W or a factor holds NaN or infinity.

    Notes
    -----
    W's directions come from `subspace.linalg.leading`, and what they leave open, its bound over
    the gaps of W's values, is part of each cell's error; the last gap is to the first value that is
    left out.
    """
    if side not in ("in", "out"):
        raise ArgumentError(f"side is {side!r}; W and delta W are compared on in or out")
    if k is not None and k < 1:
        raise ArgumentError(f"k is {k}; it is a number of directions, from 1 on")
    device = usable(device)
    base = open_base(base, [adapter])
    chosen = fit_modules(adapter, base, modules)
    leading = {}
    for name in chosen:
        leading[name] = _leading(name, base, chosen.updates[name].shape, k, device)
        if progress is not None:
            progress(1)
    whole = Adapter.from_updates(leading, name=f"W of {base.name}")
    pair = Aligned([whole, chosen])  # by its names
    return replace(compare(pair, side=side, device=device, trained=False), of_base=True)


def _leading(
    name: str, base: Pretrained, shape: tuple[int, int], most: int | None, device: torch.device
) -> LowRankUpdate:
    """W's leading part as an update: B = U, A = S V^T."""
    weight = base.get(name, shape=shape)
    W = weight.W
    norm, _ = linalg.sweep(W, [], device=device)
    if not math.isfinite(norm):
        raise NonFiniteError(f"W of module {name!r} holds NaN or infinity ({weight.source})")
    smaller = min(W.shape)
    k = min(smaller, most if most is not None else max(1, min(MOST, smaller // 10)))
    leading = linalg.leading(W, k, norm=norm, vectors=True, tolerance=_TOLERANCE, device=device)
    tall = W if W.shape[0] >= W.shape[1] else W.mT
    V = leading.V[:, :k].to(device)
    panels = linalg.panels(tall, torch.float64, device)
    scaled = torch.cat([panel @ V for _, panel in panels])  # U S
    B, A = (scaled, V.mT) if tall is W else (V, scaled.mT)
    beyond = float(leading.S[k]) if k < len(leading.S) else 0.0
    error = float(leading.error[:k].max())
    return LowRankUpdate(
        name, A.cpu(), B.cpu(), 1.0, source=weight.source, error=error, beyond=beyond
    )
