"""torch files, looked through without torch and then opened with ``weights_only=True`` alone."""

from __future__ import annotations

import pickletools
import zipfile
from types import MappingProxyType
from typing import TYPE_CHECKING

from subspace.errors import FormatError, MissingExtraError
from subspace.tensorfiles.lazy import TensorFile, TensorHeader
from subspace.tensorfiles.untrusted import RESAVE, short

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch

# All that a state dict of plain tensors names in its pickle; anything else wants to run code.
_PICKLED = frozenset(
    {
        "collections OrderedDict",
        "torch._utils _rebuild_tensor_v2",
        "torch._utils _rebuild_parameter",
        "torch._utils _rebuild_parameter_with_state",
        "torch Size",  # DeepSpeed's shapes, beside the weights
    }
)

# Where training scripts keep the weights in a checkpoint, beside the optimizer's state.
_NESTS = ("state_dict", "model_state_dict", "model", "module")


def open_torch(path: Path) -> TensorFile:
    """Open a torch file; its tensors are views of the mapped file.

    It holds a dict of tensors, or a training checkpoint with one such dict at ``state_dict``,
    ``model_state_dict``, ``model`` or ``module``; the rest of a checkpoint is left alone, and
    `TensorFile.metadata` says under ``"entry"`` which it was.

    Raises
    ------
    FormatError
        Not a zip of stored entries, a pickle of more than plain tensors, or a tensor that claims
        more than the bytes that are there.
    MissingExtraError
        torch is missing, or older than 2.10.
    """
    _look_before_loading(path)
    tensors, entry = _load_torch(path)
    headers = {
        name: TensorHeader(tuple(t.shape), str(t.dtype).removeprefix("torch."))
        for name, t in tensors.items()
    }
    metadata = MappingProxyType({} if entry is None else {"entry": entry})
    return TensorFile(
        path=path, headers=MappingProxyType(headers), metadata=metadata, _read=tensors.__getitem__
    )


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
            f"{RESAVE}"
        ) from None
    with archive:
        entries = archive.infolist()
        size = path.stat().st_size
        for entry in entries:
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
                raise FormatError(f"{path}: entry {short(entry.filename)} is compressed; {RESAVE}")
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
                f"never does; nothing of it was run. If you trust the source, {RESAVE}"
            )


def _names(op: str) -> bool:
    return "GLOBAL" in op or op in {"INST", "OBJ", "EXT1", "EXT2", "EXT4"}


def _load_torch(path: Path) -> tuple[dict[str, torch.Tensor], str | None]:
    try:
        import torch
    except ImportError:
        raise MissingExtraError(
            f"{path}: reading a torch file needs torch >= 2.10; install it, or {RESAVE}"
        ) from None
    release = tuple(int(n) for n in torch.__version__.split("+")[0].split(".")[:2])
    if release < (2, 10):
        raise MissingExtraError(
            f"{path}: torch {torch.__version__} has known holes in reading pickles; "
            f"upgrade to torch >= 2.10, or {RESAVE}"
        )
    try:
        loaded = torch.load(path, weights_only=True, mmap=True, map_location="cpu")
    except Exception as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise FormatError(f"{path}: torch refuses to read it ({first}); {RESAVE}") from None
    if isinstance(loaded, list):  # cloneofsimo/lora; a list has places for names
        loaded = {str(place): tensor for place, tensor in enumerate(loaded)}
    if not isinstance(loaded, dict):
        raise FormatError(f"{path}: holds a {type(loaded).__name__}, not a dict of tensors")
    entry = _nest(path, loaded)
    if entry is not None:
        loaded = loaded[entry]
    loaded = {name: _as_tensor(value) for name, value in loaded.items()}
    for name, tensor in loaded.items():
        where = f"{path}: entry {short(name)}"
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise FormatError(f"{where} is a {type(tensor).__name__}, not a tensor; {RESAVE}")
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
            raise FormatError(f"{where} is not a plain dense tensor; {RESAVE}")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise FormatError(
                f"{where} claims shape {tuple(tensor.shape)}, more than the bytes that are there"
            )
    return {name: tensor.detach() for name, tensor in loaded.items()}, entry


def _as_tensor(value: object) -> object:
    """Make a tensor of a plain number, such as an alpha or a step; leave anything else."""
    import torch

    return torch.tensor(value) if type(value) in (int, float, bool) else value


def _nest(path: Path, loaded: Mapping[str, object]) -> str | None:
    nests = [name for name in _NESTS if isinstance(loaded.get(name), dict) and loaded[name]]
    if len(nests) > 1:
        raise FormatError(
            f"{path}: a checkpoint with weights at {' and at '.join(nests)}; save one of them alone"
        )
    return nests[0] if nests else None
