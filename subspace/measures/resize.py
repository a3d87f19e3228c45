"""Fewer directions for the same update: the nearest matrix of lower rank, from factors alone.

Of all matrices of rank k the nearest to delta W in the Frobenius norm has its k leading singular
values and vectors, and misses the rest (Eckart & Young 1936, Psychometrika 1):
``|delta W - kept|_F^2 = sum of the other S^2``. Of several modules at once, the nearest with K
directions in all have the K largest singular values of them all.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import accumulate
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch

from subspace.adapters import LowRankUpdate
from subspace.adapters.source import some
from subspace.adapters.written import alpha_of
from subspace.errors import AnalysisError, ArgumentError
from subspace.results import ModuleResize, Resize
from subspace.spectra import over_chunks, spectra, usable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from subspace.adapters import Adapter, UpdateInfo
    from subspace.results import Asked, Budget
    from subspace.spectra import Spectrum

DTYPES = ("float32", "float64", "float16", "bfloat16")


def resize(
    adapter: Adapter,
    *,
    rank: int | None = None,
    energy: float | None = None,
    error: float | None = None,
    budget: Budget = "module",
    dtype: str = "float32",
    modules: str | None = None,
    device: str | torch.device = "cpu",
    progress: Callable[[int], None] | None = None,
) -> Resize:
    """Keep the leading singular directions of every update: the best adapter of lower rank.

    Give one of `rank`, `energy` and `error`. Singular values come from the factored SVD; delta W is
    never formed. The new factors are balanced, ``B = U sqrt(S / s)`` and ``A = sqrt(S / s) V^T``
    with the scale s = alpha / r_new of the alpha as it was, so that one ``lora_alpha`` and a
    ``rank_pattern`` say all (rsLoRA: alpha / sqrt(r_new)).

    Parameters
    ----------
    adapter
        As `load` gives it.
    rank
        Directions to keep in each module; with ``budget="all"`` their mean over the modules.
    energy
        Share of ``|delta W|_F^2`` to keep, in (0, 1].
    error
        Largest ``|delta W - kept|_F / |delta W|_F``, in [0, 1).
    budget
        ``"module"``: every module by itself. ``"all"``: the largest singular values over all
        modules, so that `energy` and `error` hold for all together and ranks differ.
    dtype
        Of the new factors: ``"float32"``, ``"float64"``, ``"float16"`` or ``"bfloat16"``. What it
        rounds comes on top of the errors in the result.
    modules
        A glob of the modules to resize and keep.
    device
        Where to compute: any torch device with float64.
    progress
        Called with the number of modules just done.

    Returns
    -------
    Resize
        Per module what is kept and lost, and ``.adapter``. A module of which nothing is kept (its
        update is zero, or all its singular values are smaller than others) is left out of it.

    Raises
    ------
    ArgumentError
        None or several of the three are given, or one is out of its range.
    NonFiniteError
        A factor holds NaN or infinity.
    AnalysisError
        Nothing is left: every update is zero.

    Examples
    --------
    >>> import subspace
    >>> smaller = subspace.resize(subspace.load("data/adapters/r64"), error=0.1)
    >>> smaller["bert.encoder.layer.5.attention.self.query"].after
    1
    >>> smaller.adapter
    Adapter('r64', LoRA, 12 modules, rank 1, 6, 7, 8, 10, 11, 12, 13, 15, 18)
    """
    asked, value = _asked(rank, energy, error)
    if budget not in ("module", "all"):
        raise ArgumentError(f"budget is {budget!r}; it is 'module' or 'all'")
    if dtype not in DTYPES:
        raise ArgumentError(f"dtype is {dtype!r}; it is one of {', '.join(DTYPES)}")
    adapter, device = adapter.select(modules), usable(device)
    found = spectra(adapter, device=device)
    real = {name: _real(spectrum) for name, spectrum in found.items()}
    kept = _kept(real, asked, value, budget)
    table = {name: _module(adapter.updates[name], S, kept[name]) for name, S in real.items()}
    left_out = [name for name, count in kept.items() if not count]
    if len(left_out) == len(kept):
        raise AnalysisError(
            f"adapter {adapter.name!r}: nothing would be left of it, every update is 0"
        )
    overall = _of_all(list(table.values()))
    notes = []
    if left_out:
        notes.append(f"left out, since nothing of them is kept: {some(left_out)}")
    if adapter.method.startswith("DoRA"):
        notes.append(
            "DoRA: what is kept and lost is of B @ A, not of the weights that it normalises"
        )
    if any(info.groups > 1 for info in adapter.updates.values()):
        notes.append("a convolution in groups mixes them after this, and PEFT has no place for it")
    return Resize(
        adapter.name,
        asked,
        value,
        budget,
        dtype,
        MappingProxyType(table),
        *overall,
        tuple(notes),
        adapter=_resized(adapter, found, kept, getattr(torch, dtype), notes, progress),
    )


def _resized(
    adapter: Adapter,
    found: dict[str, Spectrum],
    kept: Mapping[str, int],
    dtype: torch.dtype,
    notes: Sequence[str],
    progress: Callable[[int], None] | None,
) -> Adapter:
    names = [name for name in adapter if kept[name]]
    infos = {name: _info(adapter, name, kept[name], dtype) for name in names}

    def work(chunk: list[str]) -> LowRankUpdate:
        (name,) = chunk
        # Popped, so that a module's float64 vectors are gone before the next one's are formed.
        B, A = _factors(infos[name], found.pop(name), dtype)
        return LowRankUpdate(
            name, A, B, infos[name].scale, f"{adapter.path or adapter.name}, resized"
        )

    made = dict(zip(names, over_chunks([[n] for n in names], work, progress=progress), strict=True))
    metadata = {**adapter.metadata, "resized": True}
    if len(names) < len(adapter):
        metadata["partial"] = True
    return replace(
        adapter,
        updates=MappingProxyType(infos),
        metadata=MappingProxyType(metadata),
        notes=tuple(dict.fromkeys((*adapter.notes, *notes))),
        initial=MappingProxyType({}),
        _read=made.__getitem__,
    )


def _info(adapter: Adapter, name: str, after: int, dtype: torch.dtype) -> UpdateInfo:
    info = adapter.updates[name]
    before, divisor = info.rank, math.sqrt if adapter.method == "rsLoRA" else float
    scale = alpha_of(info.scale, divisor(before)) / divisor(after)
    return replace(info, rank=after, scale=scale, dtype=str(dtype).removeprefix("torch."))


def _factors(info: UpdateInfo, spectrum: Spectrum, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return B (d_out, r) and A (r, d_in) with ``scale * B A`` the leading part of delta W."""
    root = (spectrum.S[: info.rank] / abs(info.scale)).sqrt()
    signed = root * math.copysign(1.0, info.scale)
    B = (spectrum.U[:, : info.rank] * signed).to(dtype).contiguous()
    A = (root[:, None] * spectrum.V[:, : info.rank].mT).to(dtype).contiguous()
    if not bool(torch.isfinite(B).all() and torch.isfinite(A).all()):
        raise ArgumentError(f"module {info.name!r}: its new factors are beyond {info.dtype}")
    return B, A


