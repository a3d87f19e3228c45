"""What tells one stored W from another: quickly, for a key, or all of its bytes, to be certain."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

from subspace.tensorfiles import ShardedFile

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch

    from subspace.pretrained.weight import Weight
    from subspace.tensorfiles import TensorFile

_STRIPES = 64  # rows of W that a key reads, spaced over the whole
_PANEL = 512


class Fingerprints:
    """Keys of the weights of one checkpoint.

    They rest on what its files say of themselves (name, size, time of change, headers), on a
    weight's place in them, and on rows spaced over its numbers. Where the files lie is no part: a
    model that moves keeps its keys. A change within a file of the same size and time of change,
    between the rows that are read, is not seen: `digest` sees it.
    """

    def __init__(self, tensors: TensorFile) -> None:
        self._paths = files_of(tensors)
        stats = [(path.name, path.stat()) for path in self._paths]
        identities = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
        self._files = headers_digest(tensors, identities)

    def key(self, weight: Weight, W: torch.Tensor) -> str:
        """Identify one module's W, whose tensor is given."""
        stripes = sha256()
        for row in range(0, W.shape[0], max(1, W.shape[0] // _STRIPES)):
            stripes.update(_bytes(W[row : row + 1]))
        source = weight.source
        for path in self._paths:
            source = source.replace(str(path), path.name)
        place = (source, weight.shape, weight.stored_transposed, weight.dtype)
        return sha256(repr((self._files, place, stripes.hexdigest())).encode()).hexdigest()


def files_of(tensors: TensorFile) -> list[Path]:
    """Return the files of a checkpoint, in the order of their paths."""
    files = tensors.files.values() if isinstance(tensors, ShardedFile) else [tensors.path]
    return sorted(set(files))


def headers_digest(tensors: TensorFile, identities: Sequence[tuple[object, ...]]) -> str:
    """Hash what a checkpoint says of its tensors, and what is `said` of its files."""
    headers = sorted((name, h.dtype, h.shape) for name, h in tensors.headers.items())
    return sha256(repr((identities, headers)).encode()).hexdigest()


def digest(W: torch.Tensor) -> str:
    """Hash every number of W."""
    whole = sha256(repr((tuple(W.shape), str(W.dtype))).encode())
    for start in range(0, W.shape[0], _PANEL):
        whole.update(_bytes(W[start : start + _PANEL]))
    return whole.hexdigest()


def _bytes(rows: torch.Tensor) -> bytes:
    import torch

    return rows.contiguous().view(torch.uint8).numpy().tobytes()
