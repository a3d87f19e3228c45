"""Modules that one program fuses and another holds apart: their parts, and the rows of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from subspace.modules import flux, flux2, hunyuan_video, lumina, sd3, sdxl, wan
from subspace.modules.renamed import renew
from subspace.modules.words import NAMINGS, list_words, words_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from subspace.modules.words import Role

_QKV: tuple[Role, ...] = ("query", "key", "value")
_GATE_UP: tuple[Role, ...] = ("gate", "up")
_LLAMA = NAMINGS["llama"]
# Fused projections whose rows are one part after another; interleaved ones (query_key_value) need
# the model's configuration and stay whole. The parts are called as Llama calls them.
_PARTS = {
    **dict.fromkeys(NAMINGS["phi3"].fused, _QKV),
    **dict.fromkeys(NAMINGS["phi3"].gate_up, _GATE_UP),
}
# Their rows are known only with the model's configuration: see `pretrained.fused`.
_HOSTS = ("qkv_proj", "query_key_value", "c_attn", "W_pack", "Wqkv")
_HOSTED = {w: k for k, role in enumerate(_QKV) for w in list_words(role)}
_HALVES = {word: k for k, role in enumerate(_GATE_UP) for word in words_of(_LLAMA, role)}


_IN_DIFFUSERS = (
    flux.in_diffusers,
    flux2.in_diffusers,
    hunyuan_video.in_diffusers,
    sd3.in_diffusers,
    sdxl.in_diffusers,
    lumina.LUMINA.in_diffusers,
    lumina.Z_IMAGE.in_diffusers,
    wan.in_diffusers,
)


def list_in_diffusers(name: str) -> list[tuple[str, ...]]:
    """List what diffusers may call a module that has its model's own name; none of others.

    Models share their words, and a name alone does not tell the model: an entry for each reading,
    with one path, or with those of all parts of a fused module.

    >>> list_in_diffusers("double_blocks.0.img_mlp.2")
    [('transformer_blocks.0.ff.net.2',), ('transformer_blocks.0.ff.linear_out',)]
    """
    return list(dict.fromkeys(filter(None, (of_model(name) for of_model in _IN_DIFFUSERS))))


def list_parts(name: str) -> list[list[str]]:
    """List the modules that a fused one may hold, in the order of its rows; none if it is not one.

    >>> list_parts("mlp.gate_up_proj"), list_parts("mlp.up_proj")
    ([['mlp.gate_proj', 'mlp.up_proj']], [])
    """
    native = [list(paths) for paths in list_in_diffusers(name) if len(paths) > 1]
    if native:
        return native
    name = renew(name)
    parent, _, last = name.rpartition(".")
    if last in NAMINGS["gpt2"].fused:  # which loralib's MergedLinear cuts into blocks of equal size
        return [[f"{name}.{part}" for part in "qkv"]]
    words = [words_of(_LLAMA, role)[0] for role in _PARTS.get(last, ())]
    return [[f"{parent}.{part}".removeprefix(".") for part in words]] if words else []


def list_hosts(module: str) -> Iterator[tuple[str, int]]:
    """Yield the fused modules that could hold `module`, and which of their parts it is.

    >>> list(list_hosts("mlp.up_proj"))
    [('mlp.gate_up_proj', 1)]
    >>> dict(list_hosts("attn.c_attn.v"))["attn.c_attn"]
    2
    """
    parent, _, last = module.rpartition(".")
    if last in _HALVES:
        yield f"{parent}.gate_up_proj", _HALVES[last]
    if last in _HOSTED:
        yield from ((f"{parent}.{host}", _HOSTED[last]) for host in _HOSTS)
        yield parent, _HOSTED[last]


def is_fused(last: str) -> bool:
    """Say whether the last part of a path is that of a fused projection which can be cut.

    >>> is_fused("c_attn"), is_fused("q_proj")
    (True, False)
    """
    return last in _HOSTS or last in {"gate_up_proj", "in_proj_weight"}


def sizes_of(heights: Sequence[int | None], total: int) -> list[int] | None:
    """Return the rows of every part: keys have as many as values, gate as many as up.

    Parameters
    ----------
    heights
        Rows of each part as another adapter has them, None of those that it lacks.
    total
        Of the fused module.

    Returns
    -------
    None where what is known does not settle it, or does not add up.

    >>> sizes_of([None, 2, None], 10), sizes_of([9, None, None], 10)
    ([6, 2, 2], None)
    """
    if len(heights) == 2:
        sizes: list[int] = [total // 2] * 2
    elif len(heights) == 4:  # Flux's linear1: q, k and v are as wide as the stream
        *heads, mlp = heights
        width = max(n or 0 for n in heads) or (total - (mlp or 0)) // 3
        sizes = [width, width, width, total - 3 * width]
    else:
        q, k, v = heights
        side = k or v or (None if q is None else (total - q) // 2)
        if side is None:
            return None
        sizes = [total - 2 * side, side, side]
    fits = all(a is None or a == b for a, b in zip(heights, sizes, strict=True))
    return sizes if fits and sum(sizes) == total and min(sizes) > 0 else None
