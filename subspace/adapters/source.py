"""What a format may look at: an adapter's files, and what the user said of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from subspace.errors import FormatError
from subspace.tensorfiles import FLOAT8, QUANTISED, TensorFile, open_tensors

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from subspace.adapters.adapter import Adapter

FLOATS = ("float64", "float32", "float16", "bfloat16")
LONGEST_NAME = 500


@dataclass(frozen=True, kw_only=True)
class AdapterSource:
    """One adapter as it lies on disk. Nothing is opened before it is asked for.

    Attributes
    ----------
    name
        As the adapter calls itself.
    path
        As the user gave it.
    weights
        The tensor file.
    config
        ``adapter_config.json``, or None where there is none.
    where
        The config's file, for messages.
    initial
        A before training, module path -> (r, d_in), where our trainer wrote it.
    adapter_name
        Which adapter, if the tensors' names carry several.
    alpha
        What the user says it is, for formats that do not store it.
    pattern
        The user's own format: a text, or the path of a TOML file; see `pattern`.
    """

    name: str
    path: Path
    weights: Path
    config: Mapping[str, Any] | None
    where: str
    initial: Path | None = None
    adapter_name: str | None = None
    alpha: float | None = None
    pattern: str | os.PathLike[str] | None = None

    @cached_property
    def tensors(self) -> TensorFile:
        """The weights, headers read."""
        return open_tensors(self.weights)

    def only(self, names: Iterable[str]) -> AdapterSource:
        """Return the same with these tensors alone."""
        tensors = self.tensors
        kept = {name: tensors.headers[name] for name in names}
        other = replace(self)
        other.__dict__["tensors"] = replace(tensors, headers=MappingProxyType(kept))
        return other

    def text(self, name: str) -> str:
        """Name a tensor with its file and shape, for messages."""
        return f"{self.weights}: {name!r} {self.tensors.headers[name].shape}"


class Format(Protocol):
    """What a format's file holds; the first in `load.FORMATS` that matches an adapter reads it."""

    @property
    def NAME(self) -> str:
        """The format as `inspect` shows it."""

    @property
    def EXPECTS(self) -> str:
        """The tensors' names that it looks for, in words."""

    @property
    def TENSOR_SUFFIXES(self) -> tuple[str, ...]:
        """Parts of these names: what has them and is of no format is near to this one."""

    @property
    def READS(self) -> str:
        """What is read and what is set aside, in a few words, for the table of formats."""

    @property
    def REFERENCE(self) -> str:
        """What wrote the files that are read in its tests, and what their updates are held to."""

    @property
    def TESTS(self) -> tuple[str, ...]:
        """These tests."""

    def matches(self, source: AdapterSource) -> str | None:
        """Say why these files are of this format, or None if they are not."""

    def read(self, source: AdapterSource) -> Adapter:
        """Make an `Adapter` from headers alone."""


def group_by_module(
    source: AdapterSource,
    parse: Callable[[str], tuple[str, str] | None],
    copies: list[str] | None = None,
) -> dict[str, dict[str, str]]:
    """Group tensors by module: module -> slot -> the tensor's name.

    Parameters
    ----------
    source
        The files.
    parse
        From a tensor's name to (module, slot); None for a tensor that is of no update.
    copies
        Takes the names of tensors that are stored a second time, equal in every bit, under
        another of the format's names. Without it they are refused.

    Raises
    ------
    FormatError
        Two tensors are the same slot of one module and differ, or a name is too long.
    """
    groups: dict[str, dict[str, str]] = {}
    for name in source.tensors:
        if len(name) > LONGEST_NAME:
            raise FormatError(f"{source.weights}: tensor name {name[:40]!r}… is too long")
        parsed = parse(name)
        if parsed is None:
            continue
        module, slot = parsed
        slots = groups.setdefault(module, {})
        if slot not in slots:
            slots[slot] = name
        elif copies is not None and _are_equal(source, slots[slot], name):
            copies.append(name)
        else:
            raise FormatError(
                f"{source.weights}: {slots[slot]!r} and {name!r} are the same factor of "
                f"module {module!r}, and not equal; leave out the one that is not meant"
            )
    return groups


def _are_equal(source: AdapterSource, one: str, other: str) -> bool:
    if source.tensors.headers[one] != source.tensors.headers[other]:
        return False
    import torch

    # By their bytes: a NaN is equal to itself here, and a zero of the other sign is not.
    both = (source.tensors[name].contiguous().reshape(-1) for name in (one, other))
    first, second = (tensor.view(torch.uint8) for tensor in both)
    return torch.equal(first, second)


def require_factors(
    source: AdapterSource, module: str, slots: Mapping[str, str], *needed: str
) -> None:
    """Refuse a module without one of its factors.

    Raises
    ------
    FormatError
        Names what is there and what is missing.
    """
    missing = [slot for slot in needed if slot not in slots]
    if missing:
        have = next(iter(slots.values()))
        raise FormatError(
            f"{source.weights}: {have!r} has no partner: module {module!r} lacks "
            f"{', '.join(missing)}; the file is incomplete"
        )


def read_factor_shape(
    source: AdapterSource, name: str, dimensions: Iterable[int] = (2,)
) -> tuple[int, ...]:
    """Return the shape of a tensor that is to be a factor.

    Raises
    ------
    FormatError
        It has another number of dimensions, an empty one, or no floating-point numbers.
    """
    header = source.tensors.headers[name]
    if len(header.shape) not in tuple(dimensions) or 0 in header.shape:
        raise FormatError(f"{source.text(name)} has a shape that no factor has")
    if header.dtype not in (*FLOATS, *FLOAT8, *QUANTISED):
        raise FormatError(
            f"{source.text(name)} holds {header.dtype}; factors of {', '.join(FLOATS)}, "
            f"{' and '.join(FLOAT8)} are read, convert it to one"
        )
    return header.shape


def read_number(source: AdapterSource, name: str) -> float:
    """Read a tensor that holds one number, such as an alpha.

    Raises
    ------
    FormatError
        It holds several, or one that is not finite.
    """
    import math

    header = source.tensors.headers[name]
    if math.prod(header.shape) != 1:
        raise FormatError(f"{source.text(name)} should hold one number")
    value = source.tensors.number(name)
    if not math.isfinite(value):
        raise FormatError(f"{source.text(name)} holds {value}")
    return value


def some(names: Iterable[str], most: int = 3) -> str:
    """Write the first few of many names, and how many more there are.

    >>> some(["a", "b", "c", "d"])
    'a, b, c and 1 more'
    """
    listed = list(names)
    return ", ".join(listed[:most]) + (
        f" and {len(listed) - most} more" if len(listed) > most else ""
    )
