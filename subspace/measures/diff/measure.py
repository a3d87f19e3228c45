"""Two full checkpoints: what a fine-tune changed, and the low-rank adapter that is nearest to it.

A full fine-tune has no B and A, but its delta W = tuned - base has singular directions too, and
the leading ones are an update like an adapter's: no matrix of that rank is nearer (Eckart & Young
1936). So LoRA and full fine-tuning are compared by one measure, and the one becomes the other.
"""

from __future__ import annotations

import math
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import torch

from subspace import linalg
from subspace.adapters import Adapter, LowRankUpdate, Method, SetAside, SetAsideReason
from subspace.adapters.layout import Layout
from subspace.errors import NonFiniteError
from subspace.measures.bases import open_base
from subspace.measures.diff import notes as diff_notes
from subspace.measures.diff.adapted import match_adapted
from subspace.measures.diff.kept import DiffOptions, count_sure, first_count
from subspace.measures.diff.stored_pair import read_pair, tensor_change
from subspace.measures.diff.weights import PLAIN, match_weights
from subspace.pretrained.weight import EMBEDDINGS
from subspace.results import Diff, ModuleDiff
from subspace.spectra import usable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from subspace.measures.bases import Base
    from subspace.measures.diff.stored_pair import StoredPair
    from subspace.pretrained import Pretrained, Weight

FORMAT = "difference of two checkpoints"


def diff(
    base: Base,
    tuned: Base | Adapter,
    *,
    rank: int | None = None,
    energy: float | None = None,
    modules: str | None = None,
    factors: bool = True,
    device: str | torch.device = "cpu",
    progress: Callable[[int], None] | None = None,
) -> Diff:
    """Make an update of each module that differs between two checkpoints of one model.

    Parameters
    ----------
    base, tuned
        The model before and after, open or as paths: folders, files or indices of shards, in any
        float dtype, with or without the prefixes of a head. `tuned` may be an adapter of the base:
        the weights that it makes of it are compared, DoRA's magnitude and all.
    rank
        How many leading directions of each delta W are kept, 16 if nothing is asked for.
    energy
        Instead: as many as hold this share of each module's ``|delta W|_F^2``, in (0, 1].
    modules
        A shell-style pattern.
    factors
        Keep the directions, for `Diff.adapter`. Without them there are only numbers, sooner.
    device
        Where to compute: any torch device with float64.
    progress
        Called with the number of modules that were finished.

    Returns
    -------
    `Diff`, a mapping from the modules that changed to `ModuleDiff`, in the model's order. Its
    `adapter` goes wherever an adapter does: ``similarity(lora, diff(base, tuned).adapter,
    side="in")``. The sides that speak of A and B alone say nothing of it and are refused.

    Raises
    ------
    MissingFileError, FormatError, MissingExtraError
        As `subspace.pretrained.open_pretrained` does.
    UnknownModuleError
        They share no module, or none matches `modules`.
    ShapeError
        A module has another shape in the tuned checkpoint; both are named.
    NonFiniteError
        A weight holds NaN or infinity.
    ArgumentError
        A rank below 1, an energy that is no share, both of them, or a device that this machine
        lacks.

    Notes
    -----
    Both checkpoints are read where they lie, one module at a time, and delta W is never formed:
    norms are float64 sums over panels of rows, the leading directions are `subspace.linalg.leading`
    of the difference (the Gram of the short side to 2048, block Krylov beyond, whose values are
    lower bounds). Factors, B = U sqrt(S) and A = sqrt(S) V^T, are float32 unless W is float64.

    How many directions are real, beyond what storing W in 16 bits rounds away, is derived in
    `subspace.measures.diff.rounding`. The adapter carries that level, so that `similarity` and
    `rank` count none below it.

    A bias, a norm and whatever else is no module's matrix is in no update: `Diff.tensors` has them.
    """
    options = DiffOptions(first_count(rank, energy), energy, factors, usable(device))
    base = open_base(base)
    if isinstance(tuned, Adapter):
        both, method = match_adapted(base, tuned, modules), tuned.method
        changes = []
    else:
        tuned, method = open_base(tuned), Method.FULL
        both = match_weights(base, tuned, modules)
        changes = [
            tensor_change(name, base.tensors[name], tuned.tensors[other])
            for name, other in both.tensors.items()
        ]
    results: dict[str, ModuleDiff] = {}
    updates: dict[str, LowRankUpdate] = {}
    equal = []
    for name, (before, after) in both.weights.items():
        pair = _read(name, before, after, options.device)
        if pair.norm == 0:
            equal.append(name)
        else:
            results[name], update = _compare_module(name, before, after, pair, options, base)
            if update is not None:
                updates[name] = update
        if progress is not None:
            progress(1)
    result = Diff(
        base=base.name,
        tuned=tuned.name,
        rank=None if energy is not None else options.rank,
        energy=energy,
        modules=MappingProxyType(results),
        equal=tuple(equal),
        only_base=both.only_base,
        only_tuned=both.only_tuned,
        tensors=tuple(changes),
        notes=both.notes,
    )
    if not factors:
        return result
    kept = _build_adapter(result, updates, both.weights, base)
    return replace(result, adapter=replace(kept, method=method | Method.DIFFERENCE))


