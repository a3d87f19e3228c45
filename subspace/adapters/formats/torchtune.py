"""torchtune's LoRA, with the rows of q and k in its rotary order.

Layout as torchtune 0.6.1 writes it, ``modules/peft/lora.py``: ``<path>.lora_a.weight`` (r, d_in)
and ``<path>.lora_b.weight`` (d_out, r), update ``alpha / r * lora_b @ lora_a``; DoRA has a
``magnitude`` beside. Its checkpointer writes ``adapter_model.pt`` with these names, beside it
PEFT's two files with the same adapter converted, and the base's ``config.json``.

torchtune reorders the rows of q and k of Llama, Mistral and Gemma to its own rotary layout, and so
those of lora_b (``models/convert_weights.py``, ``tune_to_peft_adapter_weights``). They are put back
where ``config.json`` tells the number of heads.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from subspace.adapters.build import build_adapter
from subspace.adapters.factors.plain import require_alpha, specify_linear
from subspace.adapters.find import WEIGHTS
from subspace.adapters.method import Method
from subspace.adapters.rotary import Heads, is_reordered, read_base_config, read_heads, restore_rows
from subspace.adapters.source import group_by_module, require_factors, some
from subspace.errors import FormatError
from subspace.tensorfiles import short

if TYPE_CHECKING:
    from collections.abc import Mapping

    from subspace.adapters.adapter import Adapter
    from subspace.adapters.build import UpdateSpec
    from subspace.adapters.source import AdapterSource

NAME = "torchtune"
EXPECTS = "NAME.lora_a.weight (r, d_in) and NAME.lora_b.weight (d_out, r)"
TENSOR_SUFFIXES = (".lora_a.weight", ".lora_b.weight")
READS = (
    "LoRA by the names that transformers has, alpha from adapter_config.json or asked for; rows of "
    "q and k back in transformers' order where config.json is beside; DoRA by its BA part"
)
REFERENCE = "files and merge by the documented rule"
TESTS = ("tests/test_torchtune_adapters.py",)
_LAYER = re.compile(r"layers\.([0-9]{1,6})\.((?:attn|mlp)\.[a-z0-9_]+)\Z")
_HUGGING_FACE = {
    "attn.q_proj": "self_attn.q_proj",
    "attn.k_proj": "self_attn.k_proj",
    "attn.v_proj": "self_attn.v_proj",
    "attn.output_proj": "self_attn.o_proj",
    "mlp.w1": "mlp.gate_proj",
    "mlp.w2": "mlp.down_proj",
    "mlp.w3": "mlp.up_proj",
}
_OUTSIDE = {"output": "lm_head", "tok_embeddings": "model.embed_tokens"}
# model_type of config.json -> whether torchtune reorders its rows of q and k.
_REORDERED = {
    **dict.fromkeys(("llama", "mistral", "gemma", "gemma2"), True),
    **dict.fromkeys(("qwen2", "qwen3", "phi3"), False),
}


def matches(source: AdapterSource) -> str | None:
    """Say why these are torchtune's: the tensors' names, also beside a config that is PEFT's."""
    if source.config is not None and source.weights.name in WEIGHTS:
        return None
    example = next((name for name in source.tensors if name.endswith(TENSOR_SUFFIXES)), None)
    return (
        None if example is None else f"tensor {example!r} ends in .lora_a.weight or .lora_b.weight"
    )


def read(source: AdapterSource) -> Adapter:
    """Make an `Adapter` of a torchtune file, from headers alone.

    Raises
    ------
    FormatError
        A factor without its partner, shapes that do not fit, no alpha, a number of heads that does
        not divide the rows.
    """
    config = source.config or {}
    alpha = _alpha(source, config)
    heads, unsure = _heads(source)
    planned: list[UpdateSpec] = []
    reordered: list[str] = []
    for path, slots in group_by_module(source, _parse).items():
        if "magnitude" in slots and len(slots) == 1:
            continue  # not understood
        require_factors(source, path, slots, "lora_a", "lora_b")
        module = _module(path)
        update = specify_linear(source, module, slots["lora_a"], slots["lora_b"], alpha)
        if is_reordered(module):
            reordered.append(module)
            if heads is not None:
                update = restore_rows(source, update, heads)
        planned.append(replace(update, magnitude=slots.get("magnitude", "")))
    notes = []
    if reordered and unsure:
        notes.append(
            f"{some(reordered)}: the rows of q and k are in torchtune's rotary order for Llama, "
            "Mistral and Gemma, and no config.json beside tells the heads: norms and the sides A "
            "and in are as they were, the sides B and out compare with other torchtune files alone"
        )
    else:
        reordered = []
    base = config.get("base_model_name_or_path")
    return build_adapter(
        source,
        planned,
        format=NAME,
        method=Method.of_lora(dora=any(update.magnitude for update in planned)),
        notes=notes,
        base_model=base if isinstance(base, str) else None,
        reordered=reordered,
    )


def _parse(name: str) -> tuple[str, str] | None:
    for slot, end in (
        ("lora_a", TENSOR_SUFFIXES[0]),
        ("lora_b", TENSOR_SUFFIXES[1]),
        ("magnitude", ".magnitude"),
    ):
        if name.endswith(end) and name != end:
            return name.removesuffix(end), slot
    return None


def _module(path: str) -> str:
    """Name the base's module as transformers does.

    >>> _module("layers.2.attn.output_proj")
    'model.layers.2.self_attn.o_proj'
    >>> _module("decoder.layers.2.attn.q_proj")
    'decoder.layers.2.attn.q_proj'
    """
    layer = _LAYER.match(path)
    if layer is None:
        return _OUTSIDE.get(path, path)
    inner = _HUGGING_FACE.get(layer[2])
    return path if inner is None else f"model.layers.{layer[1]}.{inner}"


def _alpha(source: AdapterSource, config: Mapping[str, Any]) -> float:
    alpha = config.get("lora_alpha") if source.alpha is None else source.alpha
    if alpha is None:
        return require_alpha(source, "torchtune's file")
    if type(alpha) not in (int, float) or not abs(alpha) < float("inf"):
        raise FormatError(f"{source.where}: lora_alpha = {short(alpha)} is not a number")
    return float(alpha)


def _heads(source: AdapterSource) -> tuple[Heads | None, bool]:
    """Return the heads where rows are to be put back, and whether that is unsure."""
    beside = read_base_config(source)
    if beside is None:
        return None, True
    path, config = beside
    kind = config.get("model_type")
    reordered = _REORDERED.get(kind) if isinstance(kind, str) else None
    if not reordered:
        return None, reordered is None
    return read_heads(path, config), False
