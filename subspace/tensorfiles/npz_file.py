"""numpy's ``.npz``, a zip of arrays, as MLX's first examples saved adapters: read entry by entry.

Only stored entries are read, as numpy's ``savez`` writes them, so that an entry holds every byte
that it claims; arrays of Python objects, which numpy would unpickle, are refused by their dtype.
"""

from __future__ import annotations

import math
import zipfile
from types import MappingProxyType
from typing import TYPE_CHECKING

from subspace.errors import FormatError
from subspace.tensorfiles.lazy import TensorFile, TensorHeader
from subspace.tensorfiles.untrusted import RESAVE, short

if TYPE_CHECKING:
    from pathlib import Path

    import torch

_DTYPES = frozenset(
    {"float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool"}
)


def open_npz(path: Path) -> TensorFile:
    """Read the header of every array in the file.

    Raises
    ------
    FormatError
        No zip of stored arrays, an array of another dtype, or one that claims more than its bytes.
    """
    from numpy.lib import format as npy

    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise FormatError(f"{path}: not a zip that numpy.savez writes ({error})") from None
    headers: dict[str, TensorHeader] = {}
    with archive:
        for entry in archive.infolist():
            name = entry.filename.removesuffix(".npy")
            where = f"{path}: array {short(name)}"
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
                raise FormatError(f"{where} is compressed; save it with numpy.savez, or {RESAVE}")
            try:
                with archive.open(entry) as file:
                    version = npy.read_magic(file)
                    read = npy.read_array_header_1_0 if version == (1, 0) else None
                    shape, fortran, dtype = (read or npy.read_array_header_2_0)(file)
                    begin = file.tell()
            except (ValueError, OSError, zipfile.BadZipFile, EOFError) as error:
                raise FormatError(f"{where} is no array ({error})") from None
            if dtype.name not in _DTYPES or fortran or not dtype.isnative:
                raise FormatError(f"{where} holds {short(str(dtype))}; {RESAVE}")
            if begin + math.prod(shape) * dtype.itemsize != entry.file_size:
                raise FormatError(f"{where} claims shape {shape}, which its bytes are not")
            headers[name] = TensorHeader(tuple(int(n) for n in shape), dtype.name)

    def read_array(name: str) -> torch.Tensor:
        import numpy as np
        import torch

        with np.load(path, allow_pickle=False) as arrays:
            return torch.from_numpy(arrays[name])

    return TensorFile(
        path=path,
        headers=MappingProxyType(headers),
        metadata=MappingProxyType({}),
        _read=read_array,
    )
