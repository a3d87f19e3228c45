"""GGUF, its header read here and strictly; tensors are views of the mapped file.

The ``gguf`` package is not used to read a file: it believes the counts, lengths and shapes of a
header, loops as long as they say, and slices what is not there into something shorter. Here each of
them is held against the bytes that the file has before anything is made of it.
"""

from __future__ import annotations

import math
import mmap
import os
import struct
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING

from subspace.errors import FormatError
from subspace.tensorfiles.gguf_quantised import bound_rounding, dequantise
from subspace.tensorfiles.lazy import TensorFile, TensorHeader
from subspace.tensorfiles.untrusted import short

if TYPE_CHECKING:
    from pathlib import Path

    import torch

# A model's vocabulary takes some ten million bytes, an adapter's header some ten thousand.
_LONGEST_HEADER = 64_000_000
_LONGEST_NAME = 65_535  # of a key, as the specification has it
_MOST_DIMENSIONS = 4  # GGML_MAX_DIMS
_STRING, _ARRAY = 8, 9
_SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
# ggml_type -> (torch's name or the quantisation's, elements a block, bytes a block).
_TYPES = {
    0: ("float32", 1, 4),
    1: ("float16", 1, 2),
    28: ("float64", 1, 8),
    30: ("bfloat16", 1, 2),
    24: ("int8", 1, 1),
    25: ("int16", 1, 2),
    26: ("int32", 1, 4),
    27: ("int64", 1, 8),
    2: ("q4_0", 32, 18),
    3: ("q4_1", 32, 20),
    6: ("q5_0", 32, 22),
    7: ("q5_1", 32, 24),
    8: ("q8_0", 32, 34),
    9: ("q8_1", 32, 40),
    10: ("q2_k", 256, 84),
    11: ("q3_k", 256, 110),
    12: ("q4_k", 256, 144),
    13: ("q5_k", 256, 176),
    14: ("q6_k", 256, 210),
    15: ("q8_k", 256, 292),
    16: ("iq2_xxs", 256, 66),
    17: ("iq2_xs", 256, 74),
    18: ("iq3_xxs", 256, 98),
    19: ("iq1_s", 256, 50),
    20: ("iq4_nl", 32, 18),
    21: ("iq3_s", 256, 110),
    22: ("iq2_s", 256, 82),
    23: ("iq4_xs", 256, 136),
    29: ("iq1_m", 256, 56),
    34: ("tq1_0", 256, 54),
    35: ("tq2_0", 256, 66),
    39: ("mxfp4", 32, 17),
    40: ("nvfp4", 64, 36),
    41: ("q1_0", 128, 18),
}
QUANTISED = {
    name: bound_rounding(block, width) for name, block, width in _TYPES.values() if block > 1
}
"""Types of blocks -> what they round off, as a share of the norm."""


