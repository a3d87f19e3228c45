"""loralib as loralib 0.1.2 reads it: bare parameters in a state dict, and no alpha.

alpha is an argument of the layers that load it: one for all, so that others are folded into B, and
the note says what to pass.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from subspace.adapters.formats import diffusers, loralib
from subspace.adapters.source import some
from subspace.adapters.writers.content import (
    Content,
    find_alpha,
    find_most_common,
    fold_scale,
    refuse_flat_names,
    refuse_kinds,
    refuse_parts,
)
from subspace.errors import FormatError

if TYPE_CHECKING:
    import torch

    from subspace.adapters.adapter import Adapter

NAME = loralib.NAME
FOLDER = False
WEIGHTS = ""
SUFFIXES = (".safetensors", ".pt")


def content(adapter: Adapter, *, updates_only: bool) -> Content:  # noqa: ARG001 - `Writer`'s
    """Lay an adapter out as loralib's ``lora_state_dict`` does.

    Raises
    ------
    FormatError
        A convolution of a kernel larger than 1, whose factors loralib lays out otherwise.
    """
    refuse_kinds(
        adapter.updates.values(), NAME, ("linear", "embedding", "conv1d", "conv2d", "conv3d")
    )
    refuse_flat_names(adapter, NAME)
    refuse_parts(adapter, NAME, diffusers.NAME)
    for module, info in adapter.updates.items():
        if info.kind.startswith("conv") and (math.prod(info.kernel) != 1 or info.groups != 1):
            raise FormatError(
                f"module {module!r} is a {info.kind}: loralib's factors of a kernel larger than 1 "
                "or of groups are other matrices, of another rank"
            )
    alphas = {module: find_alpha(info.scale, info.rank) for module, info in adapter.updates.items()}
    alpha = find_most_common([a for a in alphas.values() if a] or [1.0])
    tensors: dict[str, torch.Tensor] = {}
    rounded = []
    for module in adapter.updates:
        update = adapter[module]
        B, exact = fold_scale(update.B, alphas[module] / alpha)
        if not exact:
            rounded.append(module)
        tensors |= {f"{module}.lora_A": update.A, f"{module}.lora_B": B}
    notes = [f"{NAME} stores no alpha: give lora_alpha={alpha:g} to its layers that load this"]
    if rounded:
        notes.append(
            f"the alpha of {some(rounded)} is another and is folded into lora_B, exact to "
            "float32's rounding"
        )
    return Content(tensors, metadata={"lora_alpha": f"{alpha!r}"}, notes=tuple(notes))
