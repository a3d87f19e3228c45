"""XLabs' LoRA of Flux, whose layers are attention processors of Flux's own blocks.

Names as XLabs-AI/x-flux trains them and diffusers 0.42.1 takes them
(``loaders/lora_conversion_utils.py``): ``double_blocks.N.processor.qkv_lora1.down.weight``
(r, d_in) and ``.up.weight`` (d_out, r), 1 the image's stream and 2 the text's, and ``qkv_lora`` and
``proj_lora`` in ``single_blocks``. q, k and v share A and have their rows of B one after another;
here they have diffusers' names and are apart, as there. No alpha is stored: the scale is 1.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from subspace.adapters.build import UpdateSpec, build_adapter
from subspace.adapters.source import group_by_module, read_factor_shape, require_factors, some
from subspace.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import torch

    from subspace.adapters.adapter import Adapter
    from subspace.adapters.build import Factors
    from subspace.adapters.source import AdapterSource

NAME = "XLabs (Flux)"
EXPECTS = "double_blocks.N.processor.qkv_lora1.down.weight and .up.weight, and their like"
TENSOR_SUFFIXES = (
    "_lora1.down.",
    "_lora1.up.",
    "_lora2.down.",
    "_lora2.up.",
    ".qkv_lora.",
    ".proj_lora.",
)
READS = (
    "LoRA of Flux's attention processors, under diffusers' names with q, k and v apart; its scale "
    "is 1, as no alpha is stored"
)
REFERENCE = "files by the documented rule; what `diffusers` makes of them"
TESTS = ("tests/test_xlabs_adapters.py",)
_NAME = re.compile(
    r"(?:diffusion_model\.)?(?P<block>(?:double|single)_blocks\.[0-9]{1,6})\.processor\."
    r"(?P<layer>qkv_lora|proj_lora)(?P<stream>[12]?)\.(?P<slot>down|up)\.weight\Z"
)
_PARTS = {
    ("double", "qkv_lora", "1"): ("attn.to_q", "attn.to_k", "attn.to_v"),
    ("double", "qkv_lora", "2"): ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    ("double", "proj_lora", "1"): ("attn.to_out.0",),
    ("double", "proj_lora", "2"): ("attn.to_add_out",),
    ("single", "qkv_lora", ""): ("attn.to_q", "attn.to_k", "attn.to_v"),
    ("single", "proj_lora", ""): ("proj_out",),
}
_BLOCKS = {"double": "transformer_blocks", "single": "single_transformer_blocks"}


def matches(source: AdapterSource) -> str | None:
    """Say why these are XLabs': the tensors' names."""
    if source.config is not None and "peft_type" in source.config:
        return None
    example = next((name for name in source.tensors if _parse(name)), None)
    return None if example is None else f"tensor {example!r} is a factor of a processor of Flux's"


def read(source: AdapterSource) -> Adapter:
    """Make an `Adapter` of XLabs' file, from headers alone.

    Raises
    ------
    FormatError
        A factor without its partner, or shapes that do not multiply or have no three parts.
    """
    planned: list[UpdateSpec] = []
    for layer, slots in group_by_module(source, _parse).items():
        require_factors(source, layer, slots, "down", "up")
        planned.extend(_specify(source, layer, slots["down"], slots["up"]))
    notes = []
    if source.alpha is None:
        notes.append(
            f"{some(update.module for update in planned)}: no alpha is stored; r is taken, as "
            "diffusers does, so the scale is 1"
        )
    return build_adapter(source, planned, format=NAME, notes=notes)


def _parse(name: str) -> tuple[str, str] | None:
    """Take a tensor's name apart.

    >>> _parse("double_blocks.3.processor.qkv_lora2.up.weight")
    ('double_blocks.3.qkv_lora2', 'up')
    >>> _parse("double_blocks.3.processor.qkv_lora.up.weight") is None
    True
    """
    match = _NAME.match(name)
    if match is None:
        return None
    kind = match["block"].partition("_")[0]
    if (kind, match["layer"], match["stream"]) not in _PARTS:
        return None
    return f"{match['block']}.{match['layer']}{match['stream']}", match["slot"]


def _specify(source: AdapterSource, layer: str, a: str, b: str) -> Iterator[UpdateSpec]:
    (rank, d_in), (d_out, width) = read_factor_shape(source, a), read_factor_shape(source, b)
    both = f"{source.text(a)} and {b!r} {(d_out, width)}"
    if rank != width:
        raise FormatError(f"{both} have different ranks, {rank} and {width}")
    blocks, number, last = layer.split(".")
    kind = blocks.partition("_")[0]
    parts = _PARTS[kind, last.rstrip("12"), last[last.rindex("lora") + 4 :]]
    if d_out % len(parts):
        raise FormatError(f"{both}: {d_out} rows are no q, k and v of one width")
    rows = d_out // len(parts)
    for n, part in enumerate(parts):
        yield UpdateSpec(
            module=f"transformer.{_BLOCKS[kind]}.{number}.{part}",
            shape=(rows, d_in),
            rank=rank,
            scale=1.0 if source.alpha is None else source.alpha / rank,
            tensors=(a, b),
            factors=_rows(a, b, slice(n * rows, (n + 1) * rows)),
        )


def _rows(a: str, b: str, rows: slice) -> Factors:
    def factors(tensors: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        return tensors[b][rows], tensors[a]

    return factors
