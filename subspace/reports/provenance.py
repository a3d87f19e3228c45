"""Which files a report rests on, and what identifies each: hashes, and of a large base its headers.

A base of 13 GB is not hashed whole: what its files say of themselves (name, size, every tensor's
name, type and shape) tells one checkpoint from another of other shapes or files; the numbers of W
that were used are on the page.
"""

from __future__ import annotations

import json
from hashlib import sha256
from typing import TYPE_CHECKING

from subspace.files import hash_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from subspace.adapters import Adapter
    from subspace.pretrained import Pretrained
    from subspace.results import Table6

_INITIAL = "initial_A.safetensors"
_RECORD = "training.json"
_WHOLE = 200_000_000  # bytes; a larger file of the base is known by its headers
_MOST_RECORD = 5_000_000


def adapter_files(adapter: Adapter) -> tuple[tuple[str, str], ...]:
    """Hash what was read of an adapter: weights, configuration, A before training."""
    weights = adapter.weights
    if weights is None:
        return ()
    from subspace.adapters.load import find

    of_adapter = find(weights)
    files = [of_adapter.weights, *([of_adapter.config] if of_adapter.config is not None else [])]
    initial = of_adapter.weights.parent / _INITIAL
    if adapter.initial and initial.is_file():
        files.append(initial)
    return tuple((file.name, hash_file(file)) for file in files)


def base_files(base: Pretrained) -> tuple[tuple[str, str], ...]:
    """Identify the files of a checkpoint: the whole of a small one, the headers of a large one."""
    from subspace.pretrained.fingerprint import files_of, headers_digest

    paths = files_of(base.tensors)
    sizes = [path.stat().st_size for path in paths]
    if sum(sizes) <= _WHOLE:
        return tuple(
            (f"{path.name} ({size} bytes)", f"SHA-256 {hash_file(path)}")
            for path, size in zip(paths, sizes, strict=True)
        )
    identities = [(path.name, size) for path, size in zip(paths, sizes, strict=True)]
    digest = headers_digest(base.tensors, identities)
    files = paths[0].name if len(paths) == 1 else f"{len(paths)} files"
    what = f"SHA-256 of the files' names, sizes and headers {digest}"
    return ((f"{files} ({sum(sizes)} bytes)", what),)


def trained_from(adapters: Sequence[Adapter]) -> str:
    """Say each adapter's training seed, of those whose folder holds the record of its training."""
    seeds = [(adapter.name, _read_seed(adapter.weights)) for adapter in adapters]
    return ", ".join(f"{name} {seed}" for name, seed in seeds if seed is not None)


def records(table: Table6) -> tuple[str, str]:
    """Count the training records of a sweep, and identify what they say by one hash."""
    count = sum(len(row.seeds) for row in table)
    text = json.dumps(table.to_dict(), sort_keys=True)
    return f"{count} × {_RECORD}", f"SHA-256 of Table 6 {sha256(text.encode()).hexdigest()}"


def _read_seed(weights: Path | None) -> int | None:
    if weights is None:
        return None
    record = weights.parent / _RECORD
    try:
        if record.stat().st_size > _MOST_RECORD:
            return None
        seed = json.loads(record.read_text(encoding="utf-8"))["options"]["seed"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None  # another program's file, or none: the report needs it not
    return seed if isinstance(seed, int) else None
