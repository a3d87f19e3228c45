"""One module under the names of two releases of transformers, or of two layouts of its experts.

transformers 5 renamed what it had called otherwise before, and stacks experts that it had kept
apart; checkpoints and adapters of both are about. A path becomes the younger name here, an expert's
number standing before its projection; two paths that then are one name one module. The pairs are
those of ``transformers/conversion_mapping.py`` (5.23), which a test runs.
"""

from __future__ import annotations

import re
from functools import lru_cache

_PAIRS = tuple(
    (re.compile(pattern), new)
    for pattern, new in (
        # ViT and its kin; DINOv2 keeps encoder.layer, and detectors hold it as a backbone
        (r"\bencoder\.layer\.(\d+)\.attention\.attention\.query$", r"layers.\1.attention.q_proj"),
        (r"\bencoder\.layer\.(\d+)\.attention\.attention\.key$", r"layers.\1.attention.k_proj"),
        (r"\bencoder\.layer\.(\d+)\.attention\.attention\.value$", r"layers.\1.attention.v_proj"),
        (r"\bencoder\.layer\.(\d+)\.attention\.output\.dense$", r"layers.\1.attention.o_proj"),
        (r"\bencoder\.layer\.(\d+)\.intermediate\.dense$", r"layers.\1.mlp.fc1"),
        (r"\bencoder\.layer\.(\d+)\.output\.dense$", r"layers.\1.mlp.fc2"),
        (r"\bencoder\.layer\.(\d+)\.mlp\.(fc1|fc2)$", r"layers.\1.mlp.\2"),
        (r"\bencoder\.layer\.(\d+)\.mlp\.weights_out$", r"layers.\1.mlp.down_proj"),
        (r"\bencoder\.layer\.(\d+)\.(attention\.[qkvo]_proj|mlp\.down_proj)$", r"layers.\1.\2"),
        (r"\bencoder\.layer\.(\d+)\.attention\.output$", r"layers.\1.attention.o_proj"),
        # Swin, and SegFormer, whose stages were blocks of blocks
        (r"\bencoder\.block\.(\d+)\.(\d+)\.", r"stages.\1.blocks.\2."),
        (r"\bblocks\.(\d+)\.attention\.self\.query$", r"blocks.\1.attention.q_proj"),
        (r"\bblocks\.(\d+)\.attention\.self\.key$", r"blocks.\1.attention.k_proj"),
        (r"\bblocks\.(\d+)\.attention\.self\.value$", r"blocks.\1.attention.v_proj"),
        (r"\bblocks\.(\d+)\.attention\.self\.sr$",
         r"blocks.\1.attention.sequence_reduction.sequence_reduction"),
        (r"\bblocks\.(\d+)\.attention\.output\.dense$", r"blocks.\1.attention.o_proj"),
        (r"\bblocks\.(\d+)\.intermediate\.dense$", r"blocks.\1.mlp.fc1"),
        (r"\bblocks\.(\d+)\.output\.dense$", r"blocks.\1.mlp.fc2"),
        (r"\bblocks\.(\d+)\.mlp\.dense(1|2)$", r"blocks.\1.mlp.fc\2"),
        # RT-DETR, D-FINE and their kin
        (r"\bencoder\.encoder\.(\d+)\.layers\.", r"encoder.aifi.\1.layers."),
        (r"\blayers\.(\d+)\.(fc1|fc2)$", r"layers.\1.mlp.\2"),
        (r"\b(self_attn|encoder_attn)\.out_proj$", r"\1.o_proj"),
        # encoders of text with rotary positions: Nomic's, GTE, Jina's
        (r"\bencoder\.layers?\.(\d+)\.(?:attn|mixer|attention)\.(?:out_proj|o_proj)$",
         r"layers.\1.self_attn.o_proj"),
        (r"\bencoder\.layers?\.(\d+)\.(?:attn|mixer|attention)\.(Wqkv|qkv_proj)$",
         r"layers.\1.self_attn.\2"),
        (r"\bencoder\.layers\.(\d+)\.mlp\.fc11$", r"layers.\1.mlp.up_proj"),
        (r"\bencoder\.layers\.(\d+)\.mlp\.fc12$", r"layers.\1.mlp.gate_proj"),
        (r"\bencoder\.layers?\.(\d+)\.(mlp\.(?:fc1|fc2|down_proj|up_gate_proj))$",
         r"layers.\1.\2"),
        # GPT-NeoX's head, PhiMoE's router
        (r"\Aembed_out$", "lm_head"),
        (r"\bblock_sparse_moe\.gate$", "mlp.router"),
        (r"\bmlp\.gate$", "mlp.router"),
        # experts: Mixtral's, PhiMoE's and Granite's words, and stacks
        (r"\bblock_sparse_moe\.input_linear\.(\d+)$", r"mlp.experts.\1.gate_up_proj"),
        (r"\bblock_sparse_moe\.output_linear\.(\d+)$", r"mlp.experts.\1.down_proj"),
        (r"\bblock_sparse_moe\.", "mlp."),
        (r"\bexperts\.(gate_up_proj|gate_proj|up_proj|down_proj|w1|w2|w3)\.(\d+)$",
         r"experts.\2.\1"),
        (r"\bexperts\.(\d+)\.w1$", r"experts.\1.gate_proj"),
        (r"\bexperts\.(\d+)\.w3$", r"experts.\1.up_proj"),
        (r"\bexperts\.(\d+)\.w2$", r"experts.\1.down_proj"),
    )
)  # fmt: skip
_STACKED = frozenset({"input_linear", "output_linear"})  # Granite's, stored as ….weight
_EXPERTS = frozenset(
    {"gate_up_proj", "gate_proj", "up_proj", "down_proj", "w1", "w2", "w3"} | {"w13", "linear_v"}
)


@lru_cache(maxsize=65_536)
def renew(module: str) -> str:
    """Return a module's path in transformers' younger names; any other path as it is.

    >>> renew("vit.encoder.layer.3.attention.attention.query")
    'vit.layers.3.attention.q_proj'
    >>> renew("h.0.block_sparse_moe.experts.2.w3"), renew("h.0.mlp.experts.up_proj.2")
    ('h.0.mlp.experts.2.up_proj', 'h.0.mlp.experts.2.up_proj')
    >>> renew("model.layers.0.q_proj")
    'model.layers.0.q_proj'
    """
    for pattern, new in _PAIRS:
        module = pattern.sub(new, module)
    return module


def is_stack(tensor: str, shape: tuple[int, ...]) -> bool:
    """Say whether a tensor of three dimensions is a stack of experts' matrices.

    A convolution over one dimension has three too; what it is, its name tells.

    >>> is_stack("h.0.mlp.experts.down_proj", (4, 8, 16)), is_stack("conv.weight", (4, 8, 3))
    (True, False)
    """
    if len(shape) != 3 or 0 in shape:
        return False
    *front, last = tensor.removesuffix(".weight").split(".")
    return last in _STACKED or (last in _EXPERTS and bool(front) and front[-1] == "experts")
