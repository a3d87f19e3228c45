"""Stable Diffusion XL's UNet in its own naming, which kohya's programs use, and in diffusers'.

Stability's model numbers its blocks throughout (``input_blocks.4.1``: of the fifth block the
second part); diffusers counts resnets, attentions and samplers within a level of resolution, three
blocks each. The pairs are those of diffusers' own conversion, ``loaders/lora_conversion_utils.py``,
which the test runs. kohya's programs have diffusers' names already for older models.
"""

from __future__ import annotations

import re

from subspace.modules.words import FLAT_DENOISER

_PREFIX = rf"^(?:{FLAT_DENOISER}|diffusion_model\.|model\.diffusion_model\.|unet\.)?"
_BLOCK = re.compile(
    _PREFIX + r"(?P<way>input|middle|output)_blocks?[._](?P<n>[0-9]{1,4})[._](?:(?P<part>\d)[._])?"
    r"(?P<rest>[a-z][\w.]*)$"
)
# Such as out.2: of a UNet only where the name says that it is of one.
_OUTER = re.compile(_PREFIX.removesuffix("?") + r"(?P<rest>\w[\w.]*)$")
_LEVEL = 3  # blocks of a level of resolution: two layers and a sampler
_IN_RESNET = {
    "in_layers_2": "conv1",
    "out_layers_3": "conv2",
    "emb_layers_1": "time_emb_proj",
    "skip_connection": "conv_shortcut",
}
_AROUND = {
    "input_blocks_0_0": "conv_in",
    "out_2": "conv_out",
    "time_embed_0": "time_embedding_linear_1",
    "time_embed_2": "time_embedding_linear_2",
    "label_emb_0_0": "add_embedding_linear_1",
    "label_emb_0_2": "add_embedding_linear_2",
}


def in_diffusers(name: str) -> tuple[str, ...]:
    """Return diffusers' path, with underscores, of a module in SDXL's own naming; none of others.

    >>> in_diffusers("lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q")
    ('down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q',)
    >>> in_diffusers("lora_unet_down_blocks_1_attentions_0_proj_in")
    ()
    """
    outer = _OUTER.match(name)
    if outer is not None and (around := _AROUND.get(outer["rest"].replace(".", "_"))):
        return (around,)
    match = _BLOCK.match(name)
    if match is None:
        return ()
    place = _place(match["way"], int(match["n"]), match["part"], match["rest"])
    rest = match["rest"].replace(".", "_")
    if place is None:
        return ()
    if "_resnets_" in place:
        rest = _IN_RESNET.get(rest, rest)
    elif "_downsamplers_" in place:
        rest = "conv"
    return (f"{place}_{rest}",)


def _place(way: str, n: int, part: str | None, rest: str) -> str | None:
    """Say which block of diffusers' a block's part is; None where there is no such one."""
    if way == "middle":  # resnet, attention, resnet, without parts
        if part is not None or n > 2:
            return None
        return f"mid_block_{('resnets_0', 'attentions_0', 'resnets_1')[n]}"
    if part is None or (way == "input" and n == 0):  # that one is `_AROUND`
        return None
    if way == "input":
        level, layer = divmod(n - 1, _LEVEL)
        if rest == "op":
            return f"down_blocks_{level}_downsamplers_0"
        kinds, block = ["resnets", "attentions"], "down_blocks"
    else:
        level, layer = divmod(n, _LEVEL)
        kinds, block = ["resnets", "attentions", "upsamplers"], "up_blocks"
    if int(part) >= len(kinds):
        return None
    kind = kinds[int(part)]
    return f"{block}_{level}_{kind}_{0 if kind == 'upsamplers' else layer}"
