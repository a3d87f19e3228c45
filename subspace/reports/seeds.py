"""Which of a report's adapters are runs of one configuration, and what these share."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    from subspace.adapters import Adapter, Aligned
    from subspace.results import Rank, Side


def runs_of_one(adapters: Aligned) -> list[Aligned]:
    """Group the adapters that an adapter's own files cannot tell apart but by what was learned.

    Same base, method and modules, and in each module the same shape, rank and scale. That they
    differ in their seed alone, and not in their task too, is for the reader to know.

    Returns
    -------
    Groups of two or more, in the order given.
    """
    from subspace.adapters import Aligned

    found: dict[object, list[Adapter]] = {}
    for adapter in adapters:
        modules = frozenset(
            (name, info.shape, info.rank, info.scale) for name, info in adapter.updates.items()
        )
        key = (adapter.method, adapter.metadata.get("base_model"), modules)
        found.setdefault(key, []).append(adapter)
    return [Aligned(group) for group in found.values() if len(group) > 1]


def replicable(
    groups: Sequence[Aligned],
    *,
    side: Side,
    level: float,
    device: str | torch.device,
    progress: Callable[[str], Callable[[int], None]],
) -> tuple[Rank, ...]:
    """Return the replicable rank of every group.

    On the report's side, but for A: it holds the random start of every run, and gives way to
    delta-A where the start is stored, else to in.
    """
    from subspace.measures.rank.measure import rank

    out = []
    for runs in groups:
        stored = all(name in run.initial for run in runs for name in run.updates)
        of: Side = side if side != "A" else "delta-A" if stored else "in"
        names = ", ".join(run.name for run in runs)
        out.append(
            rank(runs, side=of, level=level, device=device, progress=progress(f"ranks of {names}"))
        )
    return tuple(out)