def _read(name: str, before: Weight, after: Weight, device: torch.device) -> StoredPair:
    pair = read_pair(before.W.to(device), after.W.to(device), device)
    if not math.isfinite(pair.norm) or not math.isfinite(pair.w_norm):
        bad = after if math.isfinite(pair.w_norm) else before
        raise NonFiniteError(f"W of module {name!r} holds NaN or infinity ({bad.source})")
    return pair


def _compare_module(
    name: str,
    before: Weight,
    after: Weight,
    pair: StoredPair,
    options: DiffOptions,
    base: Pretrained,
) -> tuple[ModuleDiff, LowRankUpdate | None]:
    D, norm = pair.difference, pair.norm * pair.difference.factor
    k = options.rank
    while True:
        leading = linalg.leading(D, k, norm=norm, vectors=options.factors, device=options.device)
        kept = options.count_kept(leading, k, norm)
        if kept is not None:
            break
        k *= 2
    S, error = (x.numpy() / D.factor for x in (leading.S, leading.error))
    # What is stored as a float8 or packed integers was rounded in a way that is not known here.
    plain = PLAIN.issuperset((before.dtype, after.dtype))
    many = count_sure(leading, k)
    real, level = pair.rounding.count(S[:many].tolist(), error[:many].tolist(), pair.norm)
    result = ModuleDiff(
        module=name,
        kind=_name_kind(before, base),
        shape=before.shape,
        base_dtype=before.dtype,
        tuned_dtype=after.dtype,
        unchanged=pair.unchanged,
        w_norm=pair.w_norm,
        delta_norm=pair.norm,
        rank=kept,
        sigma=S[:kept],
        error=error[:kept],
        method=leading.method,
        energy=min(1.0, float(np.square(S[:kept] / pair.norm).sum())),
        stable=float((pair.norm / S[0]) ** 2),
        rounding=pair.rounding.norm if plain else math.nan,
        level=level if plain else math.nan,
        real=real if plain else None,
        more=plain and real == many < min(before.shape),
    )
    result = replace(result, note=diff_notes.note_module(result, pair.grids))
    if not options.factors or not kept:
        return result, None
    return result, _update(result, pair, leading, after.source, options.device)


def _name_kind(weight: Weight, base: Pretrained) -> str:
    dimensions = len(base.tensors.headers[weight.tensors[0]].shape)
    if dimensions > 2:
        return f"conv{dimensions - 2}d"
    return "embedding" if weight.name.rsplit(".", 1)[-1] in EMBEDDINGS else "linear"


def _update(
    result: ModuleDiff, pair: StoredPair, leading: linalg.Leading, source: str, device: torch.device
) -> LowRankUpdate:
    """Return the leading part of a difference, B = U sqrt(S), A = sqrt(S) V^T."""
    D, r = pair.difference, result.rank
    short = leading.V[:, :r].to(device)
    tall = D if D.shape[0] >= D.shape[1] else D.mT
    # What the tall side has along them: of exact directions, its singular vectors times S.
    long = torch.cat([panel @ short for _, panel in linalg.panels(tall, torch.float64, device)])
    roots = leading.S[:r].sqrt().to(device)
    long, short = long / roots, short * roots
    B, A = (long, short.mT) if tall is D else (short, long.mT)
    dtype = torch.float64 if D.dtype == torch.float64 else torch.float32
    back = D.factor**-0.5
    S, error = (x / D.factor for x in (leading.S, leading.error))
    # A residual each, or one bound on what all come from.
    off = float(
        error[:r].max() if leading.method == "gram" else torch.linalg.vector_norm(error[:r])
    )
    return LowRankUpdate(
        result.module,
        (A * back).to("cpu", dtype).contiguous(),
        (B * back).to("cpu", dtype).contiguous(),
        1.0,
        source=source,
        error=off,
        beyond=float(S[r]) if r < len(S) else 0.0,
        level=0.0 if math.isnan(result.level) else result.level,
    )


def _build_adapter(
    result: Diff,
    updates: dict[str, LowRankUpdate],
    weights: Mapping[str, tuple[Weight, Weight]],
    base: Pretrained,
) -> Adapter:
    """Wrap the kept directions as what a reader, and `save`, takes for an adapter of the base."""
    kept = Adapter.from_updates(updates, name=result.tuned)
    infos = {}
    for name, info in kept.updates.items():
        stored = base.tensors.headers[weights[name][0].tensors[0]].shape
        kind = result[name].kind
        kernel = stored[2:] if kind.startswith("conv") else ()
        infos[name] = replace(info, kind=kind, kernel=kernel)
    named = base.config.get("_name_or_path")
    turned = any(
        weights[name][0].stored_transposed for name, info in infos.items() if info.kind == "linear"
    )
    return replace(
        kept,
        format=FORMAT,
        updates=MappingProxyType(infos),
        base_model=named if isinstance(named, str) and named else result.base,
        layout=Layout(stored_transposed=turned),
        set_aside=tuple(
            SetAside.of(t.tensor, base.tensors.headers[t.tensor], SetAsideReason.CHANGED)
            for t in result.tensors
            if t.changed
        ),
        notes=diff_notes.note_adapter(result),
    )
