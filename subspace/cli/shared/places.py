"""Where a verb is to write: refused before any work starts, by one rule for all verbs."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from dataclasses import replace
from errno import EACCES
from typing import TYPE_CHECKING

from subspace.errors import ArgumentError, MissingFileError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from subspace.training.sweep.grid import Sweep


def check_place(path: Path) -> None:
    """Refuse a file or folder whose parent is not there, or lets nothing be written.

    Raises
    ------
    MissingFileError
        There is no such parent.
    ArgumentError
        It cannot be written.
    """
    with _refusing(path):
        if not path.parent.is_dir():
            raise MissingFileError(f"cannot write {path}: there is no folder {str(path.parent)!r}")
        _try(path.parent)


def check_file(path: Path) -> None:
    """Refuse what `check_place` does, and a place that is a folder."""
    with _refusing(path):
        if path.is_dir():
            raise ArgumentError(f"cannot write {path}: it is a folder; give a file in it")
    check_place(path)


def check_figure(path: Path) -> None:
    """Refuse a figure that could not be written, for its suffix or its place."""
    from subspace.plots.save import check

    check(path)
    check_file(path)


def check_folder(path: Path) -> None:
    """Refuse a folder that could not be made, its parents included, or written into.

    Raises
    ------
    ArgumentError
        What is there is no folder, or cannot be written.
    """
    with _refusing(path):
        at = path.absolute()
        there = next(p for p in (at, *at.parents) if p.exists() or p.is_symlink())
        if not there.is_dir():
            which = "it" if there == at else repr(str(there))
            raise ArgumentError(f"cannot write {path}: {which} is a file, and no folder")
        _try(there)


def check_runs(sweeps: Iterable[tuple[Sweep, Path]], *, overwrite: bool = False) -> None:
    """Refuse places in which runs could not be trained; finished ones may be read-only."""
    from subspace.training.folder import RECORD

    for sweep, out in sweeps:
        if sweep.runs == 1:  # it has `out` for itself, and is written beside it
            if overwrite or not (out / RECORD).is_file():
                check_folder(out.absolute().parent)
            continue
        places = (
            out / sweep.place(replace(config, seed=seed))
            for group in sweep.groups()
            for config in group
            for seed in sweep.seeds
        )
        if overwrite or not all((place / RECORD).is_file() for place in places):
            check_folder(out)


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    try:
        yield
    except (ArgumentError, MissingFileError):  # the latter is an OSError too
        raise
    except OSError as error:
        raise ArgumentError(f"cannot write {path}: {error.strerror or error}") from error


def _try(folder: Path) -> None:
    # Permissions do not tell of a read-only file system, nor of /proc.
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except FileNotFoundError as error:
        raise PermissionError(EACCES, f"nothing can be written into {str(folder)!r}") from error
