"""`save`: write an adapter in a format that can hold its updates exactly, whole or not at all."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from subspace.adapters.find import CONFIG
from subspace.adapters.formats import cloneofsimo
from subspace.adapters.rotary import refuse_reordered
from subspace.adapters.set_aside import SetAsideReason, group_by_reason
from subspace.adapters.source import some
from subspace.adapters.writers import (
    diffusers as save_diffusers,
)
from subspace.adapters.writers import (
    kohya as save_kohya,
)
from subspace.adapters.writers import (
    loralib as save_loralib,
)
from subspace.adapters.writers import (
    mlx as save_mlx,
)
from subspace.adapters.writers import (
    peft as save_peft,
)
from subspace.adapters.writers.content import refuse_flat_kernels
from subspace.errors import ArgumentError, FormatError
from subspace.files import require_room, write_file, write_folder
from subspace.tensorfiles import TORCH_SUFFIXES, short

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    import torch

    from subspace.adapters.adapter import Adapter
    from subspace.adapters.set_aside import SetAside
    from subspace.adapters.writers.content import Content, Writer

# What `to` and ``--to`` call each.
WRITERS: dict[str, Writer] = {
    "peft": save_peft,
    "mlx": save_mlx,
    "kohya": save_kohya,
    "diffusers": save_diffusers,
    "loralib": save_loralib,
}
_INITIAL = "initial_A.safetensors"


class Written(NamedTuple):
    """What was written where, and what a reader of it ought to know."""

    path: Path
    format: str
    notes: tuple[str, ...]


def save(
    adapter: Adapter,
    path: str | os.PathLike[str],
    to: str = "peft",
    *,
    updates_only: bool = False,
    overwrite: bool = False,
) -> Written:
    """Write an adapter so that its format's own library loads the same updates.

    Factors keep their dtype and their bits wherever the format alone decides the layout. Where it
    stores one scale or one rank for all, the others are folded into B or filled up with zeros, and
    a note says so. Everything is written beside the place and renamed, so that a failure leaves
    what was there.

    Parameters
    ----------
    adapter
        As `load` or `resize` gives it.
    path
        A folder (peft, mlx), or a file that ends in .safetensors (kohya, diffusers; loralib also
        .pt).
    to
        ``"peft"``, ``"mlx"``, ``"kohya"``, ``"diffusers"`` or ``"loralib"``.
    updates_only
        Write the updates alone where the adapter has more that the format does not hold: a head, a
        bias, DoRA's magnitude. Without it that is an error.
    overwrite
        Replace what an earlier call wrote there. A folder that holds anything else is never
        replaced.

    Returns
    -------
    Written
        The place, the format, and notes on what was folded, filled up or left out.

    Raises
    ------
    ArgumentError
        An unknown format, a place that is taken or cannot be written, a suffix that does not fit.
    FormatError
        The format cannot hold something of the adapter: module and reason are named.

    Examples
    --------
    >>> import subspace, tempfile
    >>> adapter = subspace.load("data/adapters/r8-seed0")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     written = save(adapter, f"{folder}/r8.safetensors", "kohya", updates_only=True)
    ...     again = subspace.load(written.path)
    >>> again.format, len(again)
    ('kohya / LyCORIS', 12)
    """
    if to not in WRITERS:
        raise ArgumentError(f"to is {to!r}; what is written: {', '.join(WRITERS)}")
    writer, path = WRITERS[to], Path(path)
    check(path, to, overwrite=overwrite)
    if not adapter.updates:
        raise FormatError(f"adapter {adapter.name!r} has no update that could be written")
    if adapter.format == cloneofsimo.NAME:
        raise FormatError(
            f"{adapter.path or adapter.name}: has numbers in place of its modules' paths, and no "
            "other format could say which they are"
        )
    changed = adapter.layout.base_changed
    if changed and adapter.format != writer.NAME and not updates_only:
        raise FormatError(
            f"{adapter.path or adapter.name}: {changed} changed the base weights before training, "
            f"and {writer.NAME} would add B A to them as they were; have PEFT convert it first "
            "(save_pretrained with path_initial_model_for_weight_conversion), or have it as it is "
            "with --updates-only (updates_only=True)"
        )
    refuse_reordered(adapter, adapter.updates, f"{writer.NAME} is to have")
    flat = refuse_flat_kernels(adapter)
    content = writer.content(adapter, updates_only=updates_only)
    left_out = [
        tensor
        for tensor in adapter.set_aside
        if tensor.name not in content.carried and tensor.reason is not SetAsideReason.OTHER_ADAPTER
    ]
    if left_out and not updates_only:
        raise FormatError(
            f"{adapter.path or adapter.name}: {_reasons(left_out)}; {writer.NAME} as it is written "
            "here holds low-rank updates alone: --updates-only (updates_only=True) writes those "
            "and leaves the rest out"
        )
    notes = [*flat, *content.notes]
    if left_out:
        notes.append(f"left out: {_reasons(left_out)}")
    notes += [note for note in adapter.notes if note not in notes]
    if writer.FOLDER:
        files = {writer.WEIGHTS: _safetensors(content.tensors, _provenance(adapter, content))}
        files[CONFIG] = _json(content.config, adapter)
        if _start_holds(adapter):
            files[_INITIAL] = _safetensors(dict(adapter.initial), {"format": "pt"})
        write_folder(files, path, overwrite=overwrite)
    elif path.suffix in TORCH_SUFFIXES:
        write_file(_pickled(content.tensors), path, overwrite=overwrite)
    else:
        data = _safetensors(content.tensors, _provenance(adapter, content))
        write_file(data, path, overwrite=overwrite)
    return Written(path, writer.NAME, tuple(notes))


def check(path: Path, to: str, *, overwrite: bool = False) -> None:
    """Refuse a place that `save` could not write to, before the work is done.

    Raises
    ------
    ArgumentError
        It is taken, its suffix does not fit, or its parent is no folder.
    """
    writer = WRITERS[to]
    suffixes = (".safetensors", *TORCH_SUFFIXES)
    if writer.FOLDER and path.suffix in suffixes:
        raise ArgumentError(f"{path}: {writer.NAME} is a folder of two files; give a folder's name")
    if not writer.FOLDER and path.suffix not in writer.SUFFIXES:
        raise ArgumentError(
            f"{path}: {writer.NAME} is one file; give a name that ends in "
            f"{' or '.join(writer.SUFFIXES)}"
        )
    ours = {writer.WEIGHTS, CONFIG, _INITIAL} if writer.FOLDER else None
    require_room(path, ours, overwrite=overwrite)


def find_own_format(adapter: Adapter) -> str:
    """Return what `save` calls the adapter's own format, ``"peft"`` where it is not written."""
    return next((key for key, w in WRITERS.items() if adapter.format == w.NAME), "peft")


