"""Which adapters of a report are runs of one configuration, and the side to count them on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from subspace.adapters import Adapter, Aligned
    from subspace.results import Side


def group_runs(adapters: Aligned) -> list[Aligned]:
    """Group the adapters whose files tell of one configuration.

    They have the same base, method and modules, and in each module the same shape, rank and scale.
    The files do not tell whether they differ in their seed alone, or in their task too.

    Returns
    -------
    Groups of two or more, in the order given.
    """
    from subspace.adapters import Aligned

    groups: dict[object, list[Adapter]] = {}
    for adapter in adapters:
        modules = frozenset(
            (name, info.shape, info.rank, info.scale) for name, info in adapter.updates.items()
        )
        key = (adapter.method, adapter.base_model, modules)
        groups.setdefault(key, []).append(adapter)
    return [Aligned(group) for group in groups.values() if len(group) > 1]


def choose_side(runs: Sequence[Adapter], side: Side) -> Side:
    """Return the side on which runs of one configuration are counted.

    It is the report's side, except A: A holds the random initial A of every run. There delta-A is
    taken where every initial A is stored, and else in.
    """
    if side != "A":
        return side
    stored = all(name in run.initial for run in runs for name in run.updates)
    return "delta-A" if stored else "in"
