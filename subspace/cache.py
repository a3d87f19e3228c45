"""Results that are dear to compute, kept on disk between calls. Nothing here computes them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from subspace.files import replace_file

if TYPE_CHECKING:
    from pathlib import Path

_LARGEST = 1 << 24  # bytes of one entry; ours have thousands


def default_folder() -> Path:
    """Return the user's cache folder for this package, as the platform has it."""
    from platformdirs import user_cache_path

    return user_cache_path("lora-subspace")


@dataclass(frozen=True)
class Cache:
    """A folder of small JSON entries, each under a key and with its own checksum.

    An entry that is damaged, truncated or of another key is as good as none. A kill while one is
    written leaves the old one or none.

    Attributes
    ----------
    folder
        Made when the first entry is written.

    >>> import tempfile
    >>> from pathlib import Path
    >>> cache = Cache(Path(tempfile.mkdtemp()))
    >>> cache.get("spectrum-1") is None
    True
    >>> cache.put("spectrum-1", {"values": [2.5, 1.0]})
    True
    >>> cache.get("spectrum-1")
    {'values': [2.5, 1.0]}
    """

    folder: Path

    def _path(self, key: str) -> Path:
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()}.json"

    def get(self, key: str) -> dict[str, Any] | None:
        """Return the entry, or None where there is no sound one."""
        path = self._path(key)
        try:
            if path.stat().st_size > _LARGEST:
                return None
            stored = json.loads(path.read_bytes())
            entry = stored["entry"]
            sound = stored["key"] == key and stored["sha256"] == _checksum(entry)
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        return entry if sound and isinstance(entry, dict) else None

    def put(self, key: str, entry: dict[str, Any]) -> bool:
        """Write an entry; False where the folder cannot be written, which is no error."""
        path = self._path(key)
        text = json.dumps({"key": key, "sha256": _checksum(entry), "entry": entry}, allow_nan=False)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            replace_file(text.encode(), path)
        except OSError:
            return False
        return True


def _checksum(entry: object) -> str:
    return hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()