def _reasons(tensors: list[SetAside]) -> str:
    return "; ".join(
        f"{len(names)} tensor{'s' if len(names) > 1 else ''}, {reason}: {some(names)}"
        for reason, names in group_by_reason(tensors).items()
    )


def _start_holds(adapter: Adapter) -> bool:
    """Whether the stored initial A is still one of these modules and ranks."""
    return bool(adapter.initial) and all(
        module in adapter.updates
        and tuple(start.shape) == (adapter.updates[module].rank, adapter.updates[module].shape[1])
        for module, start in adapter.initial.items()
    )


def _provenance(adapter: Adapter, content: Content) -> dict[str, str]:
    try:
        ours = version("lora-subspace")
    except PackageNotFoundError:  # run from a checkout
        ours = "unknown"
    # The file's name alone: a path tells of the machine that it lay on.
    source = adapter.weights.name if adapter.weights else "memory"
    return {
        "format": "pt",
        "written_by": f"lora-subspace {ours}",
        "written_from": f"{source} ({adapter.format})",
        **content.metadata,
    }


def _json(config: Mapping[str, object] | None, adapter: Adapter) -> bytes:
    try:
        return (json.dumps(config, indent=2, allow_nan=False) + "\n").encode()
    except ValueError:  # of a stranger's config, most of which is written as it was
        raise FormatError(
            f"{adapter.path or adapter.name}: its config holds a number that is not finite, which "
            "is no JSON; mend it"
        ) from None


def _safetensors(tensors: Mapping[str, torch.Tensor], metadata: dict[str, str]) -> bytes:
    from safetensors.torch import save as serialise

    # The library wants each tensor in memory of its own: these are views of a mapped file.
    own = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    for name in own:
        if any("\ud800" <= c <= "\udfff" for c in name):
            raise FormatError(f"tensor {short(name)}: its name is not valid Unicode")
    data: bytes = serialise(own, metadata=metadata)
    # The library writes metadata in another order each time: the same adapter is the same bytes.
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def _pickled(tensors: Mapping[str, torch.Tensor]) -> bytes:
    from io import BytesIO

    import torch

    buffer = BytesIO()
    torch.save({name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}, buffer)
    return buffer.getvalue()
