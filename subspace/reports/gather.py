"""Every number that a report, the gallery or the demo shows of adapters, each made once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import torch

    from subspace.adapters import Adapter
    from subspace.pretrained import Pretrained
    from subspace.results import Amplification, Profile, Rank, Side, Similarity


class Comparison(NamedTuple):
    """Two adapters to compare on one side; with a control, the first is compared with it too."""

    a: Adapter
    b: Adapter
    side: Side = "A"
    control: Adapter | None = None


class Runs(NamedTuple):
    """Adapters whose ranks are to be counted together: one, or runs of one configuration."""

    adapters: tuple[Adapter, ...]
    side: Side = "in"


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be measured; nothing else is. All of `amplified` and below it needs a base.

    Attributes
    ----------
    comparisons
        One that is asked for twice is made once, with the control that either names.
    ranks
        As `subspace.rank` takes them.
    spectra
        Adapters whose singular values are shown.
    amplified
        Adapters of Table 7, in one pass over the base.
    cuts
        Ranks at which `amplified` are also cut. Table 7's own rows are taken from that curve.
    placed, profiled
        As `subspace.placement` and `subspace.profile` take them.
    """

    comparisons: Sequence[Comparison] = ()
    ranks: Sequence[Runs] = ()
    spectra: Sequence[Adapter] = ()
    amplified: Sequence[Adapter] = ()
    cuts: Sequence[int] = ()
    placed: Sequence[Adapter] = ()
    profiled: Sequence[Adapter] = ()


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """The results, by the names of their adapters, in the order in which they were asked for."""

    similarities: Mapping[tuple[str, str, Side], Similarity]
    ranks: Mapping[tuple[tuple[str, ...], Side], Rank]
    singular: Mapping[str, Mapping[str, tuple[float, ...]]]  # of delta W, those that are real
    amplifications: Mapping[str, Amplification]  # Table 7, each module at its full rank
    curves: Mapping[str, Amplification]  # likewise at the cuts; empty without any
    placements: Mapping[str, Similarity]
    profiles: Mapping[str, Profile]


def gather(
    request: Request,
    base: Pretrained | str | os.PathLike[str] | None = None,
    *,
    level: float = 0.01,
    top: bool = True,
    cache: str | os.PathLike[str] | None = None,
    device: str | torch.device = "cpu",
    progress: Callable[[str], Callable[[int], None]] | None = None,
) -> Gathered:
    """Measure what was asked for, each result once.

    Parameters
    ----------
    request
        Adapters that `subspace.align` returned, each of another name.
    base
        The checkpoint that they were trained on; without it nothing is amplified or placed.
    level, device
        As in `subspace.similarity`.
    top, cache
        As in `subspace.amplification`.
    progress
        Called with the name of each stage; what it returns is called with the number of modules
        that were finished.

    Returns
    -------
    `Gathered`

    Raises
    ------
    SubspaceError
        All that the measures themselves raise.

    Examples
    --------
    >>> import torch
    >>> from subspace.adapters import Adapter, LowRankUpdate
    >>> update = LowRankUpdate("q", torch.eye(2, 9), torch.eye(9, 2), 1.0)
    >>> a, b = (Adapter.from_updates({"q": update}, name=name) for name in "ab")
    >>> found = gather(Request(comparisons=[Comparison(a, b), Comparison(a, b)]))
    >>> list(found.similarities), len(found.ranks)
    ([('a', 'b', 'A')], 0)
    """
    from subspace.adapters import Aligned
    from subspace.measures.placement.measure import placement
    from subspace.measures.placement.profile import profile
    from subspace.measures.rank.measure import rank
    from subspace.measures.similarity.measure import compare
    from subspace.spectra import spectra

    begin = progress or (lambda _stage: lambda _count: None)
    similarities = {
        key: compare(
            Aligned([one.a, one.b, *([] if one.control is None else [one.control])]),
            side=one.side, level=level, device=device,
            progress=begin(f"comparing {one.a.name} and {one.b.name}"),
        )
        for key, one in _once(request.comparisons).items()
    }  # fmt: skip
    ranks = {}
    for adapters, side in request.ranks:
        names = tuple(adapter.name for adapter in adapters)
        # One adapter alone has its spectrum and no more: that takes no time to show.
        stage = begin(f"ranks of {', '.join(names)}") if len(names) > 1 else None
        ranks[names, side] = rank(
            Aligned(adapters), side=side, level=level, device=device, progress=stage
        )
    singular = {
        one.name: {
            name: tuple(s.S[: s.rank].tolist()) for name, s in spectra(one, device=device).items()
        }
        for one in request.spectra
    }
    table7: dict[str, Amplification] = {}
    curves: dict[str, Amplification] = {}
    if base is not None and request.amplified:
        table7, curves = _amplify(
            request, base, top=top, cache=cache, device=device,
            progress=begin("projecting the base"),
        )  # fmt: skip
    placed = () if base is None else request.placed
    profiled = () if base is None else request.profiled
    return Gathered(
        similarities=similarities,
        ranks=ranks,
        singular=singular,
        amplifications=table7,
        curves=curves,
        placements={a.name: placement(a, base, device=device) for a in placed if base is not None},
        profiles={a.name: profile(a, base, device=device) for a in profiled if base is not None},
    )


def _once(comparisons: Iterable[Comparison]) -> dict[tuple[str, str, Side], Comparison]:
    once: dict[tuple[str, str, Side], Comparison] = {}
    for one in comparisons:
        before = once.setdefault((one.a.name, one.b.name, one.side), one)
        if before.control is None and one.control is not None:
            once[one.a.name, one.b.name, one.side] = one
    return once


def _amplify(
    request: Request,
    base: Pretrained | str | os.PathLike[str],
    *,
    top: bool,
    cache: str | os.PathLike[str] | None,
    device: str | torch.device,
    progress: Callable[[int], None],
) -> tuple[dict[str, Amplification], dict[str, Amplification]]:
    """Return Table 7 of each adapter, and its curve over the cuts."""
    from subspace.measures.amplification.measure import amplifications

    adapters = request.amplified
    own = {rank for adapter in adapters for rank in _own_ranks(adapter).values()}
    ranks = sorted(own.union(request.cuts)) if request.cuts else None
    rows = amplifications(
        adapters, base, ranks=ranks, top=top, cache=cache, device=device, progress=progress
    )
    by_name = {adapter.name: row for adapter, row in zip(adapters, rows, strict=True)}
    if ranks is None:
        return by_name, {}
    table7 = {adapter.name: _at_own_rank(adapter, by_name[adapter.name]) for adapter in adapters}
    return table7, by_name


def _at_own_rank(adapter: Adapter, curve: Amplification) -> Amplification:
    own = _own_ranks(adapter)
    return replace(curve, rows=tuple(row for row in curve if row.rank == own[row.module]))


def _own_ranks(adapter: Adapter) -> dict[str, int]:
    """Return each module's full rank: its matrix may have room for fewer directions than r."""
    return {name: min(info.rank, *info.shape) for name, info in adapter.updates.items()}
