"""Lumina 2's and Z-Image's modules in their own naming and in diffusers'.

Both fuse q, k, v (``attention.qkv``), with fewer rows of k and v in Lumina 2. diffusers renames the
attention of Lumina 2 (``attn``) and keeps that of Z-Image (``attention``). The pairs are those of
diffusers' own conversions, ``loaders/lora_conversion_utils.py``, which the test runs.
"""

from __future__ import annotations

from subspace.modules.native import NativeNames

_ROWS = ("layers", "noise_refiner", "context_refiner")
_LUMINA = {
    "attention_qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "attention_out": ("attn.to_out.0",),
    "feed_forward_w1": ("feed_forward.linear_1",),
    "feed_forward_w2": ("feed_forward.linear_2",),
    "feed_forward_w3": ("feed_forward.linear_3",),
    "adaLN_modulation_1": ("norm1.linear",),
}
_Z_IMAGE = {
    "attention_qkv": ("attention.to_q", "attention.to_k", "attention.to_v"),
    "attention_out": ("attention.to_out.0",),
}
LUMINA = NativeNames({row: (row, _LUMINA) for row in _ROWS})
Z_IMAGE = NativeNames({row: (row, _Z_IMAGE) for row in _ROWS})
