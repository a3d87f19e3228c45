"""Compute all that a report shows, from adapters to one frozen result."""

from __future__ import annotations

import itertools
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from subspace.errors import ArgumentError
from subspace.reports.provenance import adapter_files, base_files, trained_from
from subspace.results import Report, Source

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence

    import torch

    from subspace.adapters import Adapter
    from subspace.pretrained import Pretrained
    from subspace.results import Amplification, Rank, Side, Similarity, Table6

MOST_PAIRS = 10
"""Pairs that one report compares: all of five adapters. Of more, the first with each other."""

MOST_SENTENCES = 3
_NO_RUNS = (
    "No replicable rank: it takes two runs of one configuration that differ in their seed, and no "
    "two of these adapters are such; the table of ranks has each spectrum alone."
)
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
        An adapter that had nothing to learn: the first adapter is held against it too.
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
    >>> made = LowRankUpdate("q", torch.eye(2, 9), torch.eye(9, 2), 1.0)
    >>> found = report([Adapter.from_updates({"q": made}, name="one")])
    >>> found.sources[0].ranks, len(found.pairs)
    ((2, 2), 0)
    """
    from subspace.adapters import Aligned, align
    from subspace.measures.amplification.measure import amplifications
    from subspace.measures.bases import open_base
    from subspace.measures.rank.measure import rank
    from subspace.measures.similarity.measure import compare
    from subspace.reports.seeds import replicable, runs_of_one
    from subspace.spectra import spectra

    _check(adapters)
    tell = progress or (lambda _stage: lambda _count: None)
    group = align(adapters if control is None else [*adapters, control], rename)
    chosen = group.only(*range(len(adapters))).select(modules)
    controls = group[len(adapters) :]
    compared = []
    for n, (a, b) in enumerate(_pairs(chosen)):
        compared.append(
            compare(
                Aligned([a, b, *(() if n else controls)]), side=side, level=level, device=device,
                progress=tell(f"comparing {a.name} and {b.name}"),
            )
        )  # fmt: skip
    ranks = tuple(rank(Aligned([one]), level=level, device=device) for one in chosen)
    seeds = replicable(runs_of_one(chosen), side=side, level=level, device=device, progress=tell)
    singular = tuple(
        {name: tuple(s.S[: s.rank].tolist()) for name, s in spectra(one, device=device).items()}
        for one in chosen
    )
    whole: tuple[Amplification, ...] = ()
    curves: tuple[Amplification, ...] = ()
    read: tuple[tuple[str, str], ...] = ()
    if base is not None:
        base = open_base(base)  # once, for Table 7 and for what identifies it
        at = tell("projecting the base")
        curves = tuple(
            amplifications(
                chosen, base, ranks=_cuts(chosen), top=top, cache=cache, device=device, progress=at
            )
        )
        whole = tuple(_at_own_rank(*each) for each in zip(chosen, curves, strict=True))
        read = base_files(base)
    said = _sentences(compared, whole, seeds, ranks)
    return Report(
        sources=tuple(_source(adapter) for adapter in chosen),
        side=side,
        level=level,
        pairs=tuple(compared),
        ranks=ranks,
        replicable=seeds,
        singular=singular,
        findings=said,
        base=whole[0].base if whole else "",
        amplifications=whole,
        curves=curves,
        sweep=sweep,
        command=command,
        versions=_versions(),
        base_files=read,
        trained=trained_from(chosen),
    )


def _sentences(
    compared: Sequence[Similarity],
    whole: Sequence[Amplification],
    seeds: Sequence[Rank],
    ranks: Sequence[Rank],
) -> tuple[str, ...]:
    """Choose what is said first: the first pair, two seeds of one configuration, Table 7, ranks."""
    from subspace.findings import describe_amplification, describe_rank, describe_similarity

    said = list(describe_similarity(compared[0], compared[0])[:2]) if compared else []
    runs = [set(each.adapters) for each in seeds]
    of_seeds = next((p for p in compared if any(set(p.adapters) <= one for one in runs)), None)
    if of_seeds is not None and of_seeds is not compared[0]:
        said.append(describe_similarity(compared[0], of_seeds)[2])
    said += [describe_amplification(whole)] if whole else []
    if len(said) >= MOST_SENTENCES:
        return tuple(said)
    if len(ranks) > 1 and not seeds:
        return (*said, _NO_RUNS)
    return (*said, *describe_rank((*seeds, ranks[0])[0])[: MOST_SENTENCES - len(said)])


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


def _cuts(adapters: Sequence[Adapter]) -> list[int]:
    """Powers of two, and every module's own rank."""
    own = {info.rank for adapter in adapters for info in adapter.updates.values()}
    return sorted(own | {2**k for k in range(max(own).bit_length())})


def _at_own_rank(adapter: Adapter, curve: Amplification) -> Amplification:
    own = {name: info.rank for name, info in adapter.updates.items()}
    return replace(curve, rows=tuple(row for row in curve if row.rank == own[row.module]))


def _source(adapter: Adapter) -> Source:
    ranks = [info.rank for info in adapter.updates.values()]
    return Source(
        name=adapter.name,
        format=adapter.format,
        method=str(adapter.method),
        base_model=str(adapter.metadata.get("base_model") or ""),
        modules=len(ranks),
        parameters=sum(info.parameters for info in adapter.updates.values()),
        ranks=(min(ranks), max(ranks)),
        files=adapter_files(adapter),
        notes=adapter.notes,
    )


def _versions() -> dict[str, str]:
    return {package: found for package in _PACKAGES if (found := _version(package))}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # run from a checkout
        return None
