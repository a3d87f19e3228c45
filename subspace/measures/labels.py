"""What several adapters are called beside each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from subspace.adapters import Adapter


def label_adapters(adapters: Sequence[Adapter]) -> tuple[str, ...]:
    """Name adapters; folders of one name are told apart by the folders that hold them."""
    named = [x.name for x in adapters]
    paths = [None if x.path is None else x.path.absolute() for x in adapters]
    above = [[] if path is None else list(path.parts[:-1]) for path in paths]
    while True:
        alike = [
            [m for m, other in enumerate(named) if other == name and paths[m] is not None]
            for name in named
        ]
        short = {n for same in alike if len({paths[m] for m in same}) > 1 for n in same if above[n]}
        if not short:
            return tuple(named)
        for n in short:
            named[n] = f"{above[n].pop()}/{named[n]}"


def label_distinctly(adapters: Sequence[Adapter]) -> tuple[str, ...]:
    """Name adapters; the same one twice, or two in memory, are told apart by a number."""
    named = label_adapters(adapters)
    return tuple(
        name if named[:n].count(name) == 0 else f"{name} ({named[:n].count(name) + 1})"
        for n, name in enumerate(named)
    )
