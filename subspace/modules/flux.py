"""Flux's modules in its own naming and in diffusers'.

Black Forest Labs' model fuses q, k, v (``img_attn.qkv``), and in its single blocks the first layer
of the feed-forward part with them (``linear1``); diffusers holds them apart. The pairs are those of
diffusers' own conversion, ``loaders/lora_conversion_utils.py``, which the test runs. Left as it is
named is ``final_layer.adaLN_modulation``: that conversion exchanges the halves of its rows.
"""

from __future__ import annotations

from subspace.modules.native import NativeNames

IMAGE_QKV = ("attn.to_q", "attn.to_k", "attn.to_v")
TEXT_QKV = ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")

_DOUBLE = {
    "img_attn_qkv": IMAGE_QKV,
    "img_attn_proj": ("attn.to_out.0",),
    "img_mlp_0": ("ff.net.0.proj",),
    "img_mlp_2": ("ff.net.2",),
    "img_mod_lin": ("norm1.linear",),
    "txt_attn_qkv": TEXT_QKV,
    "txt_attn_proj": ("attn.to_add_out",),
    "txt_mlp_0": ("ff_context.net.0.proj",),
    "txt_mlp_2": ("ff_context.net.2",),
    "txt_mod_lin": ("norm1_context.linear",),
}
_SINGLE = {
    "linear1": (*IMAGE_QKV, "proj_mlp"),
    "linear2": ("proj_out",),
    "modulation_lin": ("norm.linear",),
}
_EMBEDDER = "time_text_embed."
NAMES = NativeNames(
    {
        "double_blocks": ("transformer_blocks", _DOUBLE),
        "single_blocks": ("single_transformer_blocks", _SINGLE),
    },
    {
        "img_in": ("x_embedder",),
        "txt_in": ("context_embedder",),
        "time_in_in_layer": (f"{_EMBEDDER}timestep_embedder.linear_1",),
        "time_in_out_layer": (f"{_EMBEDDER}timestep_embedder.linear_2",),
        "vector_in_in_layer": (f"{_EMBEDDER}text_embedder.linear_1",),
        "vector_in_out_layer": (f"{_EMBEDDER}text_embedder.linear_2",),
        "guidance_in_in_layer": (f"{_EMBEDDER}guidance_embedder.linear_1",),
        "guidance_in_out_layer": (f"{_EMBEDDER}guidance_embedder.linear_2",),
        "final_layer_linear": ("proj_out",),
    },
)
in_diffusers = NAMES.in_diffusers
