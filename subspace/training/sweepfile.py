"""A sweep written down: a TOML file whose names are those of ``subspace train``."""

from __future__ import annotations

import sys
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from subspace.errors import FormatError, MissingFileError
from subspace.training.config import TrainConfig

if TYPE_CHECKING:
    from pathlib import Path

_LARGEST = 1 << 20
_AXES = {"ranks", "seeds", "data", "targets", "references", "lr"}
_OTHERS = {"out", "jobs", "checkpoint_every", "records"}
_RENAMED = {"learning_rate": "lr"}


def read_sweep(path: Path) -> dict[str, Any]:
    """Read a sweep's options, by the names that the command line has.

    ``ranks`` and ``seeds`` are lists of numbers, ``data`` of names or files, ``targets`` of lists
    of module endings; ``lr`` is a number, a list, or a table by method.

    Raises
    ------
    MissingFileError
        There is no such file.
    FormatError
        It is not TOML, or has a name that is no option.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    try:
        if path.stat().st_size > _LARGEST:
            raise FormatError(f"{path}: larger than 1 MiB, not a description of a sweep")
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MissingFileError(f"no sweep file {str(path)!r}") from None
    except (OSError, ValueError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"{path}: cannot be read as TOML: {error}") from error
    own = {_RENAMED.get(f.name, f.name) for f in fields(TrainConfig)}
    known = (own - {"rank", "seed", "method"}) | _AXES | _OTHERS
    wrong = sorted(set(found) - known)
    if wrong:
        raise FormatError(f"{path}: no option {wrong[0]!r}; there are {', '.join(sorted(known))}")
    return found
