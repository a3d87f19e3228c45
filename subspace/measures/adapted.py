"""The weights that an adapter makes of its base, one dense matrix at a time.

For what is no low-rank update although an adapter's file holds it: DoRA scales the rows of the
adapted weight (arXiv:2402.09353, eq. 5), so that ``delta W = m (W + s B A) / |W + s B A| - W`` has
full rank.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch

from subspace.adapters.magnitude import REASON
from subspace.measures.bases import fitted
from subspace.measures.counterparts import Counterparts

if TYPE_CHECKING:
    from subspace.adapters import Adapter, LowRankUpdate
    from subspace.pretrained import Pretrained, Weight


def adapted_weight(W: torch.Tensor, update: LowRankUpdate) -> torch.Tensor:
    """Return what an update makes of W (d_out, d_in), in float64; DoRA's magnitude is applied.

    A row whose norm is 0 has no direction that a magnitude could scale: it becomes NaN.

    >>> from subspace import LowRankUpdate
    >>> B, A = torch.tensor([[3.0], [0.0]]), torch.tensor([[1.0, 0.0]])
    >>> update = LowRankUpdate("q", A, B, 1.0, magnitude=torch.tensor([[10.0], [1.0]]))
    >>> adapted_weight(torch.tensor([[0.0, 4.0], [0.0, 2.0]]), update).tolist()
    [[6.0, 8.0], [0.0, 1.0]]
    """
    A, B = update.A.to(W.device, torch.float64), update.B.to(W.device, torch.float64)
    whole = torch.addmm(W.double(), B, A, alpha=update.scale)
    if update.magnitude is None:
        return whole
    m = update.magnitude.to(W.device, torch.float64)
    if len(m) == len(whole) and m.shape[1] == 1:
        return whole.mul_(m / torch.linalg.vector_norm(whole, dim=1, keepdim=True))
    blocks = whole.view(len(whole), m.shape[1], -1)  # (d_out, inputs, kernel)
    blocks.mul_((m[0] / torch.linalg.vector_norm(blocks, dim=(0, 2)))[:, None])
    return whole


def counterparts_of(base: Pretrained, adapter: Adapter, glob: str | None) -> Counterparts:
    """Pair each adapted module's weight with what it becomes, which is made when it is read.

    Raises
    ------
    UnknownModuleError
        The base lacks a module, or none matches the pattern.
    ShapeError
        A module has another shape.
    """
    chosen = fitted(adapter, base, glob)
    weights = {}
    for name, info in chosen.updates.items():
        before = base.get(name, shape=info.shape)
        read = partial(_read, before, chosen, name)
        source = f"{adapter.path or adapter.name} on {before.source}"
        after = replace(before, source=source, dtype="float64", _read=read)
        weights[name] = before, after
    notes = [f"{adapter.name} is an adapter: the weights it makes of {base.name} are compared"]
    scaled = {tensor.module for tensor in adapter.set_aside if tensor.reason == REASON}
    if not scaled & set(chosen):
        notes.append("it has no magnitude, so that B A is all of the update and takes no base")
    other = [tensor for tensor in adapter.set_aside if tensor.reason != REASON]
    if other:
        notes.append(f"{len(other)} tensors of its file are in no matrix's update")
    return Counterparts(weights, {}, (), (), tuple(notes))


def _read(before: Weight, adapter: Adapter, name: str) -> torch.Tensor:
    return adapted_weight(before.W, adapter[name])
