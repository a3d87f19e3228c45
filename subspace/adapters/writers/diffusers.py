"""diffusers as diffusers 0.42.1 reads it: one file for a pipeline, PEFT's config in its metadata.

Tensors are ``<part>.<path>.lora_A.weight`` and ``.lora_B.weight``; ``lora_adapter_metadata`` is
JSON with the fields of each part's ``LoraConfig``, ``<part>.r`` and so on
(``loaders/lora_base.py``). A file that was read without parts is written without them:
``diffusion_model.<path>``, as ComfyUI and diffusers read it, or the path alone, either with an
``.alpha`` for every module and no metadata (``lora_conversion_utils.py``; ComfyUI's ``lora.py``).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from subspace.adapters.formats import diffusers
from subspace.adapters.writers.content import (
    Content,
    find_alpha,
    refuse_flat_names,
    refuse_kinds,
    split_part,
)
from subspace.adapters.writers.peft import choose_numbers, lay_out_update
from subspace.errors import FormatError

if TYPE_CHECKING:
    import torch

    from subspace.adapters.adapter import Adapter, UpdateInfo

NAME = diffusers.NAME
FOLDER = False
WEIGHTS = ""
SUFFIXES = (".safetensors",)


def content(adapter: Adapter, *, updates_only: bool) -> Content:  # noqa: ARG001 - `Writer`'s
    """Lay an adapter out as a pipeline's ``save_lora_weights`` does, or as it was read.

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
        part, path = split_part(module)
        if not part:
            tensors |= _lay_out_alone(adapter, module, info)
            continue
        parts.setdefault(part, {})[path] = info
        tensors |= lay_out_update(adapter[module], info, module)
    config: dict[str, Any] = {}
    for part, infos in parts.items():
        fields = {"lora_dropout": 0.0, "bias": "none", "target_modules": list(infos)}
        config |= {
            f"{part}.{key}": value for key, value in (fields | choose_numbers(infos)).items()
        }
    if not config:
        return Content(tensors)
    text = json.dumps(config, indent=2, sort_keys=True, allow_nan=False)
    return Content(tensors, metadata={"lora_adapter_metadata": text})


def _lay_out_alone(adapter: Adapter, module: str, info: UpdateInfo) -> dict[str, torch.Tensor]:
    """Lay a module out that names no part of a pipeline, in a file that was read so."""
    import torch

    if adapter.format != NAME:
        raise FormatError(
            f"module {module!r}: {NAME} wants the pipeline's part in front of a path (unet., "
            "transformer., text_encoder.), and this names none: --base PIPELINE (of subspace "
            "convert), the folder with model_index.json, tells it"
        )
    name = f"{adapter.prefix}{module}"
    alpha = torch.tensor(find_alpha(info.scale, info.rank), dtype=torch.float32)
    return lay_out_update(adapter[module], info, name) | {f"{name}.alpha": alpha}
