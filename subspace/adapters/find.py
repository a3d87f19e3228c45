"""Where an adapter's files are, told from the names in its folder alone."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, NamedTuple

from subspace.adapters.source import some
from subspace.errors import FormatError, MissingFileError
from subspace.tensorfiles import INDEX_SUFFIXES, SUFFIXES, join_inside, read_json, short, suffix_of

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
# Other writers' names of the file that counts where a folder has several.
_OTHERS = (
    "adapters.safetensors",  # MLX-LM, beside its checkpoints
    "adapter_model.pt",  # torchtune
    "pytorch_lora_weights.safetensors",  # diffusers
    "pytorch_lora_weights.bin",
    "pytorch_adapter.bin",  # AdapterHub, beside a head's
    "adapter.safetensors",
)
# What a training writes beside an adapter, of modules that it trained in full.
_COMPANIONS = (
    "non_lora_trainables.bin",  # LLaVA
    "non_lora_state_dict.bin",  # Qwen-VL's trainers
    "value_head.safetensors",  # TRL
    "value_head.bin",
    "v_head.bin",
    "pytorch_model_head.bin",  # AdapterHub
    "model_head.safetensors",
    "mm_projector.bin",
    "projector.bin",
    "learned_embeds.safetensors",  # textual inversion
    "learned_embeds.bin",
    "embeddings.safetensors",
)
_SHARD = re.compile(r"-(?P<n>[0-9]{5})-of-(?P<of>[0-9]{5})\.[a-z]+\Z")


# The Hub's cache: a folder for a repository, in it one for each commit.
_SNAPSHOT = re.compile(r"/models--(?P<name>[^/]+)/snapshots/[0-9a-f]{40}(?P<sub>(?:/[^/]+)*)\Z")


class AdapterFiles(NamedTuple):
    """Where an adapter's files are. `config` is None where there is no such file."""

    name: str
    folder: Path
    weights: Path
    config: Path | None
    adapter_name: str | None = None  # still to be looked for, in the tensors' names


def find(path: Path, adapter_name: str | None = None) -> AdapterFiles:
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
        if suffix_of(path) not in SUFFIXES and not path.name.endswith(INDEX_SUFFIXES):
            raise FormatError(
                f"{path}: not a weights file; give the adapter's folder or a file that ends in "
                f"{', '.join(SUFFIXES)}"
            )
        files = _beside(_name_of_file(path), path.parent, path)
        return files._replace(adapter_name=adapter_name)
    if not os.access(path, os.R_OK | os.X_OK):
        raise MissingFileError(f"{path}: cannot be read, permission denied")
    name = _name(path)
    if adapter_name is not None:
        sub = join_inside(path, adapter_name)
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
    snapshot = _SNAPSHOT.search(folder.as_posix())
    if snapshot is not None:
        return f"{snapshot['name'].replace('--', '/')}{snapshot['sub']}"
    # Of transformers' trainer and of torchtune's recipes: every run has these.
    alone = not folder.name.startswith(("checkpoint-", "epoch_"))
    return folder.name if alone else f"{folder.parent.name}/{folder.name}"


def _name_of_file(path: Path) -> str:
    # A name that every run's file has tells nothing; any other tells it from its siblings.
    folder = _name(path.parent)
    return folder if path.name in (*WEIGHTS, *_OTHERS) else f"{folder}/{path.stem}"


def _in_folder(name: str, folder: Path) -> AdapterFiles:
    for weights in WEIGHTS:
        if (folder / weights).exists():
            return _beside(name, folder, folder / weights)
    index = _find_index(folder)
    if index is not None:
        return _beside(name, folder, index)
    beside = {"initial_A.safetensors", *_COMPANIONS}
    others = sorted(p for p in folder.iterdir() if suffix_of(p) in SUFFIXES and p.is_file())
    others = [p for p in others if p.name not in beside]
    named = [p for p in others if p.name in _OTHERS] or others
    if len(named) == 1 and (named[0].name in _OTHERS or "model" not in named[0].stem):
        return _beside(name, folder, named[0])
    contents = f"; it holds {', '.join(p.name for p in others[:4])}" if others else ""
    if any(_SHARD.search(p.name) for p in others):
        contents += f" (shards: {WEIGHTS[0]}.index.json, which says what is in each, is missing)"
    if (folder / CONFIG).exists():
        raise MissingFileError(
            f"{folder}: has {CONFIG} but no weights; {' or '.join(WEIGHTS)} should be beside it"
            f"{contents}"
        )
    whole = " (a whole model is no adapter)" if (folder / "config.json").exists() else ""
    raise MissingFileError(
        f"{folder}: no adapter here: no {CONFIG}, no {WEIGHTS[0]}{contents}{whole}"
    )


def _find_index(folder: Path) -> Path | None:
    """Find the index of an adapter in several files: beside a config, or one that names factors."""
    indexes = sorted(p for p in folder.iterdir() if p.name.endswith(INDEX_SUFFIXES))
    if len(indexes) != 1:
        return None
    if (folder / CONFIG).exists():
        return indexes[0]
    names = read_json(indexes[0]).get("weight_map")
    trained = isinstance(names, dict) and any(".lora_A." in str(name) for name in names)
    return indexes[0] if trained else None


def describe_rest(place: AdapterFiles, path: Path) -> list[str]:
    """Say what lies beside the file that was taken and belongs to the same training.

    Parameters
    ----------
    place
        What was taken.
    path
        As the user gave it.
    """
    notes = []
    companions = [name for name in _COMPANIONS if (place.folder / name).is_file()]
    if companions:
        notes.append(
            f"{some(companions)} lies beside: weights of other modules, trained in full and not "
            "read here"
        )
    shard = _SHARD.search(place.weights.name)
    if shard is not None and int(shard["of"]) > 1:
        notes.append(
            f"{place.weights.name} is shard {int(shard['n'])} of {int(shard['of'])}: the others "
            "hold more modules; give the folder, or the index beside"
        )
    if path.is_dir():
        subs = sorted(
            sub.name
            for sub in path.iterdir()
            if sub != place.folder and sub.is_dir() and (sub / CONFIG).is_file()
        )
        if subs:
            notes.append(
                f"{place.name} was taken; adapters in its subfolders were passed over: {some(subs)}"
            )
    return notes


def is_shard(place: AdapterFiles) -> bool:
    """Say whether the file is one of several."""
    shard = _SHARD.search(place.weights.name)
    return shard is not None and int(shard["of"]) > 1


def _beside(name: str, folder: Path, weights: Path) -> AdapterFiles:
    config = folder / CONFIG
    return AdapterFiles(name, folder, weights, config if config.exists() else None)
