"""Put a file or a folder in its place: whole or not at all, and nothing of others replaced."""

from __future__ import annotations

import secrets
import shutil
from typing import TYPE_CHECKING

from subspace.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def room_for(path: Path, ours: set[str] | None, *, overwrite: bool) -> None:
    """Refuse a place that is taken.

    Parameters
    ----------
    path
        Where a folder, or a file, is to be.
    ours
        Of a folder: the files in it that may be replaced. None: a file is to be written.
    overwrite
        Whether to replace what is there, if it is nothing but that.

    Raises
    ------
    ArgumentError
        The place is taken, or its parent is no folder.
    """
    try:
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
    except OSError as error:
        raise ArgumentError(f"cannot write {str(path)!r}: {error.strerror or error}") from error
    if not overwrite:
        raise ArgumentError(f"{taken}; choose another name, or replace it with --overwrite")


def place_file(data: bytes, path: Path, *, overwrite: bool) -> None:
    """Write one file.

    Raises
    ------
    ArgumentError
        The place is taken or cannot be written.
    """
    room_for(path, None, overwrite=overwrite)
    temporary = _beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            file.write(data)
        temporary.replace(path)
    except OSError as error:
        raise ArgumentError(f"cannot write {str(path)!r}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def place_folder(files: Mapping[str, bytes], path: Path, *, overwrite: bool) -> None:
    """Write a folder of files: all of them appear at once.

    Raises
    ------
    ArgumentError
        The place is taken or cannot be written.
    """
    room_for(path, set(files), overwrite=overwrite)
    work, old = _beside(path), _beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        work.mkdir()
        for name, data in files.items():
            with (work / name).open("xb") as file:
                file.write(data)
        if path.exists():
            path.rename(old)
        try:
            work.rename(path)
        except OSError:
            if old.exists():
                old.rename(path)
            raise
    except OSError as error:
        raise ArgumentError(f"cannot write {str(path)!r}: {error.strerror or error}") from error
    finally:
        for left in (work, old):
            shutil.rmtree(left, ignore_errors=True)


def _beside(path: Path) -> Path:
    return path.parent / f".subspace-{secrets.token_hex(8)}.tmp"