def open_gguf(path: Path) -> TensorFile:
    """Read the header of a GGUF file and hold it against the bytes that are there.

    Shapes are in torch's order, the reverse of the file's. `TensorFile.metadata` has every value
    but arrays, as text. Quantised tensors become float32 when they are read, which takes the
    package ``gguf``.

    Raises
    ------
    FormatError
        The file is truncated, of another byte order or version, or its header does not add up.

    Notes
    -----
    Magic, version, counts, key-value pairs, tensor infos, then the tensors' bytes, each padded to
    ``general.alignment`` (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size < 24:
            raise FormatError(f"{path}: {size} bytes are no GGUF file; download it again")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            cursor = _Cursor(path, data, min(size, _LONGEST_HEADER))
            metadata, headers, places = _header(cursor, size)

    def stored(name: str) -> torch.Tensor:
        import torch

        begin, count = places[name]
        mapped = torch.from_file(str(path), shared=False, size=begin + count, dtype=torch.uint8)
        return mapped[begin:]

    # A stack of experts is read once for each: the two last ones stay, a layer's A and B.
    @lru_cache(maxsize=2)
    def floats(name: str) -> torch.Tensor:
        header = headers[name]
        where = f"{path}: tensor {short(name)}"
        return dequantise(stored(name), header.dtype, header.shape, where)

    def read(name: str) -> torch.Tensor:
        import torch

        header, (begin, count) = headers[name], places[name]
        quantised = header.dtype in QUANTISED
        dtype = torch.float32 if quantised else getattr(torch, header.dtype)
        if count == 0:
            return torch.empty(header.shape, dtype=dtype)
        if quantised:
            return floats(name)
        raw = stored(name)
        if begin % dtype.itemsize:
            raw = raw.clone()
        return raw.view(dtype).reshape(header.shape)

    return TensorFile(
        path=path,
        headers=MappingProxyType(headers),
        metadata=MappingProxyType(metadata),
        _read=read,
    )


class _Cursor:
    """A place in the header that never leaves it."""

    def __init__(self, path: Path, data: mmap.mmap, end: int) -> None:
        self.path, self.data, self.end, self.at = path, data, end, 0

    def take(self, count: int, what: str) -> int:
        """Step over `count` bytes; return where they begin."""
        if count > self.end - self.at:
            raise FormatError(
                f"{self.path}: its header ends within {what} (byte {self.at}); the file is "
                "truncated or no sound GGUF: download it again"
            )
        begin = self.at
        self.at += count
        return begin

    def number(self, format: str, what: str) -> int | float | bool:
        begin = self.take(struct.calcsize(format), what)
        value: int | float | bool = struct.unpack_from("<" + format, self.data, begin)[0]
        return value

    def whole(self, format: str, what: str) -> int:
        return int(self.number(format, what))

    def count(self, smallest: int, what: str) -> int:
        """Read how many of something there are, each of which takes `smallest` bytes."""
        count = self.whole("Q", what)
        if count * smallest > self.end - self.at:
            raise FormatError(
                f"{self.path}: claims {count} {what}, more than its {self.end} bytes can hold"
            )
        return count

    def string(self, longest: int, what: str) -> str:
        length = self.whole("Q", what)
        begin = self.take(length, what)
        if length > longest:
            raise FormatError(f"{self.path}: {what} has {length} bytes")
        try:
            return self.data[begin : begin + length].decode()
        except UnicodeDecodeError as error:
            raise FormatError(f"{self.path}: {what} is not UTF-8 ({error})") from None

    def skip_strings(self, count: int, what: str) -> None:
        # A vocabulary has hundreds of thousands of them.
        at, length = self.at, struct.Struct("<Q").unpack_from
        for _ in range(count):
            if at + 8 > self.end:
                break
            at += 8 + length(self.data, at)[0]
        else:
            self.take(at - self.at, what)
            return
        self.take(self.end + 1, what)


def _header(
    cursor: _Cursor, size: int
) -> tuple[dict[str, str], dict[str, TensorHeader], dict[str, tuple[int, int]]]:
    path = cursor.path
    magic = cursor.data[: cursor.take(4, "its magic") + 4]
    if magic != b"GGUF":
        raise FormatError(f"{path}: begins with {magic!r}, not with GGUF; download it again")
    version = cursor.whole("I", "its version")
    if version not in (2, 3):
        order = " (big-endian, which is not read)" if version & 0xFFFF == 0 else ""
        raise FormatError(f"{path}: GGUF version {version}{order}; versions 2 and 3 are read")
    tensors = cursor.count(24, "tensors")  # at least a name's length, dimensions, type, offset
    pairs = cursor.count(13, "key-value pairs")
    metadata: dict[str, str] = {}
    keys: set[str] = set()
    for _ in range(pairs):
        key = cursor.string(_LONGEST_NAME, "a key")
        if key in keys:
            raise FormatError(f"{path}: the key {short(key)} is there twice; the file is not sound")
        keys.add(key)
        value = _value(cursor, key)
        if value is not None:
            metadata[key] = value
    alignment = _alignment(path, metadata.get("general.alignment", "32"))
    headers: dict[str, TensorHeader] = {}
    spans = {}
    for _ in range(tensors):
        name = cursor.string(_LONGEST_NAME, "a tensor's name")
        if name in headers:
            raise FormatError(f"{path}: tensor {short(name)} is there twice; the file is not sound")
        headers[name], spans[name] = _tensor(cursor, name)
    start = -(-cursor.at // alignment) * alignment
    _in_order(path, spans, alignment, start, size)
    return metadata, headers, {name: (start + at, count) for name, (at, count) in spans.items()}


def _value(cursor: _Cursor, key: str) -> str | None:
    """Read a value as text; step over an array."""
    what = f"the value of {short(key)}"
    kind = cursor.whole("I", what)
    if kind in _SCALARS:
        return str(cursor.number(_SCALARS[kind], what))
    if kind == _STRING:
        return cursor.string(_LONGEST_HEADER, what)
    if kind != _ARRAY:
        raise FormatError(f"{cursor.path}: {what} is of the unknown type {kind}")
    inner = cursor.whole("I", what)
    if inner in _SCALARS:
        each = struct.calcsize(_SCALARS[inner])
        cursor.take(cursor.count(each, f"elements of {short(key)}") * each, what)
    elif inner == _STRING:
        cursor.skip_strings(cursor.count(8, f"elements of {short(key)}"), what)
    else:
        raise FormatError(f"{cursor.path}: {what} is an array of the type {inner}, which is none")
    return None


def _alignment(path: Path, text: str) -> int:
    alignment = int(text) if text.isdecimal() else 0
    if alignment < 1 or alignment & (alignment - 1) or alignment > 2**20:
        raise FormatError(f"{path}: general.alignment = {short(text)} is not a power of two")
    return alignment


def _tensor(cursor: _Cursor, name: str) -> tuple[TensorHeader, tuple[int, int]]:
    what = f"{cursor.path}: tensor {short(name)}"
    dimensions = cursor.whole("I", what)
    if dimensions > _MOST_DIMENSIONS:
        raise FormatError(f"{what}: {dimensions} dimensions, at most {_MOST_DIMENSIONS} can be")
    stored = [cursor.whole("Q", what) for _ in range(dimensions)]  # fastest first
    kind, offset = cursor.whole("I", what), cursor.whole("Q", what)
    if kind not in _TYPES:
        raise FormatError(f"{what}: unknown type {kind}")
    if any(n >= 2**63 for n in stored):
        raise FormatError(f"{what}: shape {short(stored)} is not a list of sizes")
    dtype, block, width = _TYPES[kind]
    if (stored[0] if stored else 1) % block:
        raise FormatError(f"{what}: rows of {stored[0]} are not blocks of {block} ({dtype})")
    return TensorHeader(tuple(reversed(stored)), dtype), (
        offset,
        math.prod(stored) // block * width,
    )


def _in_order(
    path: Path, spans: dict[str, tuple[int, int]], alignment: int, start: int, size: int
) -> None:
    at = end = 0
    for name, (offset, count) in spans.items():
        if offset != at:
            raise FormatError(
                f"{path}: tensor {short(name)} begins at byte {offset} of the data, expected {at}"
            )
        end = offset + count
        if start + end > size:
            raise FormatError(
                f"{path}: tensor {short(name)} ends at byte {short(start + end)} of {size}; the "
                "file is truncated: download it again"
            )
        at = -(-end // alignment) * alignment
    if spans and start + at < size:
        raise FormatError(f"{path}: {size - start - at} bytes at the end belong to no tensor")
