"""Where does the update lie in W? phi between the top directions of W and those of delta W.

Hu et al. 2021, arXiv:2106.09685, appendix H.3, Figure 8.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

import torch

from subspace import linalg
from subspace.adapters import Adapter, LowRankUpdate
from subspace.errors import ArgumentError, NonFiniteError
from subspace.measures.similarity import similarity
from subspace.pretrained import open_pretrained
from subspace.spectra import usable

if TYPE_CHECKING:
    from collections.abc import Callable

    from subspace.pretrained import Pretrained
    from subspace.results import Similarity

MOST = 64  # of W's directions, unless asked; and no more than a tenth of its dimensions
_DIRECT = 1024  # up to this many dimensions W's own SVD costs less than a second


def placement(
    adapter: Adapter,
    base: Pretrained | str | os.PathLike[str],
    *,
    side: Literal["in", "out"] = "in",
    top: int | None = None,
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
    top
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
        `top` is below 1, or a side other than in and out.
    UnknownModuleError, ShapeError
        The base is not the adapter's.
    NonFiniteError
        W or a factor holds NaN or infinity.

    Notes
    -----
    Above 1024 dimensions W's directions come from the float64 Gram, whose eigenvectors are sure
    to eps * (sigma_1 / sigma_i)^2 over the relative gap; the error bound does not include this.
    """
    if side not in ("in", "out"):
        raise ArgumentError(f"side is {side!r}; W and delta W are compared on in or out")
    if top is not None and top < 1:
        raise ArgumentError(f"top is {top}; it is a number of directions, from 1 on")
    device = usable(device)
    if isinstance(base, str | os.PathLike):
        base = open_pretrained(base)
    chosen = adapter.select(modules)
    for name in chosen:  # shapes first: a base that is not the adapter's is refused before the work
        base.get(name, shape=chosen.updates[name].shape)
    leading = {}
    for name in chosen:
        leading[name] = _leading(name, base, chosen.updates[name].shape, top, device)
        if progress is not None:
            progress(1)
    whole = Adapter.from_updates(leading, name=f"W of {base.name}")
    return similarity(whole, chosen, side=side, device=device)


def _leading(
    name: str, base: Pretrained, shape: tuple[int, int], top: int | None, device: torch.device
) -> LowRankUpdate:
    """W's leading part as an update: B = U, A = S V^T."""
    weight = base.get(name, shape=shape)
    W = weight.W.to(device)
    smaller = min(W.shape)
    k = min(smaller, top if top is not None else max(1, min(MOST, smaller // 10)))
    if smaller <= _DIRECT:
        full = W.to(torch.float64)
        _refuse_non_finite(full.sum(), name, weight.source)
        U, S, Vh = torch.linalg.svd(full, full_matrices=False)
        return LowRankUpdate(name, (S[:k, None] * Vh[:k]).cpu(), U[:, :k].cpu(), 1.0, weight.source)
    tall = W if W.shape[0] >= W.shape[1] else W.mT
    gram = linalg.gram([tall])
    _refuse_non_finite(gram.trace(), name, weight.source)
    V = torch.linalg.eigh(gram).eigenvectors.flip(1)[:, :k]  # right singular vectors of `tall`
    panels = (tall[at : at + 256].to(torch.float64) for at in range(0, len(tall), 256))
    scaled = torch.cat([panel @ V for panel in panels])  # U S
    B, A = (scaled, V.mT) if tall is W else (V, scaled.mT)
    return LowRankUpdate(name, A.cpu(), B.cpu(), 1.0, weight.source)


def _refuse_non_finite(number: torch.Tensor, name: str, source: str) -> None:
    if not bool(torch.isfinite(number)):
        raise NonFiniteError(f"W of module {name!r} holds NaN or infinity ({source})")
