"""Flux's modules in its own naming, which kohya's programs and ComfyUI use, and in diffusers'.

Black Forest Labs' model fuses q, k, v (``img_attn.qkv``), and in its single blocks the first layer
of the feed-forward part with them (``linear1``); diffusers holds them apart. The pairs are those of
diffusers' own conversion, ``loaders/lora_conversion_utils.py``, which the test runs.
"""

from __future__ import annotations

import re

from subspace.modules.words import FLAT_DENOISER

_BLOCK = re.compile(
    rf"^(?:{FLAT_DENOISER}|diffusion_model\.|transformer\.|model\.)?"
    r"(?P<kind>double|single)_blocks[._](?P<n>\d+)[._](?P<rest>\w[\w.]*)$"
)
_DOUBLE = {
    "img_attn_qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "img_attn_proj": ("attn.to_out.0",),
    "img_mlp_0": ("ff.net.0.proj",),
    "img_mlp_2": ("ff.net.2",),
    "img_mod_lin": ("norm1.linear",),
    "txt_attn_qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "txt_attn_proj": ("attn.to_add_out",),
    "txt_mlp_0": ("ff_context.net.0.proj",),
    "txt_mlp_2": ("ff_context.net.2",),
    "txt_mod_lin": ("norm1_context.linear",),
}
_SINGLE = {
    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
    "linear2": ("proj_out",),
    "modulation_lin": ("norm.linear",),
}


def in_diffusers(name: str) -> tuple[str, ...]:
    """Return the paths that diffusers has for a module of Flux's own naming; none of others.

    >>> in_diffusers("lora_unet_double_blocks_3_img_mlp_2")
    ('transformer_blocks.3.ff.net.2',)
    >>> in_diffusers("diffusion_model.single_blocks.0.linear1")[-1]
    'single_transformer_blocks.0.proj_mlp'
    >>> in_diffusers("blocks.0.attn.qkv")
    ()
    """
    found = _BLOCK.match(name)
    if found is None:
        return ()
    table, block = {
        "double": (_DOUBLE, "transformer_blocks"),
        "single": (_SINGLE, "single_transformer_blocks"),
    }[found["kind"]]
    parts = table.get(found["rest"].replace(".", "_"), ())
    return tuple(f"{block}.{found['n']}.{part}" for part in parts)
