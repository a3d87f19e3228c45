"""llama.cpp's LoRA in GGUF, with the scale that llama.cpp applies.

Layout as llama.cpp's ``convert_lora_to_gguf.py`` writes and ``src/llama-adapter.cpp`` reads it:
``<tensor>.lora_a`` (r, d_in) and ``<tensor>.lora_b`` (d_out, r) in torch's order, where the tensor
is one of the base's, such as ``blk.0.attn_q.weight``. ``token_embd.weight.lora_a`` alone is stored
transposed, (vocabulary, r). Experts are stacked: (experts, r, d_in) and (experts, d_out, r). The
scale is ``adapter.lora.alpha / r``, and 1 if that is 0 or not there.

The converter copies ``lora_alpha`` alone, so an rsLoRA's scale and what an ``alpha_pattern`` said
are lost, in llama.cpp too. For Llama and its kin it also reorders the rows of q and k to its own
rotary layout; Llama's are put back where the base's ``config.json`` beside tells the heads.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from subspace.adapters.build import UpdateSpec, build_adapter
from subspace.adapters.layout import MOST_EXPERTS
from subspace.adapters.rotary import (
    has_heads,
    is_reordered,
    read_base_config,
    read_heads,
    restore_rows,
)
from subspace.adapters.set_aside import SetAsideReason
from subspace.adapters.source import group_by_module, read_factor_shape, require_factors, some
from subspace.errors import FormatError
from subspace.tensorfiles import QUANTISED, short

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import torch

    from subspace.adapters.adapter import Adapter
    from subspace.adapters.build import Factors
    from subspace.adapters.source import AdapterSource

NAME = "GGUF (llama.cpp)"
EXPECTS = "a .gguf file with general.type = adapter, NAME.weight.lora_a and NAME.weight.lora_b"
TENSOR_SUFFIXES = (".weight.lora_a", ".weight.lora_b")
READS = (
    "LoRA in float32, float16, bfloat16 or quantised (extra `quantised`), token embeddings and "
    "stacked experts, with the scale that llama.cpp applies; Llama's and Qwen's modules by their "
    "Hugging Face names, rows of q and k in transformers' order where config.json is beside"
)
REFERENCE = "files of `gguf` with the keys of llama.cpp's converter; its rule of the scale"
TESTS = ("tests/test_gguf_adapters.py",)
_SLOTS = {"lora_a": "lora_a", "lora_b": "lora_b"}
# gguf 0.19.0, gguf/tensor_mapping.py: the names that these architectures have in transformers.
_HUGGING_FACE = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_OUTSIDE = {"token_embd": "model.embed_tokens", "output": "lm_head"}
_MAPPED = ("llama", "qwen2", "qwen3")
# llama.cpp (2025), src/llama-model.cpp, llama_model_rope_type: architectures that rotate halves, as
# transformers does, so that the converter leaves the rows of q and k as they are. For the others it
# reorders them (convert_hf_to_gguf.py: LlamaModel and what derives from it, such as Granite,
# SmolLM3, Arcee; DeciModel, MiniCPMModel, …), or nothing says that it does not.
_IN_ORDER = frozenset(
    {
        *("falcon", "falcon-h1", "grok", "dbrx", "bert", "modern-bert", "nomic-bert"),
        *("nomic-bert-moe", "stablelm", "bitnet", "qwen", "qwen2", "qwen2moe", "qwen3", "qwen3moe"),
        *("dream", "llada-moe", "olmo2", "olmoe", "phi2", "phi3", "phimoe", "plamo", "plamo2"),
        *("gemma", "gemma2", "gemma3", "gemma3n", "gemma-embedding", "starcoder2", "openelm"),
        *("gptneox", "codeshell", "orion", "nemotron", "exaone", "exaone4", "minicpm3", "dots1"),
        *("hunyuan-moe", "hunyuan-dense", "jais", "gpt-oss", "lfm2", "smallthinker", "glm4moe"),
        *("seed_oss", "grovemoe", "apertus", "gpt2", "bloom", "mpt", "starcoder", "refact"),
    }
)
_ROTATED = (".attn_q", ".attn_k")
_BLOCK = re.compile(r"blk\.([0-9]{1,6})\.([a-z_]+)\Z")


def matches(source: AdapterSource) -> str | None:
    """Say why this is a GGUF adapter: its suffix, and what it calls itself.

    Raises
    ------
    FormatError
        It has factors and calls itself something else.
    """
    if source.weights.suffix != ".gguf":
        return None
    kind = source.tensors.metadata.get("general.type")
    if kind == "adapter":
        return "general.type is 'adapter'"
    if any(name.endswith(TENSOR_SUFFIXES) for name in source.tensors):
        raise FormatError(
            f"{source.weights}: has factors, but general.type = {short(kind)}; 'adapter' is wanted"
        )
    return None


def read(source: AdapterSource) -> Adapter:
    """Make an `Adapter` of a GGUF file, from its header alone.

    Raises
    ------
    FormatError
        Another kind of adapter, a factor without its partner, shapes or an alpha that make no
        sense.
    """
    metadata = source.tensors.metadata
    kind = metadata.get("adapter.type", "lora")
    if kind != "lora":
        raise FormatError(f"{source.weights}: adapter.type = {short(kind)}; what is read: 'lora'")
    architecture = metadata.get("general.architecture", "")
    alpha, notes = _alpha(source)
    planned: list[UpdateSpec] = []
    for tensor, slots in group_by_module(source, _parse).items():
        require_factors(source, tensor, slots, "lora_a", "lora_b")
        planned.extend(_specify(source, tensor, slots, alpha, architecture))
    turned = [
        p.module
        for p in planned
        if architecture not in _IN_ORDER and (is_reordered(p.module) or p.module.endswith(_ROTATED))
    ]
    # Of the others the converter's order, if it has one, is not Llama's for sure.
    beside = read_base_config(source) if turned and architecture == "llama" else None
    if beside is not None and has_heads(beside[1]):
        heads = read_heads(*beside)
        planned = [restore_rows(source, p, heads) if is_reordered(p.module) else p for p in planned]
        turned = []
    if turned:
        notes.append(
            f"{some(turned)}: the rows of q and k are in llama.cpp's rotary order, not in "
            "transformers', and no config.json of the base beside tells the heads: norms and the "
            "sides A and in are as they were, the sides B and out compare with other GGUF files "
            "alone"
        )
    kinds = {source.tensors.headers[name].dtype for update in planned for name in update.tensors}
    quantised = sorted(kinds & set(QUANTISED))
    if quantised:
        notes.append(
            f"factors are quantised ({', '.join(quantised)}) and taken as llama.cpp computes with "
            "them; directions within what that rounds away are not counted as real"
        )
    if architecture not in _MAPPED:
        notes.append(
            f"modules have their GGUF names: those of {short(architecture)} in transformers are "
            "not known here"
        )
    aside = {
        name: SetAsideReason.NORM_NOT_APPLIED
        for name in source.tensors
        if name.endswith("_norm.weight")
    }
    return build_adapter(
        source,
        planned,
        format=NAME,
        set_aside=aside,
        notes=notes,
        base_model=metadata.get("general.base_model.0.name"),
        metadata={"architecture": architecture},
        reordered=turned,
    )


def _parse(name: str) -> tuple[str, str] | None:
    tensor, _, slot = name.rpartition(".")
    return (tensor, slot) if tensor and slot in _SLOTS else None


def _alpha(source: AdapterSource) -> tuple[float, list[str]]:
    text = source.tensors.metadata.get("adapter.lora.alpha")
    try:
        alpha = 0.0 if text is None else float(text)
    except ValueError:
        alpha = math.nan
    if not math.isfinite(alpha):
        raise FormatError(f"{source.weights}: adapter.lora.alpha = {short(text)} is not a number")
    if alpha == 0:
        stored = "no adapter.lora.alpha is stored" if text is None else "adapter.lora.alpha is 0"
        return 0.0, [f"{stored}: the scale is 1, as in llama.cpp"]
    if source.config is not None and source.config.get("use_rslora") is True:
        return alpha, [
            f"{source.where} says use_rslora, but the scale here is the one that llama.cpp "
            "applies, alpha / r and not alpha / sqrt(r); the files that this one was made of have "
            "the trained one"
        ]
    return alpha, [
        "the scale is the one that llama.cpp applies, alpha / r: an rsLoRA's or an "
        "alpha_pattern's is not stored"
    ]


def _module(tensor: str, architecture: str) -> str:
    """Name the base's module.

    >>> _module("blk.2.attn_q.weight", "llama")
    'model.layers.2.self_attn.q_proj'
    >>> _module("blk.2.attn_q.weight", "falcon")
    'blk.2.attn_q'
    """
    name = tensor.removesuffix(".weight")
    if architecture not in _MAPPED:
        return name
    block = _BLOCK.match(name)
    if block is None:
        return _OUTSIDE.get(name, name)
    inner = _HUGGING_FACE.get(block[2])
    return name if inner is None else f"model.layers.{block[1]}.{inner}"


def _specify(
    source: AdapterSource, tensor: str, slots: Mapping[str, str], alpha: float, architecture: str
) -> Iterator[UpdateSpec]:
    a, b = slots["lora_a"], slots["lora_b"]
    shape_a, shape_b = read_factor_shape(source, a, (2, 3)), read_factor_shape(source, b, (2, 3))
    both = f"{source.text(a)} and {b!r} {shape_b}"
    module = _module(tensor, architecture)
    if len(shape_a) != len(shape_b):
        raise FormatError(f"{both} are not the two factors of one tensor")
    embedding = tensor == "token_embd.weight"
    if embedding and len(shape_a) == 2:
        shape_a = shape_a[::-1]
    (*_, rank, d_in), (*experts, d_out, width) = shape_a, shape_b
    if rank != width:
        raise FormatError(f"{both} have different ranks, {rank} and {width}")
    scale = alpha / rank if alpha else 1.0
    if not experts:
        kind = "embedding" if embedding else "linear"
        yield UpdateSpec(
            module=module,
            shape=(d_out, d_in),
            rank=rank,
            scale=scale,
            tensors=(a, b),
            factors=_of_one(a, b, embedding=embedding),
            kind=kind,
        )
        return
    # A fused layer that was split has one A for all.
    if shape_a[0] not in (1, experts[0]) or experts[0] > MOST_EXPERTS:
        raise FormatError(f"{both} are not factors of the same experts")
    for expert in range(experts[0]):
        shared = 0 if shape_a[0] == 1 else expert
        yield UpdateSpec(
            module=f"{module}.{expert}",
            shape=(d_out, d_in),
            rank=rank,
            scale=scale,
            tensors=(a, b),
            factors=_of_expert(a, b, shared, expert),
            kind="expert",
        )


def _of_one(a: str, b: str, *, embedding: bool) -> Factors:
    return lambda tensors: (tensors[b], tensors[a].T if embedding else tensors[a])


def _of_expert(a: str, b: str, of_a: int, of_b: int) -> Factors:
    def factors(tensors: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        return tensors[b][of_b], tensors[a][of_a]

    return factors
