"""From adapters to one frozen report: what was compared, every result, and how it was made."""

from __future__ import annotations

import itertools
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from subspace.errors import ArgumentError
from subspace.reports.gather import Comparison, Request, Runs, gather
from subspace.reports.provenance import adapter_files, base_files, trained_from
from subspace.reports.seeds import choose_side, group_runs
from subspace.results import Report, Source

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence

    import torch

    from subspace.adapters import Adapter
    from subspace.pretrained import Pretrained
    from subspace.results import Side, Table6

MOST_PAIRS = 10
"""Pairs that one report compares: all of five adapters. Of more, the first with each other."""

_PACKAGES = ("lora-subspace", "torch", "numpy", "scipy")


def report(
    adapters: Sequence[Adapter],
    base: Pretrained | str | os.PathLike[str] | None = None,
    *,
    sweep: Table6 | None = None,
    control: Adapter | None = None,
    rename: Mapping[str, str] | None = None,
    side: Side = "A",
    level: float = 0.01,
    modules: str | None = None,
    top: bool = True,
    cache: str | os.PathLike[str] | None = None,
    command: str = "",
    device: str | torch.device = "cpu",
    progress: Callable[[str], Callable[[int], None]] | None = None,
) -> Report:
    """Compare adapters, take their spectra, and hold them against their base: one report.

    Adapters of the same modules, ranks and scales are taken for runs of one configuration: how
    many directions they share is told too, on `side` (on delta-A or in where that is A).

    Parameters
    ----------
    adapters
        One or more of one base. Every pair is compared; of more than five, the first one with each.
    base
        The checkpoint that they were trained on, for Table 7; without it there is none.
    sweep
        Table 6 of the runs that they belong to.
    control
        An adapter that had nothing to learn: the first adapter is compared with it too.
    rename
        Old name -> new name of modules, as in `subspace.align`.
    side, level, modules, device
        As in `subspace.similarity`.
    top, cache
        As in `subspace.amplification`.
    command
        What makes this report again, for its last lines.
    progress
        Called with the name of each stage; what it returns is called with the number of modules
        that were finished.

    Raises
    ------
    ArgumentError
        No adapter, or two of one name.
    SubspaceError
        All that the measures themselves raise.

    Examples
    --------
    >>> import torch
    >>> from subspace.adapters import Adapter, LowRankUpdate
    >>> update = LowRankUpdate("q", torch.eye(2, 9), torch.eye(9, 2), 1.0)
    >>> found = report([Adapter.from_updates({"q": update}, name="one")])
    >>> found.sources[0].ranks, len(found.pairs)
    ((2, 2), 0)
    """
    from subspace.adapters import align
    from subspace.findings.report import describe_report
    from subspace.measures.bases import open_base

    _check(adapters)
    group = align(adapters if control is None else [*adapters, control], rename)
    chosen = group.only(*range(len(adapters))).select(modules)
    control = None if control is None else group[-1]
    groups = group_runs(chosen)
    if base is not None:
        base = open_base(base)  # once, for Table 7 and for what identifies it
    pairs = _pairs(chosen)
    measured = gather(
        Request(
            comparisons=[
                Comparison(a, b, side, None if n else control) for n, (a, b) in enumerate(pairs)
            ],
            ranks=[
                *(Runs((one,)) for one in chosen),
                *(Runs(tuple(runs), choose_side(runs, side)) for runs in groups),
            ],
            spectra=chosen,
            amplified=[] if base is None else chosen,
            cuts=_list_cuts(chosen),
        ),
        base,
        level=level,
        top=top,
        cache=cache,
        device=device,
        progress=progress,
    )
    compared = tuple(measured.similarities.values())
    alone = tuple(rank for (names, _), rank in measured.ranks.items() if len(names) == 1)
    together = tuple(rank for (names, _), rank in measured.ranks.items() if len(names) > 1)
    table7 = tuple(measured.amplifications.values())
    return Report(
        sources=tuple(_read_source(adapter) for adapter in chosen),
        side=side,
        level=level,
        pairs=compared,
        ranks=alone,
        replicable=together,
        singular=tuple(measured.singular.values()),
        findings=describe_report(compared, table7, together, alone),
        base=table7[0].base if table7 else None,
        amplifications=table7,
        curves=tuple(measured.curves.values()),
        sweep=sweep,
        command=command,
        versions=_list_versions(),
        base_files=() if base is None else base_files(base),
        trained=trained_from(chosen),
    )


def _check(adapters: Sequence[Adapter]) -> None:
    if not adapters:
        raise ArgumentError("no adapter was given; a report is on one or more")
    names = [adapter.name for adapter in adapters]
    twice = next((name for n, name in enumerate(names) if name in names[:n]), None)
    if twice is not None:
        raise ArgumentError(
            f"two adapters are called {twice!r}, so that no table could tell them apart; "
            "rename one of the folders"
        )


def _pairs(adapters: Sequence[Adapter]) -> list[tuple[Adapter, Adapter]]:
    pairs = list(itertools.combinations(adapters, 2))
    return pairs if len(pairs) <= MOST_PAIRS else [(adapters[0], other) for other in adapters[1:]]


def _list_cuts(adapters: Sequence[Adapter]) -> list[int]:
    """Powers of two, and every module's own rank."""
    own = {info.rank for adapter in adapters for info in adapter.updates.values()}
    return sorted(own | {2**k for k in range(max(own).bit_length())})


def _read_source(adapter: Adapter) -> Source:
    ranks = [info.rank for info in adapter.updates.values()]
    base = adapter.base_model or None
    return Source(
        name=adapter.name,
        format=adapter.format,
        method=str(adapter.method),
        base_model=None if base is None else str(base),
        modules=len(ranks),
        parameters=sum(info.parameters for info in adapter.updates.values()),
        ranks=(min(ranks), max(ranks)),
        files=adapter_files(adapter),
        notes=adapter.notes,
    )


def _list_versions() -> dict[str, str]:
    return {package: installed for package in _PACKAGES if (installed := _find_version(package))}


def _find_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # run from a checkout
        return None
