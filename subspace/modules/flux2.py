"""FLUX.2's modules in its own naming and in diffusers'.

The blocks are called as Flux's are. What diffusers calls their parts is not: the feed-forward part
has two plain layers, and the single blocks' fused layer stays fused (``to_qkv_mlp_proj``). The
pairs are those of diffusers' own conversion, ``loaders/lora_conversion_utils.py``, which the test
runs. Left as it is named is ``final_layer.adaLN_modulation``: whether its rows are exchanged, as
Flux's are, differs between diffusers' conversions of an adapter and of a checkpoint.
"""

from __future__ import annotations

from subspace.modules.flux import IMAGE_QKV, TEXT_QKV
from subspace.modules.native import NativeNames

_DOUBLE = {
    "img_attn_qkv": IMAGE_QKV,
    "img_attn_proj": ("attn.to_out.0",),
    "img_mlp_0": ("ff.linear_in",),
    "img_mlp_2": ("ff.linear_out",),
    "txt_attn_qkv": TEXT_QKV,
    "txt_attn_proj": ("attn.to_add_out",),
    "txt_mlp_0": ("ff_context.linear_in",),
    "txt_mlp_2": ("ff_context.linear_out",),
}
_SINGLE = {"linear1": ("attn.to_qkv_mlp_proj",), "linear2": ("attn.to_out",)}
_EMBEDDER = "time_guidance_embed."
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
        "guidance_in_in_layer": (f"{_EMBEDDER}guidance_embedder.linear_1",),
        "guidance_in_out_layer": (f"{_EMBEDDER}guidance_embedder.linear_2",),
        "final_layer_linear": ("proj_out",),
        "single_stream_modulation_lin": ("single_stream_modulation.linear",),
        "double_stream_modulation_img_lin": ("double_stream_modulation_img.linear",),
        "double_stream_modulation_txt_lin": ("double_stream_modulation_txt.linear",),
    },
)
in_diffusers = NAMES.in_diffusers
