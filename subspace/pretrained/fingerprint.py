"""What tells one stored W from another: quickly, for a key, or all of its bytes, to be certain."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from subspace.pretrained.weight import Weight
    from subspace.tensorfiles import TensorFile

_STRIPES = 64  # rows of W that a key reads, spaced over the whole
_PANEL = 512


def files_key(tensors: TensorFile) -> str:
    """Hash what a checkpoint's files say of themselves: names, sizes, times and headers."""
    files = getattr(tensors, "files", None)
    paths = sorted(set(files.values())) if files else [tensors.path]
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    headers = sorted((name, h.dtype, h.shape) for name, h in tensors.headers.items())
    return hashlib.sha256(repr((stats, headers)).encode()).hexdigest()


def weight_key(files: str, weight: Weight, W: torch.Tensor) -> str:
    """Identify one module's W by its files, its place in them and rows spaced over its bytes.

    `files` is what `files_key` returns.

    A change within a file of the same size and time of change, between the rows that are read, is
    not seen: `digest` sees it.
    """
    stripes = hashlib.sha256()
    for row in range(0, W.shape[0], max(1, W.shape[0] // _STRIPES)):
        stripes.update(_bytes(W[row : row + 1]))
    place = (weight.source, weight.shape, weight.stored_transposed, weight.dtype)
    return hashlib.sha256(repr((files, place, stripes.hexdigest())).encode()).hexdigest()


def digest(W: torch.Tensor) -> str:
    """Hash every number of W."""
    whole = hashlib.sha256(repr((tuple(W.shape), str(W.dtype))).encode())
    for start in range(0, W.shape[0], _PANEL):
        whole.update(_bytes(W[start : start + _PANEL]))
    return whole.hexdigest()


def _bytes(rows: torch.Tensor) -> bytes:
    import torch

    return rows.contiguous().view(torch.uint8).numpy().tobytes()
