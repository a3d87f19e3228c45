"""safetensors, its header read here and strictly, its tensors by the library.

The library takes the last of two equal keys; here they are refused. The header is read without
torch or numpy, so that looking at a file costs nothing.
"""

from __future__ import annotations

import math
import os
import struct
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from subspace.errors import FormatError
from subspace.tensorfiles.lazy import TensorFile, TensorHeader
from subspace.tensorfiles.untrusted import RESAVE, parse_json_object, short

if TYPE_CHECKING:
    from pathlib import Path

    import torch

# The library's own limit on a header: https://github.com/huggingface/safetensors (MAX_HEADER_SIZE).
_LONGEST_HEADER = 100_000_000
# Name in a safetensors header -> (torch's name, bits an element).
_DTYPES = {
    "BOOL": ("bool", 8),
    "U8": ("uint8", 8),
    "I8": ("int8", 8),
    "U16": ("uint16", 16),
    "I16": ("int16", 16),
    "U32": ("uint32", 32),
    "I32": ("int32", 32),
    "U64": ("uint64", 64),
    "I64": ("int64", 64),
    "F4": ("float4_e2m1fn_x2", 4),
    "F6_E2M3": ("float6_e2m3", 6),
    "F6_E3M2": ("float6_e3m2", 6),
    "F8_E5M2": ("float8_e5m2", 8),
    "F8_E4M3": ("float8_e4m3fn", 8),
    "F8_E8M0": ("float8_e8m0fnu", 8),
    "F16": ("float16", 16),
    "BF16": ("bfloat16", 16),
    "F32": ("float32", 32),
    "F64": ("float64", 64),
    "C64": ("complex64", 64),
}
# torch's name -> struct's code of one element; bfloat16 is the upper half of a float32.
_CODES = {
    "float64": "<d",
    "float32": "<f",
    "float16": "<e",
    "bfloat16": "<f",
    "uint8": "<B",
    "int8": "<b",
    "int16": "<h",
    "int32": "<i",
    "int64": "<q",
}


def open_safetensors(path: Path) -> TensorFile:
    """Read the header of a safetensors file and hold it against the bytes that are there.

    Raises
    ------
    FormatError
        The file is truncated, another format, or its header does not add up.

    Notes
    -----
    8 bytes little-endian header length, a JSON object name -> dtype, shape, data_offsets, then
    the tensors' bytes without gap or overlap (https://github.com/huggingface/safetensors).
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(8)
        if len(start) < 8:
            raise FormatError(f"{path}: {size} bytes are no safetensors file; download it again")
        length = int.from_bytes(start, "little")
        if length > size - 8 or length > _LONGEST_HEADER:
            # Read as a length, the first bytes of these are absurd; a sound length is never these.
            if start.startswith((b"PK\x03\x04", *(bytes([0x80, n]) for n in range(2, 6)))):
                raise FormatError(
                    f"{path}: a torch pickle that calls itself .safetensors; {RESAVE}"
                )
            if start.startswith(b"GGUF"):
                raise FormatError(f"{path}: a GGUF file that calls itself .safetensors")
            raise FormatError(
                f"{path}: claims a header of {length} bytes in a file of {size}; "
                "it is truncated or not safetensors: download it again"
            )
        text = file.read(length)
    if not text.startswith(b"{"):
        raise FormatError(f"{path}: its header is not a JSON object; not a safetensors file")
    entries = parse_json_object(text, f"{path}: header")
    metadata = entries.pop("__metadata__", None) or {}  # MLX writes null
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise FormatError(f"{path}: __metadata__ is not a mapping of strings")
    headers, spans = {}, []
    for name, entry in entries.items():
        headers[name], span = _safetensors_entry(f"{path}: tensor {short(name)}", name, entry)
        spans.append((*span, name))
    _without_gap(path, spans, size - 8 - length)

    @cache
    def handle() -> Any:  # noqa: ANN401 - the library publishes no type for it
        from safetensors import safe_open

        opened: Any = safe_open(str(path), framework="pt", device="cpu")
        return opened.__enter__()

    def read(name: str) -> torch.Tensor:
        try:
            tensor: torch.Tensor = handle().get_tensor(name)
        except Exception as error:
            raise FormatError(f"{path}: tensor {short(name)} cannot be read ({error})") from error
        return tensor

    places = {name: (begin, end) for begin, end, name in spans}

    def number(name: str) -> float | None:
        begin, end = places[name]
        header = headers[name]
        if header.dtype not in _CODES or math.prod(header.shape) != 1:
            return None
        with path.open("rb") as file:
            file.seek(8 + length + begin)
            data = file.read(end - begin)
        if len(data) < end - begin:
            raise FormatError(f"{path}: tensor {short(name)} cannot be read (the file has shrunk)")
        code = _CODES[header.dtype]
        return float(struct.unpack(code, data.rjust(struct.calcsize(code), b"\0"))[0])

    return TensorFile(
        path=path,
        headers=MappingProxyType(headers),
        metadata=MappingProxyType(metadata),
        _read=read,
        _number=number,
    )


def _safetensors_entry(
    where: str, name: str, entry: object
) -> tuple[TensorHeader, tuple[int, int]]:
    if not name.isascii() and any("\ud800" <= c <= "\udfff" for c in name):
        raise FormatError(f"{where}: its name is not valid Unicode")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise FormatError(f"{where}: its header must hold dtype, shape and data_offsets alone")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise FormatError(f"{where}: unknown dtype {short(dtype)}")
    if not _whole(shape):
        raise FormatError(f"{where}: shape {short(shape)} is not a list of sizes")
    if not _whole(offsets) or len(offsets) != 2:
        raise FormatError(f"{where}: data_offsets {short(offsets)} are not two positions")
    stored, bits = _DTYPES[dtype]
    begin, end = offsets
    wanted = math.prod(shape) * bits
    if wanted != 8 * (end - begin):
        raise FormatError(
            f"{where}: {dtype} of shape {short(shape)} takes {short(wanted // 8)} bytes, "
            f"data_offsets give {end - begin}"
        )
    return TensorHeader(tuple(shape), stored), (begin, end)


def _whole(value: object) -> bool:
    # bool is an int to Python; the library counts in 64 bits.
    return (
        isinstance(value, list)
        and len(value) <= 64
        and all(type(n) is int and 0 <= n < 2**63 for n in value)
    )


def _without_gap(path: Path, spans: list[tuple[int, int, str]], size: int) -> None:
    at = 0
    for begin, end, name in sorted(spans):
        if begin != at:
            what = "overlaps another" if begin < at else "leaves a hole before it"
            raise FormatError(f"{path}: tensor {short(name)} {what} (byte {begin}, expected {at})")
        at = end
        if at > size:
            raise FormatError(
                f"{path}: tensor {short(name)} ends at byte {at} of {size}; the file is truncated: "
                "download it again"
            )
    if at != size:
        raise FormatError(f"{path}: {size - at} bytes at the end belong to no tensor")
