"""Put a file or a folder in its place, whole or not at all; and the SHA-256 of a file.

Everything is written beside its place, brought to the disk and renamed: a failure, a kill or a
crash leaves what was there.
"""

from __future__ import annotations

import os
import secrets
import shutil
from contextlib import contextmanager
from hashlib import sha256
from typing import TYPE_CHECKING

from subspace.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Set
    from pathlib import Path


def require_room(path: Path, ours: Set[str] | None = None, *, overwrite: bool = False) -> None:
    """Refuse a place that is taken.

    Parameters
    ----------
    path
        The file or folder to be written.
    ours
        Of a folder: the names of the files in it that may be replaced. None means a file.
    overwrite
        Replace what is there, if it is nothing but that.

    Raises
    ------
    ArgumentError
        The place is taken, or its parent is no folder.
    """
    with refusing(path):
        parent = next(p for p in path.absolute().parents if p.exists() or p.is_symlink())
        if not parent.is_dir():
            raise ArgumentError(f"cannot write {str(path)!r}: {str(parent)!r} is no folder")
        if not path.exists() and not path.is_symlink():
            return
        taken = f"{path}: is there already"
        if ours is None:
            if path.is_symlink() or not path.is_file():
                raise ArgumentError(f"{taken}, and is no file; choose another name")
        else:
            if path.is_symlink() or not path.is_dir():
                raise ArgumentError(f"{taken}, and is no folder; choose another name")
            others = sorted(p.name for p in path.iterdir() if p.name not in ours or not p.is_file())
            if others:
                # Not even overwrite deletes what was not written here.
                raise ArgumentError(
                    f"{taken} and holds other files ({', '.join(others[:3])}"
                    f"{', …' if len(others) > 3 else ''}); choose another folder"
                )
            if not any(path.iterdir()):
                return
    if not overwrite:
        raise ArgumentError(f"{taken}; choose another name, or replace it with --overwrite")


@contextmanager
def refusing(path: Path) -> Iterator[None]:
    """Turn the system's refusal to write `path` into an `ArgumentError` that names it."""
    try:
        yield
    except OSError as error:
        raise ArgumentError(f"cannot write {str(path)!r}: {error.strerror or error}") from error


def write_file(data: bytes, path: Path, *, overwrite: bool = False) -> None:
    """Write a file, and the folders above it, where there is room.

    Raises
    ------
    ArgumentError
        The place is taken or cannot be written.
    """
    require_room(path, overwrite=overwrite)
    with refusing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(data, path)


def replace_file(data: bytes, path: Path) -> None:
    """Write a file in an existing folder, over an older one of the same name.

    Raises
    ------
    OSError
        The place cannot be written.
    """
    temporary = _name_beside(path)
    try:
        _write(data, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_folder(files: Mapping[str, bytes], path: Path, *, overwrite: bool = False) -> None:
    """Write a folder of files where there is room: all of them appear at once.

    Raises
    ------
    ArgumentError
        The place is taken or cannot be written.
    """
    require_room(path, files.keys(), overwrite=overwrite)
    new, old = _name_beside(path), _name_beside(path)
    with refusing(path):
        try:
            new.mkdir(parents=True)
            for name, data in files.items():
                _write(data, new / name)
            swap_folder(new, path, old)
        finally:
            for left in (new, old):
                shutil.rmtree(left, ignore_errors=True)


def swap_folder(new: Path, path: Path, old: Path) -> None:
    """Move the folder `new` to `path`, and what was at `path` to `old`; or leave both alone.

    Raises
    ------
    OSError
        A folder cannot be renamed.
    """
    for file in new.rglob("*"):
        if file.is_file():
            _sync(file)
    if path.exists():
        path.rename(old)
    try:
        new.rename(path)
    except OSError:
        if old.exists():
            old.rename(path)
        raise


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    digest = sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _write(data: bytes, path: Path) -> None:
    with path.open("xb") as file:  # not tempfile: its 0600 would outlive the rename
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(path: Path) -> None:
    # Windows brings only files that are open for writing to the disk.
    with path.open("r+b" if os.access(path, os.W_OK) else "rb") as file:
        os.fsync(file.fileno())


def _name_beside(path: Path) -> Path:
    return path.parent / f".subspace-{secrets.token_hex(8)}.tmp"
