"""mlx-vlm's first LoRA, of its own layer ``LoRaLayer``.

Layout of mlx-vlm before it took MLX-LM's layers (``mlx_vlm/trainer/lora.py``): ``<path>.A``
(d_in, r) and ``<path>.B`` (r, d_out), update ``alpha / rank * (A @ B).T``, with ``rank`` and
``alpha`` in ``adapter_config.json``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from subspace.adapters.build import UpdateSpec, build_adapter
from subspace.adapters.source import group_by_module, read_factor_shape, require_factors
from subspace.errors import FormatError
from subspace.tensorfiles import short

if TYPE_CHECKING:
    from subspace.adapters.adapter import Adapter
    from subspace.adapters.build import Factors
    from subspace.adapters.source import AdapterSource

NAME = "mlx-vlm"
EXPECTS = "NAME.A (d_in, r) and NAME.B (r, d_out), adapter_config.json with rank and alpha beside"
TENSOR_SUFFIXES = ()
READS = "LoRA of its first layout, with the scale alpha / rank"
REFERENCE = "files by the documented rule"
TESTS = ("tests/test_llm_kinds.py",)


def matches(source: AdapterSource) -> str | None:
    """Say why these are mlx-vlm's: rank and alpha in the config, and names that end in A and B."""
    config = source.config
    if config is None or not {"rank", "alpha"} <= config.keys() or "peft_type" in config:
        return None
    example = next((name for name in source.tensors if _parse(name)), None)
    return (
        None
        if example is None
        else f"{source.where} has rank and alpha, {example!r} ends in A or B"
    )


def read(source: AdapterSource) -> Adapter:
    """Make an `Adapter` of a folder of mlx-vlm, from headers alone.

    Raises
    ------
    FormatError
        A factor without its partner, shapes that do not fit, an alpha that is no number.
    """
    config = source.config or {}
    alpha, rank = config.get("alpha"), config.get("rank")
    if not isinstance(alpha, (int, float)) or not abs(alpha) < float("inf"):
        raise FormatError(f"{source.where}: alpha = {short(alpha)} is not a number")
    if type(rank) is not int or rank < 1:
        raise FormatError(f"{source.where}: rank = {short(rank)} is not a rank")
    planned = []
    for module, slots in group_by_module(source, _parse).items():
        require_factors(source, module, slots, "A", "B")
        a, b = slots["A"], slots["B"]
        (d_in, r), (width, d_out) = read_factor_shape(source, a), read_factor_shape(source, b)
        if r != width or r != rank:
            raise FormatError(
                f"{source.text(a)} and {b!r} {(width, d_out)} are not of the rank {rank} that "
                f"{source.where} tells"
            )
        planned.append(
            UpdateSpec(
                module=module,
                shape=(d_out, d_in),
                rank=r,
                scale=alpha / rank,
                tensors=(a, b),
                factors=_transpose(a, b),
            )
        )
    return build_adapter(source, planned, format=NAME)


def _parse(name: str) -> tuple[str, str] | None:
    module, _, slot = name.rpartition(".")
    return (module, slot) if module and slot in {"A", "B"} else None


def _transpose(a: str, b: str) -> Factors:
    return lambda tensors: (tensors[b].T, tensors[a].T)
