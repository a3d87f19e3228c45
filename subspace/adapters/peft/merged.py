"""PEFT 0.1 and 0.2: one pair of factors for the enabled thirds of a fused projection.

``tuners/lora.py`` of these releases, ``MergedLinear``: with ``enable_lora`` [true, false, true],
lora_A is (2 r, d_in) and lora_B a grouped convolution's (2 d_out / 3, r, 1); block n of B's rows
meets block n of A's, and is the n-th enabled third of the fused weight's rows.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from subspace.adapters.build import UpdateSpec
from subspace.adapters.peft.patterns import apply_patterns
from subspace.adapters.source import read_factor_shape, require_factors
from subspace.errors import FormatError
from subspace.tensorfiles import short

if TYPE_CHECKING:
    from collections.abc import Iterable

    from subspace.adapters.build import Factors
    from subspace.adapters.peft.config import LoraConfig
    from subspace.adapters.peft.keys import Key
    from subspace.adapters.source import AdapterSource

_PARTS = "qkv"


def specify_merged(
    source: AdapterSource, keys: Iterable[Key], lora: LoraConfig, enabled: object
) -> list[UpdateSpec]:
    """Plan an update for each enabled part; none without ``enable_lora``.

    Raises
    ------
    FormatError
        ``enable_lora`` is no list of booleans, or the factors are not those of so many parts.
    """
    if not enabled:
        return []
    if not isinstance(enabled, list) or not all(type(on) is bool for on in enabled):
        raise FormatError(
            f"{source.where}: enable_lora = {short(enabled)} is not a list of true and false"
        )
    parts = [n for n, on in enumerate(enabled) if on]
    modules: dict[str, dict[str, str]] = {}
    targets: dict[str, str] = {}
    for key in keys:
        if key.slot in {"A", "B"}:
            modules.setdefault(key.module, {})[key.slot] = key.name
            targets[key.module] = key.target
    alphas, _, _ = apply_patterns(targets, lora)
    planned = []
    for module, slots in modules.items():
        require_factors(source, module, slots, "A", "B")
        a, b = slots["A"], slots["B"]
        (rows, d_in), (height, rank, *ones) = (
            read_factor_shape(source, name, (2, 3)) for name in (a, b)
        )
        if not ones and rows == rank:
            continue  # a layer that is not fused, beside
        if any(n != 1 for n in ones) or rows != rank * len(parts) or height % len(parts):
            raise FormatError(
                f"{source.text(a)} and {source.text(b)} are not the factors of {len(parts)} of the "
                f"{len(enabled)} parts that enable_lora names"
            )
        size = height // len(parts)
        for n, part in enumerate(parts):
            name = _PARTS[part] if len(enabled) == len(_PARTS) else str(part)
            planned.append(
                UpdateSpec(
                    module=f"{module}.{name}",
                    shape=(size, d_in),
                    rank=rank,
                    scale=alphas[module] / (math.sqrt(rank) if lora.rslora else rank),
                    tensors=(a, b),
                    factors=_block(a, slice(n * rank, (n + 1) * rank), b, n * size, size),
                )
            )
    return planned


def _block(a: str, rows: slice, b: str, start: int, size: int) -> Factors:
    return lambda tensors: (tensors[b].flatten(1)[start : start + size], tensors[a][rows])
