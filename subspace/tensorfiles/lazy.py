"""`TensorFile`: what every kind of tensor file becomes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import torch

FLOAT8 = {"float8_e4m3fn": 2.0**-4, "float8_e5m2": 2.0**-3}
"""Floating-point types that torch stores and does not compute with -> their unit roundoff."""


@dataclass(frozen=True)
class TensorHeader:
    """What a file says of one tensor before its bytes are read."""

    shape: tuple[int, ...]
    dtype: str  # torch's name without "torch."


@dataclass(frozen=True, eq=False, kw_only=True)
class TensorFile(Mapping[str, "torch.Tensor"]):
    """A read-only mapping from tensor name to a CPU tensor in its stored dtype, read when asked.

    Tensors are views of the mapped file: treat them as read-only.
    """

    path: Path
    headers: Mapping[str, TensorHeader]
    metadata: Mapping[str, str]  # safetensors' ``__metadata__``; of a torch file, see `open_torch`
    _read: Callable[[str], torch.Tensor] = field(repr=False)
    _number: Callable[[str], float | None] | None = field(repr=False, default=None)

    def __getitem__(self, name: str) -> torch.Tensor:
        if name not in self.headers:
            raise KeyError(name)
        return self._read(name)

    def number(self, name: str) -> float:
        """Read the one number that a tensor holds, without torch where the file allows it."""
        if name not in self.headers:
            raise KeyError(name)
        value = self._number(name) if self._number else None
        return float(self._read(name).double().reshape(())) if value is None else value

    def __iter__(self) -> Iterator[str]:
        return iter(self.headers)

    def __len__(self) -> int:
        return len(self.headers)

    def __contains__(self, name: object) -> bool:
        return name in self.headers  # Mapping's own would read the tensor
