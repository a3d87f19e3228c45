"""Wan's modules in its own naming and in diffusers'.

The pairs are those of diffusers' own conversions, ``loaders/lora_conversion_utils.py`` for the
blocks, which the test runs, and ``loaders/single_file_utils.py`` for what is around them.
"""

from __future__ import annotations

from subspace.modules.native import NativeNames

_PARTS = {"q": "to_q", "k": "to_k", "v": "to_v", "o": "to_out.0"}
_BLOCK = {
    **{f"self_attn_{own}": (f"attn1.{theirs}",) for own, theirs in _PARTS.items()},
    **{f"cross_attn_{own}": (f"attn2.{theirs}",) for own, theirs in _PARTS.items()},
    "cross_attn_k_img": ("attn2.add_k_proj",),
    "cross_attn_v_img": ("attn2.add_v_proj",),
    "ffn_0": ("ffn.net.0.proj",),
    "ffn_2": ("ffn.net.2",),
}
_CONDITION = "condition_embedder."
NAMES = NativeNames(
    {"blocks": ("blocks", _BLOCK)},
    {
        "time_embedding_0": (f"{_CONDITION}time_embedder.linear_1",),
        "time_embedding_2": (f"{_CONDITION}time_embedder.linear_2",),
        "text_embedding_0": (f"{_CONDITION}text_embedder.linear_1",),
        "text_embedding_2": (f"{_CONDITION}text_embedder.linear_2",),
        "time_projection_1": (f"{_CONDITION}time_proj",),
        "img_emb_proj_1": (f"{_CONDITION}image_embedder.ff.net.0.proj",),
        "img_emb_proj_3": (f"{_CONDITION}image_embedder.ff.net.2",),
        "head_head": ("proj_out",),
    },
)
in_diffusers = NAMES.in_diffusers
