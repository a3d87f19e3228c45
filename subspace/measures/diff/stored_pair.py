"""Two stored matrices of one module, read once side by side: how far apart, and how surely."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from subspace import linalg
from subspace.measures.diff.rounding import Variances, coarsest
from subspace.results import TensorDiff
from subspace.spectra.rounding import spacing

if TYPE_CHECKING:
    from torch import Tensor

    from subspace.measures.diff.rounding import Rounding


@dataclass(frozen=True, kw_only=True)
class StoredPair:
    """What one pass over W of both checkpoints says.

    Attributes
    ----------
    difference
        Tuned - base, not formed; its `factor` brings its largest entry near 1.
    norm, w_norm
        Frobenius norms of the difference and of the base's W; NaN or infinite where an entry is.
    unchanged
        Share of the entries that are equal.
    grids
        The coarsest dtype that holds all of the base's and of the tuned one's numbers.
    rounding
        What storing both has rounded away.
    """

    difference: linalg.Difference
    norm: float
    w_norm: float
    unchanged: float
    grids: tuple[torch.dtype, torch.dtype]
    rounding: Rounding


def read_pair(base: Tensor, tuned: Tensor, device: torch.device) -> StoredPair:
    """Compare W of the base with that of the tuned checkpoint, (m, n) each, in float64 panels."""
    unit = _find_unit(base, tuned, device)
    grids = coarsest(base), coarsest(tuned)
    squares = torch.zeros(2, dtype=torch.float64, device=device)
    same, largest = 0, 0.0
    variances = Variances((base.shape[0], base.shape[1]), device)
    read = zip(
        linalg.panels(base, torch.float64, device),
        linalg.panels(tuned, torch.float64, device),
        strict=True,
    )
    for (at, before), (_, after) in read:
        if unit != 1.0:
            before.mul_(unit)
            after.mul_(unit)
        moved = after - before
        changed = moved != 0
        squares += torch.stack([moved.square().sum(), before.square().sum()])
        same += changed.numel() - int(changed.sum())
        largest = max(largest, float(moved.abs().amax()))
        variances.add(at, spacing(before, grids[0]), spacing(after, grids[1]), changed)
    norm, w_norm = (math.sqrt(x) / unit for x in squares.tolist())
    return StoredPair(
        difference=linalg.Difference(tuned, base, _find_factor(largest / unit)),
        norm=norm,
        w_norm=w_norm,
        unchanged=same / base.numel(),
        grids=grids,
        rounding=variances.rounding(unit),
    )


def tensor_change(name: str, base: Tensor, tuned: Tensor) -> TensorDiff:
    """Compare a tensor of any shape and numbers."""
    shape = tuple(tuned.shape)
    if base.shape != tuned.shape:
        return TensorDiff(name, shape, True, math.nan)
    device = torch.device("cpu")
    moved, size = 0.0, 0.0
    one, other = (t.reshape(1, -1) if t.dim() < 2 else t.flatten(1) for t in (base, tuned))
    if one.numel():
        read = (linalg.panels(W, torch.float64, device) for W in (one, other))
        for (_, before), (_, after) in zip(*read, strict=True):
            moved += float((after - before).square().sum())
            size += float(before.square().sum())
    changed = not torch.equal(base, tuned)
    relative = math.sqrt(moved / size) if size > 0 else math.nan
    return TensorDiff(name, shape, changed, relative)


def _find_unit(base: Tensor, tuned: Tensor, device: torch.device) -> float:
    """Return the power of two at which no square over- or underflows."""
    if torch.float64 not in (base.dtype, tuned.dtype):
        return 1.0  # the squares of every other dtype fit into float64
    largest = max(
        float(panel.abs().amax())
        for W in (base, tuned)
        for _, panel in linalg.panels(W, torch.float64, device)
    )
    return 1.0 if 1e-100 < largest < 1e100 else _find_factor(largest)


def _find_factor(largest: float) -> float:
    if largest == 0 or not math.isfinite(largest):
        return 1.0
    return math.ldexp(1.0, -max(-1000, min(math.frexp(largest)[1], 1000)))
