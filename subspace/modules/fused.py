"""Modules that one program fuses and another holds apart: their parts, and the rows of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from subspace.modules import flux as flux_names
from subspace.modules import sd3 as sd3_names
from subspace.modules import sdxl as sdxl_names

if TYPE_CHECKING:
    from collections.abc import Sequence

# Fused projections whose rows are one part after another; interleaved ones (query_key_value) need
# the model's configuration and stay whole.
_FUSED = {
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "gate_up_proj": ("gate_proj", "up_proj"),
    # GPT-2's is cut by loralib's MergedLinear alone, into blocks of equal size, named with --map.
    "c_attn": ("c_attn.q", "c_attn.k", "c_attn.v"),
}


def in_diffusers(name: str) -> tuple[str, ...]:
    """Return diffusers' paths of a module in its model's own naming; none of others."""
    named = (model.in_diffusers(name) for model in (flux_names, sd3_names, sdxl_names))
    return next(filter(None, named), ())


def parts_of(name: str) -> list[str]:
    """Name the modules that a fused one holds, in the order of its rows; none if it is not one.

    >>> parts_of("mlp.gate_up_proj"), parts_of("mlp.up_proj")
    (['mlp.gate_proj', 'mlp.up_proj'], [])
    """
    known = in_diffusers(name)
    if len(known) > 1:
        return list(known)
    parent, _, last = name.rpartition(".")
    return [f"{parent}.{part}".removeprefix(".") for part in _FUSED.get(last, ())]


def sizes_of(known: Sequence[int | None], total: int) -> list[int] | None:
    """Return the rows of every part: keys have as many as values, gate as many as up.

    Parameters
    ----------
    known
        Rows of each part as another adapter has them, None of those that it lacks.
    total
        Of the fused module.

    Returns
    -------
    None where what is known does not settle it, or does not add up.

    >>> sizes_of([None, 2, None], 10), sizes_of([9, None, None], 10)
    ([6, 2, 2], None)
    """
    if len(known) == 2:
        sizes: list[int] = [total // 2] * 2
    elif len(known) == 4:  # Flux's linear1: q, k and v are as wide as the stream
        *heads, mlp = known
        width = max(n or 0 for n in heads) or (total - (mlp or 0)) // 3
        sizes = [width, width, width, total - 3 * width]
    else:
        q, k, v = known
        side = k or v or (None if q is None else (total - q) // 2)
        if side is None:
            return None
        sizes = [total - 2 * side, side, side]
    fits = all(a is None or a == b for a, b in zip(known, sizes, strict=True))
    return sizes if fits and sum(sizes) == total and min(sizes) > 0 else None
