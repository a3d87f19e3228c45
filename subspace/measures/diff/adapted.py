"""The weights that an adapter makes of its base, one dense matrix at a time.

For what an adapter's file holds and is no B and A of it: DoRA scales the rows of the adapted weight
(arXiv:2402.09353, eq. 5), so that ``delta W = m (W + s B A) / |W + s B A| - W`` has full rank; and
the embeddings of single tokens that were trained beside are stored as they became.
"""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial
from typing import TYPE_CHECKING

import torch

from subspace.adapters.peft.tokens import find_trained_tokens
from subspace.adapters.rotary import refuse_reordered
from subspace.adapters.set_aside import SetAsideReason
from subspace.errors import FormatError, ShapeError
from subspace.measures.diff.weights import MatchedWeights

if TYPE_CHECKING:
    from collections.abc import Callable

    from subspace.adapters import Adapter, LowRankUpdate
    from subspace.adapters.peft.tokens import Tokens
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


def match_adapted(base: Pretrained, adapter: Adapter, glob: str | None) -> MatchedWeights:
    """Pair each adapted module's weight with what it becomes, which is made when it is read.

    Raises
    ------
    FormatError
        The adapter was trained on weights that its initialisation had changed.
    UnknownModuleError
        The base lacks a module, or none matches the pattern.
    ShapeError
        A module has another shape.
    """
    changed = adapter.layout.base_changed
    if changed:
        raise FormatError(
            f"{adapter.path or adapter.name}: {changed} changed the base weights before training "
            f"and the file does not hold how, so that what it makes of {base.name} is not W + B A; "
            "have PEFT write the update of the base as it was (save_pretrained(…, "
            "path_initial_model_for_weight_conversion=START)) and give that"
        )
    tokens = {
        module: trained
        for module, trained in find_trained_tokens(adapter).items()
        if module not in adapter and (glob is None or fnmatchcase(module, glob))
    }
    updates = {}
    if not tokens or glob is None or any(fnmatchcase(module, glob) for module in adapter):
        updates = dict(adapter.select(glob).updates)
    refuse_reordered(adapter, updates, f"those of {base.name} in")
    reads: dict[str, tuple[Weight, Callable[[], torch.Tensor]]] = {}
    for name, info in updates.items():
        before = base.get(name, shape=info.shape)
        reads[base.named(name)] = before, partial(_read, before, adapter, name)
    for name, trained in tokens.items():
        before = base.get(name)
        reads[name] = before, partial(_with_tokens, before, adapter, trained)
    source = adapter.path or adapter.name
    weights = {
        name: (
            before,
            replace(before, source=f"{source} on {before.source}", dtype="float64", _read=read),
        )
        for name, (before, read) in reads.items()
    }
    notes = [f"{adapter.name} is an adapter: the weights it makes of {base.name} are compared"]
    scaled = {t.module for t in adapter.set_aside if t.reason is SetAsideReason.MAGNITUDE}
    if updates and not scaled & set(updates):
        notes.append("it has no magnitude, so that B A is all of the update and takes no base")
    read_here = {trained.tensor for trained in tokens.values()}
    other = [
        tensor
        for tensor in adapter.set_aside
        if tensor.reason is not SetAsideReason.MAGNITUDE and tensor.name not in read_here
    ]
    if other:
        notes.append(f"{len(other)} tensors of its file are in no matrix's update")
    return MatchedWeights(weights, {}, (), (), (*notes, *adapter.notes))


def _with_tokens(before: Weight, adapter: Adapter, tokens: Tokens) -> torch.Tensor:
    """Put trained embeddings (k, dim) in their columns of an embedding's map (dim, vocab)."""
    whole = before.W.to(torch.float64, copy=True)
    values = adapter.tensor(tokens.tensor).double()
    if values.shape[1] != len(whole) or max(tokens.indices, default=0) >= whole.shape[1]:
        raise ShapeError(
            f"{adapter.path}: tokens {', '.join(map(str, tokens.indices[:4]))} of "
            f"{values.shape[1]} numbers are not of {before.source}, {len(whole)} x "
            f"{whole.shape[1]}; is this the adapter's base model?"
        )
    whole[:, list(tokens.indices)] = values.mT
    return whole


def _read(before: Weight, adapter: Adapter, name: str) -> torch.Tensor:
    return adapted_weight(before.W, adapter[name])
