"""What every measure of an adapter against its base does first."""

from __future__ import annotations

import os
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from subspace.adapters.rotary import refuse_reordered
from subspace.adapters.source import some
from subspace.errors import ShapeError, UnknownModuleError
from subspace.pretrained import open_pretrained

if TYPE_CHECKING:
    from collections.abc import Sequence

    from subspace.adapters import Adapter
    from subspace.pretrained import Pretrained

    Base = Pretrained | str | os.PathLike[str]


def open_base(base: Base, adapters: Sequence[Adapter] = ()) -> Pretrained:
    """Open a base that is given as a path, with the layers that adapters replicate of it."""
    opened = open_pretrained(base) if isinstance(base, str | os.PathLike) else base
    aliases = {name: source for each in adapters for name, source in each.sources.items()}
    return opened.with_aliases(aliases) if aliases else opened


def fit_modules(adapter: Adapter, base: Pretrained, modules: str | None) -> Adapter:
    """Choose the modules that the base has in their shape, before any work.

    One that it lacks, or has in another shape (a resized vocabulary), is left out, and a note says
    so; an adapter that was opened with ``strict`` refuses, as does one of which less than half fit.

    Raises
    ------
    UnknownModuleError
        The base lacks modules, or none matches `modules`.
    ShapeError
        Modules of the base have other shapes.
    FormatError
        Rows of the adapter are in another order than the base's.
    """
    chosen = adapter.select(modules)
    refuse_reordered(chosen, chosen, f"those of {base.name} in")
    left: dict[str, UnknownModuleError | ShapeError] = {}
    for name, info in chosen.updates.items():
        try:
            base.get(name, shape=info.shape)
        except (UnknownModuleError, ShapeError) as error:  # noqa: PERF203 - the others are held too
            left[name] = error
    if not left:
        return chosen
    first = next(iter(left.values()))
    if adapter.strict or 2 * len(left) > len(chosen):
        raise first
    note = f"left out, since the base does not have them so: {some(left)} ({first})"
    kept = {name: info for name, info in chosen.updates.items() if name not in left}
    return replace(
        chosen, updates=MappingProxyType(kept), partial=True, notes=(note, *chosen.notes)
    )
