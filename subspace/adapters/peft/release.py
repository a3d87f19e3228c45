"""Which release of PEFT wrote a config, told by its fields: some of its rules have changed.

A config that PEFT wrote has every field of its release. ``peft_version`` is one since 0.18; before,
the youngest field tells: ``trainable_token_indices`` and ``corda_config`` came with 0.15,
``exclude_modules``, ``lora_bias`` and ``eva_config`` with 0.14 (``tuners/*/config.py`` of the
releases 0.12 to 0.15).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

Release: TypeAlias = tuple[int, ...]

SEPARATE_PATTERNS: Release = (0, 14)
"""Up to here one key served ``rank_pattern`` and ``alpha_pattern``."""
ANCHORS: Release = (0, 15)
"""From here on ``^`` means the beginning of a path; before, such a key matched nothing."""
SCALED_LOKR: Release = (0, 14)
"""From here on LoKr is scaled (huggingface/peft#2180)."""

_YOUNGEST: tuple[tuple[Release, tuple[str, ...]], ...] = (
    ((0, 15), ("trainable_token_indices", "corda_config")),
    ((0, 14), ("exclude_modules", "lora_bias", "eva_config")),
)
# A config that lacks one of these was not written by PEFT, or was cut afterwards.
_ALWAYS = (
    *("peft_type", "base_model_name_or_path", "inference_mode", "revision", "auto_mapping"),
    *("layers_pattern", "layers_to_transform"),
)


def read_release(config: Mapping[str, Any]) -> Release | None:
    """Return the release that wrote a config, or the last one before a rule changed; None: unknown.

    >>> read_release({"peft_version": "0.18.1.dev0"})
    (0, 18, 1)
    >>> full = dict.fromkeys(_ALWAYS)
    >>> read_release(full), read_release({**full, "exclude_modules": None})
    ((0, 13), (0, 14))
    >>> read_release({"peft_type": "LORA", "r": 8}) is None
    True
    """
    numbers = re.findall(r"\d+", str(config.get("peft_version") or ""))[:3]
    if len(numbers) >= 2:
        return tuple(int(number[:9]) for number in numbers)
    for release, fields in _YOUNGEST:
        if any(field in config for field in fields):
            return release
    return (0, 13) if all(field in config for field in _ALWAYS) else None
