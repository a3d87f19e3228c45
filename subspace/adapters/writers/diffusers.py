"""diffusers as diffusers 0.42.1 reads it: one file for a pipeline, PEFT's config in its metadata.

Tensors are ``<part>.<path>.lora_A.weight`` and ``.lora_B.weight``; ``lora_adapter_metadata`` is
JSON with the fields of each part's ``LoraConfig``, ``<part>.r`` and so on
(``loaders/lora_base.py``).
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from subspace.adapters.formats import diffusers
from subspace.adapters.writers.content import Content, refuse_flat_names, refuse_kinds
from subspace.adapters.writers.peft import choose_numbers, lay_out_update
from subspace.errors import FormatError
from subspace.modules.words import DENOISERS

if TYPE_CHECKING:
    import torch

    from subspace.adapters.adapter import Adapter, UpdateInfo

NAME = diffusers.NAME
FOLDER = False
WEIGHTS = ""
SUFFIXES = (".safetensors",)
_PART = re.compile(rf"((?:{'|'.join(DENOISERS)}|text_encoder)(?:_[0-9]+)?)\.(.+)", re.DOTALL)


def content(adapter: Adapter, *, updates_only: bool) -> Content:  # noqa: ARG001 - `Writer`'s
    """Lay an adapter out as a pipeline's ``save_lora_weights`` does.

    Raises
    ------
    FormatError
        A module whose path names no part of a pipeline, an embedding or an expert.
    """
    refuse_kinds(adapter.updates.values(), NAME, ("linear", "conv1d", "conv2d", "conv3d"))
    refuse_flat_names(adapter, NAME)
    parts: dict[str, dict[str, UpdateInfo]] = {}
    tensors: dict[str, torch.Tensor] = {}
    for module, info in adapter.updates.items():
        found = _PART.fullmatch(module)
        if found is None:
            raise FormatError(
                f"module {module!r}: {NAME} wants the pipeline's part in front of a path (unet., "
                "transformer., text_encoder.), and this names none: --base PIPELINE (of subspace "
                "convert), the folder with model_index.json, tells it"
            )
        part, path = found.groups()
        parts.setdefault(part, {})[path] = info
        tensors |= lay_out_update(adapter[module], info, module)
    config: dict[str, Any] = {}
    for part, infos in parts.items():
        fields = {"lora_dropout": 0.0, "bias": "none", "target_modules": list(infos)}
        config |= {
            f"{part}.{key}": value for key, value in (fields | choose_numbers(infos)).items()
        }
    text = json.dumps(config, indent=2, sort_keys=True, allow_nan=False)
    return Content(tensors, metadata={"lora_adapter_metadata": text})
