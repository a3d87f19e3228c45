"""A tensor file as a lazy, safe, read-only mapping from name to tensor.

`open_tensors` reads headers; a tensor is read when it is first asked for. Files come from
strangers: nothing in them is run, nothing is allocated on their word, and everything that a
header says is checked against the bytes that are there. A safetensors header is read without
torch, and so is a GGUF one; a torch file needs torch for that, and is opened with
``weights_only=True`` alone. Start reading with `lazy`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from subspace.errors import FormatError
from subspace.tensorfiles.gguf_file import QUANTISED, open_gguf
from subspace.tensorfiles.lazy import FLOAT8, TensorFile, TensorHeader
from subspace.tensorfiles.npz_file import open_npz
from subspace.tensorfiles.safetensors_file import open_safetensors
from subspace.tensorfiles.sharded import INDEX_SUFFIXES, ShardedFile, open_sharded
from subspace.tensorfiles.torch_file import open_torch
from subspace.tensorfiles.untrusted import join_inside, read_json, require_regular, short

if TYPE_CHECKING:
    import os

__all__ = [
    "FLOAT8",
    "INDEX_SUFFIXES",
    "QUANTISED",
    "SUFFIXES",
    "TORCH_SUFFIXES",
    "ShardedFile",
    "TensorFile",
    "TensorHeader",
    "join_inside",
    "open_sharded",
    "open_tensors",
    "read_json",
    "short",
    "suffix_of",
]

TORCH_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt")
SUFFIXES = (".safetensors", ".gguf", ".npz", *TORCH_SUFFIXES)
# litgpt saves an adapter as the checkpoint's name with this behind.
_EXTRA = ".lora"


def suffix_of(path: Path) -> str:
    """Return the suffix that tells a tensor file's kind, litgpt's ``.pth.lora`` as ``.pth``.

    >>> suffix_of(Path("lit_model.pth.lora")), suffix_of(Path("a.safetensors"))
    ('.pth', '.safetensors')
    """
    bare = path.with_suffix("") if path.suffix == _EXTRA else path
    return bare.suffix


def open_tensors(path: str | os.PathLike[str]) -> TensorFile:
    """Open a tensor file by its suffix and read its headers.

    Parameters
    ----------
    path
        A ``.safetensors``, ``.gguf`` or ``.npz`` file, a torch file (``.bin``, ``.pt``, ``.pth``,
        ``.ckpt``), or the index of several.

    Returns
    -------
    TensorFile
        In the file's own order. A safetensors or GGUF file costs its header alone and imports no
        torch.

    Raises
    ------
    MissingFileError
        There is no such regular file.
    FormatError
        The file is damaged or hostile, or its suffix is none of the above.
    """
    path = Path(path)
    require_regular(path)
    if path.name.endswith(INDEX_SUFFIXES):
        return open_sharded(path)
    suffix = suffix_of(path)
    if suffix == ".safetensors":
        return open_safetensors(path)
    if suffix == ".gguf":
        return open_gguf(path)
    if suffix == ".npz":
        return open_npz(path)
    if suffix in TORCH_SUFFIXES:
        return open_torch(path)
    raise FormatError(
        f"{path}: not a tensor file that is read; give one that ends in {', '.join(SUFFIXES)}"
    )
