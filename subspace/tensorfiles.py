"""A tensor file as a lazy, safe, read-only mapping from name to tensor.

`open_tensors` reads headers; a tensor is read when it is first asked for. Files come from
strangers: nothing in them is run, nothing is allocated on their word, and everything that a
header says is checked against the bytes that are there. A safetensors header is read without
torch; a torch file needs torch for that, and is opened with ``weights_only=True`` alone.
"""

from __future__ import annotations

import json
import math
import os
import pickletools
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from subspace.errors import ArgumentError, FormatError, MissingExtraError, MissingFileError

if TYPE_CHECKING:
    import torch

TORCH_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt")
SUFFIXES = (".safetensors", *TORCH_SUFFIXES)

# The library's own limit on a header: https://github.com/huggingface/safetensors (MAX_HEADER_SIZE).
_LONGEST_HEADER = 100_000_000
_LONGEST_JSON = 64_000_000
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
# All that a state dict of plain tensors names in its pickle; anything else wants to run code.
_PICKLED = frozenset(
    {
        "collections OrderedDict",
        "torch._utils _rebuild_tensor_v2",
        "torch._utils _rebuild_parameter",
        "torch._utils _rebuild_parameter_with_state",
    }
)
_RESAVE = "re-save it with safetensors.torch.save_file, or torch.save of a dict of plain tensors"


@dataclass(frozen=True)
class TensorHeader:
    """What a file says of one tensor before its bytes are read."""

    shape: tuple[int, ...]
    dtype: str  # torch's name without "torch."


@dataclass(frozen=True, eq=False)
class TensorFile(Mapping[str, "torch.Tensor"]):
    """A read-only mapping from tensor name to a CPU tensor in its stored dtype, read when asked.

    Tensors are views of the mapped file: treat them as read-only.
    """

    path: Path
    headers: Mapping[str, TensorHeader]
    metadata: Mapping[str, str]  # safetensors' ``__metadata__``; empty for a torch file
    _read: Callable[[str], torch.Tensor] = field(repr=False)

    def __getitem__(self, name: str) -> torch.Tensor:
        if name not in self.headers:
            raise KeyError(name)
        return self._read(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.headers)

    def __len__(self) -> int:
        return len(self.headers)

    def __contains__(self, name: object) -> bool:
        return name in self.headers  # Mapping's own would read the tensor


def open_tensors(path: str | os.PathLike[str]) -> TensorFile:
    """Open a tensor file by its suffix and read its headers.

    Parameters
    ----------
    path
        A ``.safetensors`` file, or a torch file (``.bin``, ``.pt``, ``.pth``, ``.ckpt``).

    Returns
    -------
    TensorFile
        In the file's own order. A safetensors file costs its header alone and imports no torch.

    Raises
    ------
    MissingFileError
        There is no such regular file.
    FormatError
        The file is damaged or hostile, or its suffix is none of the above.

    Notes
    -----
    safetensors: 8 bytes little-endian header length, a JSON object name -> dtype, shape,
    data_offsets, then the tensors' bytes without gap or overlap.
    """
    path = Path(path)
    _regular(path)
    if path.suffix == ".safetensors":
        return _open_safetensors(path)
    if path.suffix in TORCH_SUFFIXES:
        return _open_torch(path)
    raise FormatError(
        f"{path}: not a tensor file that is read; give one that ends in {', '.join(SUFFIXES)}"
    )


