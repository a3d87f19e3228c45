"""Stable Diffusion 3's modules in its own naming, which kohya's programs use, and in diffusers'.

Stability's model fuses q, k, v of either stream (``joint_blocks.0.x_block.attn.qkv``); diffusers
holds them apart. The pairs are those of diffusers' own conversion of the model,
``loaders/single_file_utils.py``, which the test runs. Left as it is named is the context stream's
``adaLN_modulation``: of the last block that conversion exchanges the halves of its rows.
"""

from __future__ import annotations

import re

from subspace.modules.words import FLAT_DENOISER

_BLOCK = re.compile(
    rf"^(?:{FLAT_DENOISER}|diffusion_model\.|model\.diffusion_model\.)?"
    r"joint_blocks[._](?P<n>\d+)[._](?P<stream>x|context)_block[._](?P<rest>\w[\w.]*)$"
)
_X = {
    "attn_qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "attn_proj": ("attn.to_out.0",),
    "attn2_qkv": ("attn2.to_q", "attn2.to_k", "attn2.to_v"),
    "attn2_proj": ("attn2.to_out.0",),
    "mlp_fc1": ("ff.net.0.proj",),
    "mlp_fc2": ("ff.net.2",),
    "adaLN_modulation_1": ("norm1.linear",),
}
_CONTEXT = {
    "attn_qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "attn_proj": ("attn.to_add_out",),
    "mlp_fc1": ("ff_context.net.0.proj",),
    "mlp_fc2": ("ff_context.net.2",),
}


def in_diffusers(name: str) -> tuple[str, ...]:
    """Return the paths that diffusers has for a module of SD3's own naming; none of others.

    >>> in_diffusers("lora_unet_joint_blocks_3_context_block_mlp_fc2")
    ('transformer_blocks.3.ff_context.net.2',)
    >>> in_diffusers("joint_blocks.0.x_block.attn.qkv")[-1]
    'transformer_blocks.0.attn.to_v'
    >>> in_diffusers("transformer_blocks.0.attn.to_v")
    ()
    """
    found = _BLOCK.match(name)
    if found is None:
        return ()
    table = _X if found["stream"] == "x" else _CONTEXT
    parts = table.get(found["rest"].replace(".", "_"), ())
    return tuple(f"transformer_blocks.{found['n']}.{part}" for part in parts)
