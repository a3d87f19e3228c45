"""What every measure of an adapter against its base does first."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from subspace.adapters.rotary import refuse_reordered
from subspace.pretrained import open_pretrained

if TYPE_CHECKING:
    from subspace.adapters import Adapter
    from subspace.pretrained import Pretrained

    Base = Pretrained | str | os.PathLike[str]


def open_base(base: Base) -> Pretrained:
    """Open a base that is given as a path."""
    return open_pretrained(base) if isinstance(base, str | os.PathLike) else base


def fit_modules(adapter: Adapter, base: Pretrained, modules: str | None) -> Adapter:
    """Choose the modules, and hold their shapes against the base before any work.

    Raises
    ------
    UnknownModuleError
        The base lacks a module, or none matches `modules`.
    ShapeError
        A module of the base has another shape.
    FormatError
        Rows of the adapter are in another order than the base's.
    """
    chosen = adapter.select(modules)
    refuse_reordered(chosen, chosen, f"those of {base.name} in")
    for name, info in chosen.updates.items():
        base.get(name, shape=info.shape)
    return chosen