def _asked(rank: int | None, energy: float | None, error: float | None) -> tuple[Asked, float]:
    given: dict[Asked, float | None] = {"rank": rank, "energy": energy, "error": error}
    chosen = [(name, value) for name, value in given.items() if value is not None]
    if len(chosen) != 1:
        raise ArgumentError(
            "give one of rank, energy and error"
            + (f", not {' and '.join(name for name, _ in chosen)}" if chosen else "")
        )
    ((name, value),) = chosen
    if name == "rank":
        if isinstance(value, bool) or value != int(value) or value < 1:
            raise ArgumentError(f"rank is {value!r}; it is a whole number from 1")
        return name, int(value)
    if name == "energy" and not 0 < value <= 1:
        raise ArgumentError(f"energy is {value!r}; it is above 0 and at most 1, such as 0.99")
    if name == "error" and not 0 <= value < 1:
        raise ArgumentError(f"error is {value!r}; it is at least 0 and below 1, such as 0.05")
    return name, float(value)


def _real(spectrum: Spectrum) -> list[float]:
    """Return the singular values that computing them has not made, descending."""
    values: list[float] = spectrum.S[spectrum.error < spectrum.S].tolist()
    return values if spectrum.rung else []


def _tails(S: Sequence[float]) -> list[float]:
    """Return ``sum of S_j^2 over j >= k`` for k = 0 ... len(S), relative to the largest square.

    >>> _tails([4.0, 2.0])
    [1.25, 0.25, 0.0]
    """
    squares = [(s / S[0]) ** 2 for s in S]
    return [*accumulate(reversed(squares), initial=0.0)][::-1]


def _count(S: Sequence[float], asked: Asked, value: float) -> int:
    """Return how many of these to keep.

    >>> [_count([3.0, 2.0, 1.0], *asked) for asked in [("rank", 2), ("energy", 0.9), ("error", 0)]]
    [2, 2, 3]
    """
    if asked == "rank":
        return min(int(value), len(S))
    tails = _tails(S)
    most = (1 - value if asked == "energy" else value**2) * tails[0]
    return next(k for k, tail in enumerate(tails) if tail <= most)


def _kept(
    real: Mapping[str, Sequence[float]], asked: Asked, value: float, budget: Budget
) -> dict[str, int]:
    """Return how many directions of each module to keep.

    >>> _kept({"q": [9.0, 1.0], "k": [3.0, 2.0]}, "rank", 1, "all")
    {'q': 1, 'k': 1}
    >>> _kept({"q": [9.0, 1.0], "k": [0.3, 0.2]}, "rank", 1, "all")
    {'q': 2, 'k': 0}
    """
    if budget == "module":
        return {name: _count(S, asked, value) for name, S in real.items()}
    every = sorted(((s, name) for name, S in real.items() for s in S), key=lambda pair: -pair[0])
    most = _count([s for s, _ in every], asked, value * len(real) if asked == "rank" else value)
    kept = dict.fromkeys(real, 0)
    for _, name in every[:most]:
        kept[name] += 1
    return kept


def _module(info: UpdateInfo, S: Sequence[float], after: int) -> ModuleResize:
    tails = _tails(S)
    total = tails[0]
    return ModuleResize(
        module=info.name,
        shape=info.shape,
        before=info.rank,
        after=after,
        energy=1 - tails[after] / total if total else math.nan,
        error=math.sqrt(tails[after] / total) if total else math.nan,
        norm=S[0] * math.sqrt(total) if total else 0.0,
        parameters_before=info.parameters,
        parameters_after=after * sum(info.shape),
    )


def _of_all(modules: Sequence[ModuleResize]) -> tuple[float, float]:
    """Return the kept share of the energy, and the relative error, over all modules."""
    largest = max(m.norm for m in modules)
    total = math.fsum((m.norm / largest) ** 2 for m in modules)
    lost = math.fsum((m.norm / largest * m.error) ** 2 for m in modules if m.norm)
    return 1 - lost / total, math.sqrt(lost / total)
