"""HunyuanVideo's modules in its own naming and in diffusers'.

The blocks are called as Flux's are, their parts are not (``img_attn_qkv``, ``img_mlp.fc1``). The
pairs are those of diffusers' own conversion, ``loaders/lora_conversion_utils.py``, which the test
runs. Left as it is named is ``final_layer.adaLN_modulation``, of which that conversion exchanges
the halves of its rows.
"""

from __future__ import annotations

from subspace.modules.flux import IMAGE_QKV, TEXT_QKV
from subspace.modules.native import NativeNames

_DOUBLE = {
    "img_attn_qkv": IMAGE_QKV,
    "img_attn_proj": ("attn.to_out.0",),
    "img_mlp_fc1": ("ff.net.0.proj",),
    "img_mlp_fc2": ("ff.net.2",),
    "img_mod_linear": ("norm1.linear",),
    "txt_attn_qkv": TEXT_QKV,
    "txt_attn_proj": ("attn.to_add_out",),
    "txt_mlp_fc1": ("ff_context.net.0.proj",),
    "txt_mlp_fc2": ("ff_context.net.2",),
    "txt_mod_linear": ("norm1_context.linear",),
}
_SINGLE = {
    "linear1": (*IMAGE_QKV, "proj_mlp"),
    "linear2": ("proj_out",),
    "modulation_linear": ("norm.linear",),
}
_REFINER = {
    "self_attn_qkv": IMAGE_QKV,
    "self_attn_proj": ("attn.to_out.0",),
    "mlp_fc1": ("ff.net.0.proj",),
    "mlp_fc2": ("ff.net.2",),
    "adaLN_modulation_1": ("norm_out.linear",),
}
_TIME, _TEXT = "time_text_embed.", "context_embedder."
NAMES = NativeNames(
    {
        "double_blocks": ("transformer_blocks", _DOUBLE),
        "single_blocks": ("single_transformer_blocks", _SINGLE),
        "txt_in_individual_token_refiner_blocks": (
            f"{_TEXT}token_refiner.refiner_blocks",
            _REFINER,
        ),
    },
    {
        "img_in_proj": ("x_embedder.proj",),
        "time_in_mlp_0": (f"{_TIME}timestep_embedder.linear_1",),
        "time_in_mlp_2": (f"{_TIME}timestep_embedder.linear_2",),
        "vector_in_in_layer": (f"{_TIME}text_embedder.linear_1",),
        "vector_in_out_layer": (f"{_TIME}text_embedder.linear_2",),
        "guidance_in_mlp_0": (f"{_TIME}guidance_embedder.linear_1",),
        "guidance_in_mlp_2": (f"{_TIME}guidance_embedder.linear_2",),
        "txt_in_input_embedder": (f"{_TEXT}proj_in",),
        "txt_in_t_embedder_mlp_0": (f"{_TEXT}{_TIME}timestep_embedder.linear_1",),
        "txt_in_t_embedder_mlp_2": (f"{_TEXT}{_TIME}timestep_embedder.linear_2",),
        "txt_in_c_embedder_linear_1": (f"{_TEXT}{_TIME}text_embedder.linear_1",),
        "txt_in_c_embedder_linear_2": (f"{_TEXT}{_TIME}text_embedder.linear_2",),
        "final_layer_linear": ("proj_out",),
    },
)
in_diffusers = NAMES.in_diffusers
