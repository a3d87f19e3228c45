"""Fewer directions for the same update: the nearest matrix of lower rank, from factors alone.

Of all matrices of rank k the nearest to delta W in the Frobenius norm has its k leading singular
values and vectors, and misses the rest (Eckart & Young 1936, Psychometrika 1):
``|delta W - kept|_F^2 = sum of the other S^2``. Of several modules at once, the nearest with K
directions in all have the K largest singular values of them all.
"""

from __future__ import annotations

import math
from collections import ChainMap
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch

from subspace.adapters import LowRankUpdate, Method
from subspace.adapters.source import some
from subspace.adapters.writers.content import find_alpha
from subspace.errors import AnalysisError, ArgumentError
from subspace.measures.resize.budgets import choose_budget, count_kept, share_budget, sum_tails
from subspace.results import ModuleResize, Resize
from subspace.spectra import equal_chunks, over_chunks, spectra, usable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

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
    dtype: str | None = None,
    modules: str | None = None,
    allow_growth: bool = False,
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
        Of the new factors: ``"float32"``, ``"float64"``, ``"float16"`` or ``"bfloat16"``. None
        keeps what is stored, the widest of a module's factors, and float32 for what torch does
        not compute with. What it rounds comes on top of the errors in the result.
    modules
        A glob of the modules to resize and keep.
    allow_growth
        Let the new factors hold more values than the adapter stores: LoHa and LoKr store far fewer
        than a B and an A of the same update.
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
        None or several of the three are given, or one is out of its range; or the new factors
        would hold more values than are stored.
    NonFiniteError
        A factor holds NaN or infinity.
    AnalysisError
        Nothing is left: every update is zero.

    Examples
    --------
    >>> import subspace
    >>> smaller = subspace.resize(subspace.load("data/adapters/r64-seed1"), error=0.1)
    >>> smaller["bert.encoder.layer.5.attention.self.query"].after
    1
    >>> smaller.adapter
    Adapter('r64-seed1', LoRA, 12 modules, rank 1, 4, 6, 7, 8, 10, 12, 15, 16)
    """
    asked, value = choose_budget(rank, energy, error)
    if budget not in ("module", "all"):
        raise ArgumentError(f"budget is {budget!r}; it is 'module' or 'all'")
    if dtype is not None and dtype not in DTYPES:
        raise ArgumentError(f"dtype is {dtype!r}; it is one of {', '.join(DTYPES)}")
    adapter, device = adapter.select(modules), usable(device)
    dtypes = {name: dtype or _find_widest(info) for name, info in adapter.updates.items()}
    values, made = _cut(adapter, asked, value, budget, dtypes, device, progress)
    kept = {name: made[name].rank if name in made else 0 for name in adapter}
    table = {name: _module(adapter.updates[name], values[name], kept[name]) for name in adapter}
    left_out = [name for name, directions in kept.items() if not directions]
    if len(left_out) == len(kept):
        raise AnalysisError(
            f"adapter {adapter.name!r}: nothing would be left of it, every update is 0"
        )
    if not allow_growth:
        _refuse_growth(adapter, table)
    energy, error = _of_all(list(table.values()))
    notes = []
    if left_out:
        notes.append(f"left out, since nothing of them is kept: {some(left_out)}")
    if Method.DORA in adapter.method:
        notes.append(
            "DoRA: what is kept and lost is of B @ A, not of the weights that it normalises"
        )
    if any(info.groups > 1 for info in adapter.updates.values()):
        notes.append("a convolution in groups mixes them after this, and PEFT has no place for it")
    return Resize(
        name=adapter.name,
        asked=asked,
        value=value,
        budget=budget,
        dtype="/".join(dict.fromkeys(dtypes.values())),
        modules=MappingProxyType(table),
        energy=energy,
        error=error,
        notes=tuple(notes),
        adapter=_resize_adapter(adapter, made, dtypes, notes),
    )


def _find_widest(info: UpdateInfo) -> str:
    """Return the stored dtype, the widest of several; float32 for what is none of `DTYPES`."""
    bits = {"float64": 64, "float32": 32, "float16": 16, "bfloat16": 16}
    stored = [dtype if dtype in bits else "float32" for dtype in info.dtype.split("/")]
    # Neither of the two of 16 bits holds the other.
    if {"float16", "bfloat16"} <= {*stored}:
        stored.append("float32")
    return max(stored, key=bits.__getitem__)


def _refuse_growth(adapter: Adapter, table: Mapping[str, ModuleResize]) -> None:
    before = sum(m.parameters_before for m in table.values())
    after = sum(m.parameters_after for m in table.values())
    if after > before:
        raise ArgumentError(
            f"adapter {adapter.name!r} stores {before:,} values, and its new factors would hold "
            f"{after:,}: a smaller rank or a larger error, or --allow-growth (allow_growth=True) "
            "writes them all the same"
        )


def _cut(
    adapter: Adapter,
    asked: Asked,
    value: float,
    budget: Budget,
    dtypes: Mapping[str, str],
    device: torch.device,
    progress: Callable[[int], None] | None,
) -> tuple[dict[str, list[float]], dict[str, LowRankUpdate]]:
    """Return every module's singular values, and the updates that are left.

    One budget for all asks for all values first. Directions are found again then, rather than
    kept: those of a large adapter would fill the memory.
    """

    def shape(name: str) -> tuple[int, ...]:
        return *adapter.updates[name].shape, adapter.updates[name].rank

    def solved(names: list[str]) -> dict[str, Spectrum]:
        part = MappingProxyType({name: adapter.updates[name] for name in names})
        return spectra(replace(adapter, updates=part), device=device)

    def only_values(names: list[str]) -> dict[str, list[float]]:
        return {name: _real(spectrum) for name, spectrum in solved(names).items()}

    chunks = equal_chunks(adapter, shape)
    shared: dict[str, int] | None = None
    if budget == "all":
        every = dict(ChainMap(*over_chunks(chunks, only_values)))
        shared = share_budget({name: every[name] for name in adapter}, asked, value)

    def work(names: list[str]) -> tuple[dict[str, list[float]], dict[str, LowRankUpdate]]:
        solutions = solved(names)
        values = {name: _real(spectrum) for name, spectrum in solutions.items()}
        kept = shared or {name: count_kept(S, asked, value) for name, S in values.items()}
        left = [name for name in names if kept[name]]
        return values, {
            name: _update(adapter, name, solutions[name], kept[name], getattr(torch, dtypes[name]))
            for name in left
        }

    parts = over_chunks(chunks, work, progress=progress)
    return dict(ChainMap(*(v for v, _ in parts))), dict(ChainMap(*(made for _, made in parts)))


def _update(
    adapter: Adapter, name: str, spectrum: Spectrum, after: int, dtype: torch.dtype
) -> LowRankUpdate:
    """Return the leading part of delta W, its factors balanced."""
    info = adapter.updates[name]
    divisor = math.sqrt if Method.RSLORA in adapter.method else float
    scale = find_alpha(info.scale, divisor(info.rank)) / divisor(after)
    root = (spectrum.S[:after] / abs(scale)).sqrt()
    signed = root * math.copysign(1.0, scale)
    B = (spectrum.U[:, :after] * signed).to(dtype).contiguous()  # (d_out, after)
    A = (root[:, None] * spectrum.V[:, :after].mT).to(dtype).contiguous()  # (after, d_in)
    if not bool(torch.isfinite(B).all() and torch.isfinite(A).all()):
        raise ArgumentError(f"module {name!r}: its new factors are beyond {_name(dtype)}")
    return LowRankUpdate(name, A, B, scale, source=f"{adapter.path or adapter.name}, resized")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _resize_adapter(
    adapter: Adapter,
    made: Mapping[str, LowRankUpdate],
    dtypes: Mapping[str, str],
    notes: Sequence[str],
) -> Adapter:
    infos = {
        name: replace(
            info,
            rank=made[name].rank,
            scale=made[name].scale,
            dtype=dtypes[name],
            stored=None,
        )
        for name, info in adapter.updates.items()
        if name in made
    }
    return replace(
        adapter,
        updates=MappingProxyType(infos),
        partial=adapter.partial or len(made) < len(adapter),
        resized=True,
        notes=tuple(dict.fromkeys((*adapter.notes, *notes))),
        initial=MappingProxyType({}),
        _read=made.__getitem__,
    )


def _real(spectrum: Spectrum) -> list[float]:
    """Return the singular values that computing them has not made, descending."""
    values: list[float] = spectrum.S[spectrum.error < spectrum.S].tolist()
    return [] if spectrum.method == "none" else values


def _module(info: UpdateInfo, S: Sequence[float], after: int) -> ModuleResize:
    left = sum_tails(S)
    total = left[0]
    return ModuleResize(
        module=info.name,
        shape=info.shape,
        before=info.rank,
        after=after,
        energy=1 - left[after] / total if total else math.nan,
        error=math.sqrt(left[after] / total) if total else math.nan,
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
