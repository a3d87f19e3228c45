"""The folder of one run: written whole or not at all, recognised when it is there already."""

from __future__ import annotations

import json
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subspace.errors import ArgumentError, FormatError
from subspace.results import strict
from subspace.training.config import with_defaults

if TYPE_CHECKING:
    from collections.abc import Iterator

RECORD = "training.json"
WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
INITIAL_A = "initial_A.safetensors"
_LARGEST_RECORD = 64 << 20


def finished_record(
    folder: Path, identity: dict[str, Any], *, overwrite: bool
) -> dict[str, Any] | None:
    """Return the record of a finished run of the same identity, or None if there is room for one.

    Identity is all that decides the adapter: options, model and data.

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
    whole = all((folder / name).is_file() for name in (WEIGHTS, CONFIG, INITIAL_A))
    differing = _differences(record, identity)
    if whole and not differing and not overwrite:
        return record
    if not overwrite:
        what = "; ".join(differing[:3]) if differing else "a file of it is missing"
        raise ArgumentError(
            f"{folder}: holds a different run ({what}); choose another folder or add --overwrite"
        )
    return None


def _differences(record: dict[str, Any], identity: dict[str, Any]) -> list[str]:
    found = []
    for part, wanted in identity.items():
        held = record.get(part)
        held = held if isinstance(held, dict) else {}
        if part == "options":
            held = with_defaults(held)
            held["targets"] = (
                list(held["targets"]) if isinstance(held["targets"], tuple) else held["targets"]
            )
        found += [
            f"{part} {key}: {held.get(key)!r}, asked for {value!r}"
            for key, value in wanted.items()
            if held.get(key) != value
        ]
    return found


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


def write_json(path: Path, value: object) -> None:
    """Write strict JSON, keys in the order given."""
    text = json.dumps(strict(value), indent=1, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


@contextmanager
def appearing(folder: Path) -> Iterator[Path]:
    """Give a temporary folder beside `folder`; it takes that name if the block ends well."""
    folder = folder.resolve()  # "." has no name and no parent
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise ArgumentError(f"{folder}: cannot be written: {error.strerror}") from error
    try:
        made = work / "new"
        made.mkdir()
        yield made
        if folder.exists():
            folder.rename(work / "old")
        made.rename(folder)
    finally:
        if (work / "old").exists() and not folder.exists():
            (work / "old").rename(folder)
        shutil.rmtree(work, ignore_errors=True)
