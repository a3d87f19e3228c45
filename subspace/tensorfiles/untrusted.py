"""What every reader of a stranger's file checks first: the path, the name, the JSON."""

from __future__ import annotations

import json
import os
from collections import Counter
from typing import TYPE_CHECKING, Any

from subspace.errors import ArgumentError, FormatError, MissingFileError

if TYPE_CHECKING:
    from pathlib import Path

_LONGEST_JSON = 64_000_000
# https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md: a pointer is shorter than 1024 bytes.
_POINTER = b"version https://git-lfs.github.com/spec/"
_LONGEST_POINTER = 1024
RESAVE = "re-save it with safetensors.torch.save_file, or torch.save of a dict of plain tensors"


def join_inside(folder: Path, name: str) -> Path:
    """Join a name that came from a file or an option to a folder that it must not leave.

    Raises
    ------
    ArgumentError
        `name` is more than one path component, or ``..``.

    >>> from pathlib import Path
    >>> join_inside(Path("run"), "student").name
    'student'
    """
    if name in {"", ".", ".."} or any(c in name for c in "/\\\0:"):
        raise ArgumentError(f"{short(name)} is not a plain name: nothing outside {folder} is read")
    return folder / name


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a small file of a stranger.

    Raises
    ------
    MissingFileError
        There is no such regular file.
    FormatError
        Not UTF-8 JSON, not an object, a key twice, nested too deep, or larger than 64 MB.
    """
    require_regular(path)
    if path.stat().st_size > _LONGEST_JSON:
        raise FormatError(f"{path}: larger than {_LONGEST_JSON:_} bytes, which no config is")
    return parse_json_object(path.read_bytes(), f"{path}")


def short(value: object) -> str:
    """Return the repr of a stranger's value, cut so that a message keeps its end.

    >>> short("x" * 1000) == "'" + "x" * 148 + "…" + "x" * 48 + "'"
    True
    """
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:149]}…{text[-49:]}"


def require_regular(path: Path) -> None:
    """Refuse what is no regular file, and a pointer of Git LFS in its place."""
    # A device or a pipe in a stranger's folder could be read forever.
    try:
        exists, regular = path.exists(), path.is_file()
    except (OSError, ValueError) as error:
        raise MissingFileError(f"{path}: cannot be looked at ({error})") from None
    if not exists:
        raise MissingFileError(f"{path}: no such file")
    if not regular:
        raise MissingFileError(f"{path}: not a regular file")
    if not os.access(path, os.R_OK):
        raise MissingFileError(f"{path}: cannot be read, permission denied")
    if path.stat().st_size <= _LONGEST_POINTER:
        with path.open("rb") as file:
            pointer = file.read(len(_POINTER)) == _POINTER
        if pointer:
            raise FormatError(
                f"{path}: a Git LFS pointer, not the file itself: `git lfs pull` in its folder "
                "fetches it"
            )


def parse_json_object(text: bytes, where: str) -> dict[str, Any]:
    """Parse a JSON object, each key once, not nested too deep."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        out = dict(pairs)
        if len(out) < len(pairs):
            counts = Counter(key for key, _ in pairs)
            raise FormatError(
                f"{where}: the key {short(counts.most_common(1)[0][0])} is there twice; "
                "the file is not sound"
            )
        return out

    try:
        value = json.loads(text.decode("utf-8-sig"), object_pairs_hook=once)
    except RecursionError:
        raise FormatError(f"{where}: JSON nested too deep to be sound") from None
    except FormatError:
        raise
    except ValueError as error:  # covers UnicodeDecodeError and JSONDecodeError
        raise FormatError(f"{where}: not valid JSON ({error})") from None
    if not isinstance(value, dict):
        raise FormatError(f"{where}: a JSON object is wanted, found {type(value).__name__}")
    return value
