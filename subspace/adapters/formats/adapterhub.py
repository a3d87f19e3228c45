"""AdapterHub's ``adapters``: LoRA by its own names, with its own config.

Layout as adapters 1.3.0 writes it (``adapters/loading.py``, ``methods/lora.py``):
``<path>.loras.<name>.lora_A`` (r, d_in) and ``.lora_B`` (d_out, r) in ``pytorch_adapter.bin`` or
``adapter.safetensors``, and ``adapter_config.json`` with a ``config`` of ``architecture`` "lora",
``r`` and ``alpha``; the scale is ``alpha / r``. Of a fused ``c_attn`` the pair holds a block for
each of ``attn_matrices``, in the order of the fused rows. A head is in a file of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from subspace.adapters.build import UpdateSpec, build_adapter
from subspace.adapters.factors.plain import specify_linear
from subspace.adapters.source import group_by_module, read_factor_shape, require_factors
from subspace.errors import FormatError
from subspace.tensorfiles import short

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from subspace.adapters.adapter import Adapter
    from subspace.adapters.build import Factors
    from subspace.adapters.source import AdapterSource

NAME = "AdapterHub adapters"
EXPECTS = "NAME.loras.ADAPTER.lora_A (r, d_in) and .lora_B (d_out, r), adapter_config.json beside"
TENSOR_SUFFIXES = (".loras.",)
READS = "LoRA of linear layers and of a fused c_attn, alpha from its config; heads set aside"
REFERENCE = "files by the documented rule"
TESTS = ("tests/test_llm_kinds.py",)
_PARTS = "qkv"


def matches(source: AdapterSource) -> str | None:
    """Say why these are AdapterHub's: the config, which holds another, or the tensors' names."""
    config = source.config
    if config is None or "peft_type" in config or not isinstance(config.get("config"), dict):
        return None
    example = next((name for name in source.tensors if _parse(name) is not None), None)
    return None if example is None else f"{source.where} and tensor {example!r} are of adapters"


def read(source: AdapterSource) -> Adapter:
    """Make an `Adapter` of a folder of AdapterHub's, from headers alone.

    Raises
    ------
    FormatError
        Another method than LoRA, a factor without its partner, shapes or an alpha that make no
        sense.
    """
    config = (source.config or {})["config"]
    kind = config.get("architecture")
    odd = [name for name in ("vera_d", "vera_b", "use_gating") if config.get(name)]
    if kind != "lora" or config.get("composition_mode", "add") != "add" or odd:
        what = short(kind if kind != "lora" else (odd or config.get("composition_mode")))
        raise FormatError(
            f"{source.where}: {what} of adapters is no plain LoRA; what is read: architecture "
            "'lora' that adds, without gating"
        )
    alpha = config.get("alpha")
    if type(alpha) not in (int, float) or not abs(alpha) < float("inf"):
        raise FormatError(f"{source.where}: alpha = {short(alpha)} is not a number")
    planned: list[UpdateSpec] = []
    for module, slots in group_by_module(source, _parse).items():
        require_factors(source, module, slots, "lora_A", "lora_B")
        planned.extend(_specify(source, module, slots, float(alpha), config))
    base = (source.config or {}).get("model_name")
    return build_adapter(
        source,
        planned,
        format=NAME,
        base_model=base if isinstance(base, str) and base else None,
    )


def _parse(name: str) -> tuple[str, str] | None:
    """Take a tensor's name apart.

    >>> _parse("h.0.attn.c_attn.loras.mine.lora_A")
    ('h.0.attn.c_attn', 'lora_A')
    """
    front, loras, rest = name.rpartition(".loras.")
    slot = rest.rpartition(".")[2]
    return (front, slot) if loras and slot in {"lora_A", "lora_B"} else None


def _specify(
    source: AdapterSource,
    module: str,
    slots: Mapping[str, str],
    alpha: float,
    config: Mapping[str, Any],
) -> Iterator[UpdateSpec]:
    a, b = slots["lora_A"], slots["lora_B"]
    (rows, d_in), (height, rank) = (read_factor_shape(source, name) for name in (a, b))
    if rows == rank:
        yield specify_linear(source, module, a, b, alpha)
        return
    letters = config.get("attn_matrices")
    named = letters if isinstance(letters, list) else []
    parts = [letter for letter in _PARTS if letter in named]
    if not parts or rows != rank * len(parts) or height % len(parts):
        raise FormatError(
            f"{source.text(a)} and {b!r} {(height, rank)} are not the factors of the parts that "
            f"attn_matrices names ({short(letters)})"
        )
    size = height // len(parts)
    for n, part in enumerate(parts):
        yield UpdateSpec(
            module=f"{module}.{part}",
            shape=(size, d_in),
            rank=rank,
            scale=alpha / rank,
            tensors=(a, b),
            factors=_block(a, slice(n * rank, (n + 1) * rank), b, n * size, size),
        )


def _block(a: str, rows: slice, b: str, start: int, size: int) -> Factors:
    return lambda tensors: (tensors[b][start : start + size], tensors[a][rows])