def inside(folder: Path, name: str) -> Path:
    """Join a name that came from a file or an option to a folder that it must not leave.

    Raises
    ------
    ArgumentError
        `name` is more than one path component, or ``..``.

    >>> inside(Path("run"), "student").name
    'student'
    """
    if name in {"", ".", ".."} or any(c in name for c in "/\\\0:"):
        raise ArgumentError(f"{short(name)} is not a plain name: nothing outside {folder} is read")
    return folder / name


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a small file of a stranger.

    Raises
    ------
    MissingFileError
        There is no such regular file.
    FormatError
        Not UTF-8 JSON, not an object, a key twice, nested too deep, or larger than 64 MB.
    """
    _regular(path)
    if path.stat().st_size > _LONGEST_JSON:
        raise FormatError(f"{path}: larger than {_LONGEST_JSON:_} bytes, which no config is")
    return _json_object(path.read_bytes(), f"{path}")


def short(value: object) -> str:
    """Return the repr of a stranger's value, cut so that a message keeps its end.

    >>> short("x" * 1000) == "'" + "x" * 148 + "…" + "x" * 48 + "'"
    True
    """
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:149]}…{text[-49:]}"


def _regular(path: Path) -> None:
    # A device or a pipe in a stranger's folder could be read forever.
    try:
        found, regular = path.exists(), path.is_file()
    except (OSError, ValueError) as error:
        raise MissingFileError(f"{path}: cannot be looked at ({error})") from None
    if not found:
        raise MissingFileError(f"{path}: no such file")
    if not regular:
        raise MissingFileError(f"{path}: not a regular file")


def _json_object(text: bytes, where: str) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        out = dict(pairs)
        if len(out) < len(pairs):
            counts = Counter(key for key, _ in pairs)
            raise FormatError(
                f"{where}: the key {short(counts.most_common(1)[0][0])} is there twice; "
                "the file is not sound"
            )
        return out

    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=once)
    except RecursionError:
        raise FormatError(f"{where}: JSON nested too deep to be sound") from None
    except FormatError:
        raise
    except ValueError as error:  # covers UnicodeDecodeError and JSONDecodeError
        raise FormatError(f"{where}: not valid JSON ({error})") from None
    if not isinstance(value, dict):
        raise FormatError(f"{where}: a JSON object is wanted, found {type(value).__name__}")
    return value


def _open_safetensors(path: Path) -> TensorFile:
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
                    f"{path}: a torch pickle that calls itself .safetensors; {_RESAVE}"
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
    entries = _json_object(text, f"{path}: header")
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

    return TensorFile(path, MappingProxyType(headers), MappingProxyType(metadata), read)


def _safetensors_entry(
    where: str, name: str, entry: object
) -> tuple[TensorHeader, tuple[int, int]]:
    if any("\ud800" <= c <= "\udfff" for c in name):
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


def _open_torch(path: Path) -> TensorFile:
    _look_before_loading(path)
    tensors = _load_torch(path)
    headers = {
        name: TensorHeader(tuple(t.shape), str(t.dtype).removeprefix("torch."))
        for name, t in tensors.items()
    }
    return TensorFile(path, MappingProxyType(headers), {}, tensors.__getitem__)


def _look_before_loading(path: Path) -> None:
    """Refuse, without torch, what torch would have to trust: the zip's sizes, the pickle's names.

    A zip of stored entries holds every byte that it claims; a legacy pickle and a deflated entry
    allocate on the file's word.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise FormatError(
            f"{path}: not a zip that torch.save writes ({error}); damaged, or of torch < 1.6: "
            f"{_RESAVE}"
        ) from None
    with archive:
        entries = archive.infolist()
        size = path.stat().st_size
        for entry in entries:
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
                raise FormatError(f"{path}: entry {short(entry.filename)} is compressed; {_RESAVE}")
        if sum(entry.file_size for entry in entries) > size:
            raise FormatError(f"{path}: its entries claim more bytes than the file has")
        pickles = [e for e in entries if e.filename.split("/")[-1] == "data.pkl"]
        if len(pickles) != 1:
            raise FormatError(f"{path}: holds {len(pickles)} entries data.pkl, one is wanted")
        try:
            program = archive.read(pickles[0])
            names = {str(arg) for op, arg, _ in pickletools.genops(program) if _names(op.name)}
        except Exception as error:
            raise FormatError(f"{path}: its pickle is damaged ({error})") from None
    for name in sorted(names - _PICKLED):
        module, _, attribute = name.partition(" ")
        if not (module == "torch" and attribute.endswith("Storage") and attribute.isalnum()):
            raise FormatError(
                f"{path}: its pickle names {name.replace(' ', '.')}, which a file of plain tensors "
                f"never does; nothing of it was run. If you trust the source, {_RESAVE}"
            )


def _names(op: str) -> bool:
    return "GLOBAL" in op or op in {"INST", "OBJ", "EXT1", "EXT2", "EXT4"}


def _load_torch(path: Path) -> dict[str, torch.Tensor]:
    try:
        import torch
    except ImportError:
        raise MissingExtraError(
            f"{path}: reading a torch file needs torch >= 2.10; install it, or {_RESAVE}"
        ) from None
    release = tuple(int(n) for n in torch.__version__.split("+")[0].split(".")[:2])
    if release < (2, 10):
        raise MissingExtraError(
            f"{path}: torch {torch.__version__} has known holes in reading pickles; "
            f"upgrade to torch >= 2.10, or {_RESAVE}"
        )
    try:
        loaded = torch.load(path, weights_only=True, mmap=True, map_location="cpu")
    except Exception as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise FormatError(f"{path}: torch refuses to read it ({first}); {_RESAVE}") from None
    if not isinstance(loaded, dict):
        raise FormatError(f"{path}: holds a {type(loaded).__name__}, not a dict of tensors")
    for name, tensor in loaded.items():
        where = f"{path}: entry {short(name)}"
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise FormatError(f"{where} is a {type(tensor).__name__}, not a tensor; {_RESAVE}")
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
            raise FormatError(f"{where} is not a plain dense tensor; {_RESAVE}")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise FormatError(
                f"{where} claims shape {tuple(tensor.shape)}, more than the bytes that are there"
            )
    return {name: tensor.detach() for name, tensor in loaded.items()}
