"""Projections stored as one matrix and named apart by an adapter, or the other way round."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from subspace.errors import FormatError
from subspace.modules.fused import is_fused
from subspace.modules.wrappers import PACKED
from subspace.tensorfiles import short

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

# Three square parts, one after the other, in every model that uses the name.
_THIRDS = frozenset({"W_pack", "in_proj_weight"})
# A layout is a family's own, and the wrong one gives numbers without an error: only those that
# were looked up are split. MiniMax and CodeGen, for two, hold qkv_proj in other orders than Phi-3.
_C_ATTN_THIRDS = frozenset({"decision_transformer", "gpt2", "imagegpt", "openai-gpt", "qwen"})
_QKV_PROJ_ROWS = frozenset({"phi3", "phi3_v", "phi4_multimodal", "phi4mm"})
# transformers/conversion_mapping.py cuts these into thirds ("new" is what GTE's own files say).
_THIRDS_OF = {
    "Wqkv": frozenset({"nomic_bert", "jina_embeddings_v3"}),
    "qkv_proj": frozenset({"gte", "new"}),
}
# model_type whose query_key_value holds q, k and v of one head, then of the next.
_HEAD_BY_HEAD = frozenset({"bloom", "gpt_neox"})


@dataclass(frozen=True)
class Block:
    """Rows of a fused matrix: `start` to `stop` of each of `groups` equal groups of rows."""

    groups: int
    start: int
    stop: int

    @property
    def rows(self) -> int:
        """How many rows that makes."""
        return self.groups * (self.stop - self.start)

    def of(self, matrix: torch.Tensor) -> torch.Tensor:
        """Take the rows: a view where there is one group, else a copy."""
        if self.groups == 1:
            return matrix[self.start : self.stop]
        per_group = matrix.reshape(self.groups, -1, matrix.shape[1])
        return per_group[:, self.start : self.stop].flatten(0, 1)


def is_host(tensor: str) -> bool:
    """Say whether a stored tensor's name is that of a fused projection."""
    return is_fused(_last_part(tensor))


def block(
    tensor: str, shape: tuple[int, int], part: int, config: Mapping[str, Any], where: str
) -> Block:
    """Say which rows of a fused matrix are one of its projections.

    Parameters
    ----------
    tensor
        The stored tensor's name.
    shape
        (d_out, d_in) of the fused map.
    part
        0, 1, 2 for q, k, v; 0, 1 for gate, up.
    config
        The model's config.json, or that of its text part.
    where
        File and tensor, for the message.

    Raises
    ------
    FormatError
        The layout is not known, or does not add up to the rows that are there.
    """
    rows, columns = shape
    last, family = _last_part(tensor), str(config.get("model_type"))
    groups, sizes = 1, [0]
    heads, kv, size = _read_heads(config)
    if last == "gate_up_proj":
        sizes = [rows // 2] * 2
    elif (
        last in _THIRDS
        or (last == "c_attn" and family in _C_ATTN_THIRDS)
        or family in _THIRDS_OF.get(last, ())
    ):
        sizes = [columns] * 3
    elif last == "qkv_proj" and family in _QKV_PROJ_ROWS:
        sizes = [heads * size, kv * size, kv * size]
    elif last == "query_key_value" and family in _HEAD_BY_HEAD:
        groups, sizes = heads, [size] * 3
    elif last == "query_key_value" and family == "falcon":
        groups, sizes = _falcon(config, heads, kv, size)
    elif last == "c_attn" and family == "gpt_bigcode":
        multi = config.get("multi_query", True)
        groups, sizes = (1, [heads * size, size, size]) if multi else (heads, [size] * 3)
    if groups < 1 or groups * sum(sizes) != rows:
        raise FormatError(
            f"{where}: how its {rows} rows hold the projections is not known "
            f"(model_type {short(family)} in config.json)"
        )
    return Block(groups, sum(sizes[:part]), sum(sizes[: part + 1]))


def _falcon(config: Mapping[str, Any], heads: int, kv: int, size: int) -> tuple[int, list[int]]:
    if config.get("new_decoder_architecture"):
        return kv, [heads // max(kv, 1) * size, size, size]
    if config.get("multi_query"):
        return 1, [heads * size, size, size]
    return heads, [size] * 3


def _read_heads(config: Mapping[str, Any]) -> tuple[int, int, int]:
    """Return heads, key-value heads and head size; zeros where the config does not say."""
    heads = _read_whole(config, "num_attention_heads", "n_head")
    kv = _read_whole(config, "num_key_value_heads", "num_kv_heads") or heads
    width = _read_whole(config, "hidden_size", "n_embd")
    size = _read_whole(config, "head_dim") or (width // heads if heads else 0)
    return heads, kv, size


def _read_whole(config: Mapping[str, Any], *names: str) -> int:
    values = (config.get(name) for name in names)
    return next((n for n in values if type(n) is int and n > 0), 0)


def _last_part(tensor: str) -> str:
    module = next(
        (tensor.removesuffix(e) for e in (".weight", *PACKED) if tensor.endswith(e)), tensor
    )
    return module.removesuffix(".base_layer").rsplit(".", 1)[-1]
