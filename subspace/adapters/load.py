"""`load`: find an adapter's files, and ask each format whether they are its own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from subspace.adapters import peft
from subspace.errors import FormatError, MissingFileError
from subspace.tensorfiles import SUFFIXES, TensorFile, inside, open_tensors, read_json, short

if TYPE_CHECKING:
    from collections.abc import Mapping

    from subspace.adapters.adapter import Adapter


class Format(Protocol):
    """What a format's file holds; the first in `FORMATS` that claims an adapter reads it."""

    def check_config(self, config: Mapping[str, Any], where: str) -> None:
        """Refuse a config before the weights are opened."""

    def claims(self, config: Mapping[str, Any] | None, tensors: TensorFile) -> bool:
        """Say whether config and tensor names are of this format."""

    def read(
        self,
        name: str,
        path: Path,
        where: str,
        config: Mapping[str, Any],
        tensors: TensorFile,
        *,
        initial: TensorFile | None,
        adapter_name: str | None,
    ) -> Adapter:
        """Make an `Adapter` from headers alone."""


FORMATS: tuple[Format, ...] = (peft,)

CONFIG = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
# Endings and parts of tensor names that betray a format that is not read yet.
_SIGNS = (
    (".lora_down.weight", "kohya / LyCORIS LoRA"),
    (".lokr_w", "LyCORIS or PEFT LoKr"),
    (".hada_w", "LyCORIS or PEFT LoHa"),
    (":down", "cloneofsimo/lora"),
    ("_lora.down.weight", "old diffusers LoRA"),
    ("vera_lambda_", "PEFT VeRA"),
    (".lora_a.weight", "torchtune"),
    (".lora_a", "MLX"),
    (".lora_A", "loralib"),
    (".adapter.linear_in.weight", "Megatron / NeMo"),
)


class Place(NamedTuple):
    """Where an adapter's files are. `config` is None where there is no such file."""

    name: str
    folder: Path
    weights: Path
    config: Path | None
    adapter_name: str | None = None  # still to be looked for, in the tensors' names


def load(path: str | os.PathLike[str], *, adapter_name: str | None = None) -> Adapter:
    """Open a trained adapter; its tensors are read when a module is first asked for.

    Parameters
    ----------
    path
        A folder as PEFT's ``save_pretrained`` writes it (``adapter_config.json`` beside
        ``adapter_model.safetensors`` or ``adapter_model.bin``), or the weights file in one.
    adapter_name
        Which adapter, where a folder or file holds several: PEFT saves each but the default
        into a subfolder of its name.

    Returns
    -------
    Adapter
        Module path -> `LowRankUpdate`, in the model's own order.

    Raises
    ------
    MissingFileError
        No such path, or the folder lacks the weights or the config.
    FormatError
        A file is damaged or hostile, its parts do not fit together, or its format is not read.
    """
    place = find(Path(path), adapter_name)
    config = read_json(place.config) if place.config else None
    if config is not None:
        for format in FORMATS:
            format.check_config(config, str(place.config))
    tensors = open_tensors(place.weights)
    for format in FORMATS:
        if format.claims(config, tensors):
            if config is None:
                raise MissingFileError(
                    f"{place.folder}: {place.weights.name} has no {CONFIG} beside it, which holds "
                    "lora_alpha and so the scale; copy it from where the weights came from"
                )
            initial = place.folder / "initial_A.safetensors"
            return format.read(
                place.name,
                Path(path),
                str(place.config),
                config,
                tensors,
                initial=open_tensors(initial) if initial.exists() else None,
                adapter_name=place.adapter_name,
            )
    raise FormatError(f"{place.weights}: {_recognised(tensors)}; what is read: PEFT LoRA")


def find(path: Path, adapter_name: str | None = None) -> Place:
    """Find an adapter's files, from names in the folder alone.

    Raises
    ------
    MissingFileError
        No such path, or no adapter in it.
    FormatError
        Not a weights file, or several adapters in subfolders.
    """
    try:
        there, folder = path.exists(), path.is_dir()
    except (OSError, ValueError) as error:
        raise MissingFileError(f"{short(str(path))}: cannot be looked at ({error})") from None
    if not there:
        raise MissingFileError(
            f"no such file or folder (nothing is downloaded, give a local path): {path}"
        )
    if not folder:
        if path.suffix not in SUFFIXES:
            raise FormatError(
                f"{path}: not a weights file; give the adapter's folder or a file that ends in "
                f"{', '.join(SUFFIXES)}"
            )
        found = _beside(_name(path.parent), path.parent, path)
        return found._replace(adapter_name=adapter_name)
    if not os.access(path, os.R_OK | os.X_OK):
        raise MissingFileError(f"{path}: cannot be read, permission denied")
    name = _name(path)
    if adapter_name is not None:
        sub = inside(path, adapter_name)
        if (sub / CONFIG).is_file():
            return _in_folder(f"{name}/{adapter_name}", sub)
    elif not (path / CONFIG).exists() and not any((path / w).exists() for w in WEIGHTS):
        subs = sorted(sub.name for sub in path.iterdir() if (sub / CONFIG).is_file())
        if len(subs) == 1:
            return _in_folder(f"{name}/{subs[0]}", path / subs[0])
        if subs:
            raise FormatError(
                f"{path}: holds {len(subs)} adapters in subfolders ({', '.join(subs[:8])}"
                f"{', …' if len(subs) > 8 else ''}); give one of them"
            )
    return _in_folder(name, path)._replace(adapter_name=adapter_name)


def _name(folder: Path) -> str:
    folder = folder.resolve() if folder.name in {"", ".."} else folder.absolute()
    alone = not folder.name.startswith("checkpoint-")  # of the trainer: every run has these
    return folder.name if alone else f"{folder.parent.name}/{folder.name}"


def _in_folder(name: str, folder: Path) -> Place:
    for weights in WEIGHTS:
        if (folder / weights).exists():
            return _beside(name, folder, folder / weights)
    others = sorted(p for p in folder.iterdir() if p.suffix in SUFFIXES and p.is_file())
    others = [p for p in others if p.name != "initial_A.safetensors"]
    named = [p for p in others if p.name == "adapters.safetensors"] or others  # MLX's own
    if len(named) == 1 and "model" not in named[0].stem:
        return _beside(name, folder, named[0])
    if (folder / CONFIG).exists():
        raise MissingFileError(
            f"{folder}: has {CONFIG} but no weights; {' or '.join(WEIGHTS)} should be beside it"
        )
    found = f"; it holds {', '.join(p.name for p in others[:4])}" if others else ""
    whole = " (a whole model is no adapter)" if (folder / "config.json").exists() else ""
    raise MissingFileError(f"{folder}: no adapter here: no {CONFIG}, no {WEIGHTS[0]}{found}{whole}")


def _beside(name: str, folder: Path, weights: Path) -> Place:
    config = folder / CONFIG
    return Place(name, folder, weights, config if config.exists() else None)


def _recognised(tensors: TensorFile) -> str:
    for sign, format in _SIGNS:
        if any(sign in name for name in tensors):
            return f"looks like {format}, a format that is not read yet"
    some: list[Any] = list(tensors)[:3]
    return f"no LoRA factors among its {len(tensors)} tensors" + (
        f" ({', '.join(map(repr, some))}, …)" if some else ""
    )
