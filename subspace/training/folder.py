"""The folder of one run: written whole or not at all, recognised when it is there already."""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from subspace.errors import ArgumentError, FormatError, SubspaceError
from subspace.files import replace_file, swap_folder
from subspace.results import strict
from subspace.training.config import with_defaults

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RECORD = "training.json"
WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
INITIAL_A = "initial_A.safetensors"
HEAD = "head.safetensors"
FILES = {
    "lora": (WEIGHTS, CONFIG, INITIAL_A),
    "full": ("model.safetensors", "config.json"),
    "head": (HEAD,),
}
"""What a finished run of each method holds beside its record."""
TRAINER = "trainer"
"""Within an unfinished run: where transformers' Trainer keeps its checkpoints."""
_IDENTITY = "identity.json"
_LARGEST_RECORD = 64 << 20


def find_record(
    folder: Path, identity: dict[str, Any], *, overwrite: bool, records_only: bool = False
) -> dict[str, Any] | None:
    """Return the record of a finished run of the same identity, or None if there is room for one.

    Identity is all that decides the adapter: options, model and data. With `records_only`
    the record alone is enough.

    Raises
    ------
    ArgumentError
        The place is taken: by a different run (unless `overwrite`), or by what is no run.
    """
    if not folder.exists() and not folder.is_symlink():
        return None
    if not folder.is_dir():
        raise ArgumentError(f"{folder}: a file, where a folder is to be written; choose another")
    if not any(folder.iterdir()):
        return None
    if not (folder / RECORD).is_file():
        # Not even --overwrite deletes what this trainer did not write.
        raise ArgumentError(f"{folder}: holds other files and no {RECORD}; choose another folder")
    record = read_record(folder)
    files = FILES[identity["options"].get("method", "lora")]
    whole = records_only or all((folder / name).is_file() for name in files)
    differing = _list_differences(record, identity)
    if whole and not differing and not overwrite:
        return record
    if not overwrite:
        what = "; ".join(differing[:3]) if differing else "a file of it is missing"
        raise ArgumentError(
            f"{folder}: holds a different run ({what}); choose another folder or add --overwrite"
        )
    return None


def _list_differences(record: dict[str, Any], identity: dict[str, Any]) -> list[str]:
    differing = []
    for part, wanted in identity.items():
        stored = record.get(part)
        stored = stored if isinstance(stored, dict) else {}
        if part == "options":
            stored = with_defaults(stored)
            if isinstance(stored["targets"], tuple):
                stored["targets"] = list(stored["targets"])
        differing += [
            f"{part} {key}: {stored.get(key)!r}, asked for {value!r}"
            for key, value in wanted.items()
            if stored.get(key) != value
        ]
    return differing


def read_record(folder: Path) -> dict[str, Any]:
    """Read a run's training.json.

    Raises
    ------
    FormatError
        It is not a JSON object.
    """
    path = folder / RECORD
    try:
        if path.stat().st_size > _LARGEST_RECORD:
            raise FormatError(f"{path}: larger than 64 MiB, not a record of training")
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"{path}: cannot be read: {error}") from error
    if not isinstance(record, dict):
        raise FormatError(f"{path}: not a JSON object")
    return record


def read_json(path: Path) -> dict[str, Any] | None:
    """Read what an earlier process of this run wrote; None where it did not come to its end."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def write_json(path: Path, value: object) -> None:
    """Write strict JSON, keys in the order given."""
    text = json.dumps(strict(value), indent=1, ensure_ascii=False, allow_nan=False)
    replace_file(f"{text}\n".encode(), path)


@contextmanager
def fill_folder(folder: Path, identity: dict[str, Any]) -> Iterator[Path]:
    """Give a hidden folder beside `folder`; its ``new`` takes that name if the block ends well.

    A block that ends otherwise leaves the hidden folder if a checkpoint is in it, and the next one
    of the same identity finds it there. A `SubspaceError` would come again: it leaves nothing.

    Raises
    ------
    ArgumentError
        The place cannot be written, or another process is at it.
    """
    folder = folder.resolve()  # "." has no name and no parent
    work = folder.with_name(f".{folder.name}.unfinished")
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArgumentError(f"{folder}: cannot be written: {error.strerror}") from error
    with _lock(work, folder):
        _keep_or_empty(work, identity)
        made = work / "new"
        made.mkdir(exist_ok=True)
        try:
            yield work
            swap_folder(made, folder, work / "old")
        except BaseException as error:
            if isinstance(error, SubspaceError) or find_last_checkpoint(work / TRAINER) is None:
                shutil.rmtree(work, ignore_errors=True)
            raise
        shutil.rmtree(work, ignore_errors=True)


@contextmanager
def _lock(work: Path, folder: Path) -> Iterator[None]:
    """Hold a lock that ends with the process, where the platform has such locks."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with (work / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ArgumentError(
                f"{folder}: another process is training this run; wait for it, or choose another"
            ) from None
        yield


def _keep_or_empty(work: Path, identity: dict[str, Any]) -> None:
    """Keep what an earlier run of the same identity left; delete what another one left."""
    marker = work / _IDENTITY
    text = json.dumps(strict(identity), sort_keys=True)
    try:
        same = marker.read_text(encoding="utf-8") == text
    except (OSError, ValueError):
        same = False
    if same:
        return
    for path in work.iterdir():
        if path.name == "lock":
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    replace_file(text.encode(), marker)


def find_last_checkpoint(folder: Path) -> Path | None:
    """Return the latest of transformers' ``checkpoint-N`` folders that is whole, if any.

    ``trainer_state.json`` is written last, so that one that says N is of a whole checkpoint.
    """
    checkpoints = []
    for path in folder.glob("checkpoint-*"):
        state = read_json(path / "trainer_state.json") or {}
        if path.name == f"checkpoint-{state.get('global_step')}":
            checkpoints.append((state["global_step"], path))
    return max(checkpoints)[1] if checkpoints else None
