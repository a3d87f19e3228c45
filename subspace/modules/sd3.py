"""Stable Diffusion 3's modules in its own naming and in diffusers'.

Stability's model fuses q, k, v of either stream (``joint_blocks.0.x_block.attn.qkv``); diffusers
holds them apart. The pairs are those of diffusers' own conversion of the model,
``loaders/single_file_utils.py``, which the test runs. Left as it is named is the context stream's
``adaLN_modulation``: of the last block that conversion exchanges the halves of its rows.
"""

from __future__ import annotations

from subspace.modules.flux import IMAGE_QKV, TEXT_QKV
from subspace.modules.native import NativeNames

_JOINT = {
    "x_block_attn_qkv": IMAGE_QKV,
    "x_block_attn_proj": ("attn.to_out.0",),
    "x_block_attn2_qkv": ("attn2.to_q", "attn2.to_k", "attn2.to_v"),
    "x_block_attn2_proj": ("attn2.to_out.0",),
    "x_block_mlp_fc1": ("ff.net.0.proj",),
    "x_block_mlp_fc2": ("ff.net.2",),
    "x_block_adaLN_modulation_1": ("norm1.linear",),
    "context_block_attn_qkv": TEXT_QKV,
    "context_block_attn_proj": ("attn.to_add_out",),
    "context_block_mlp_fc1": ("ff_context.net.0.proj",),
    "context_block_mlp_fc2": ("ff_context.net.2",),
}
_EMBEDDER = "time_text_embed."
NAMES = NativeNames(
    {"joint_blocks": ("transformer_blocks", _JOINT)},
    {
        "x_embedder_proj": ("pos_embed.proj",),
        "t_embedder_mlp_0": (f"{_EMBEDDER}timestep_embedder.linear_1",),
        "t_embedder_mlp_2": (f"{_EMBEDDER}timestep_embedder.linear_2",),
        "y_embedder_mlp_0": (f"{_EMBEDDER}text_embedder.linear_1",),
        "y_embedder_mlp_2": (f"{_EMBEDDER}text_embedder.linear_2",),
        "final_layer_linear": ("proj_out",),
    },
)
in_diffusers = NAMES.in_diffusers
