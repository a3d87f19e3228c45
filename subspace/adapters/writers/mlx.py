"""MLX-LM as mlx-lm 0.32.2 reads it: factors transposed, one scale and one rank for all modules.

``mlx_lm/tuner/utils.py``, ``load_adapters``: layers are made with ``lora_parameters.rank`` and
``.scale``, for the modules that ``.keys`` names by their path, and a tensor of another shape is
refused. So smaller ranks are filled up with zeros, which changes no product, and other scales are
folded into ``lora_b``. Experts that were read of its own files are stacked again, under its names.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from subspace.adapters.formats import diffusers, mlx
from subspace.adapters.source import some
from subspace.adapters.writers.content import (
    Content,
    find_most_common,
    fold_scale,
    refuse_flat_names,
    refuse_kinds,
    refuse_parts,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from subspace.adapters.adapter import Adapter

NAME = mlx.NAME
FOLDER = True
WEIGHTS = "adapters.safetensors"
SUFFIXES = ()


def content(adapter: Adapter, *, updates_only: bool) -> Content:  # noqa: ARG001 - `Writer`'s
    """Lay an adapter out as MLX-LM's trainer does.

    Raises
    ------
    FormatError
        A convolution, an expert of another writer, or a flat name.
    """
    import torch

    counts = _count_experts(adapter)
    plain = [info for name, info in adapter.updates.items() if _name_stack(name) not in counts]
    refuse_kinds(plain, NAME, ("linear", "embedding"))
    refuse_flat_names(adapter, NAME)
    refuse_parts(adapter, NAME, diffusers.NAME)
    infos = adapter.updates
    scale = find_most_common([info.scale for info in infos.values() if info.scale] or [1.0])
    rank = max(info.rank for info in infos.values())
    tensors: dict[str, torch.Tensor] = {}
    stacks: dict[str, dict[int, tuple[torch.Tensor, torch.Tensor]]] = defaultdict(dict)
    rounded, filled, narrowed = [], [], []
    for module, info in infos.items():
        update = adapter[module]
        B, exact = fold_scale(update.B, update.scale / scale)
        A = update.A
        if torch.float64 in (A.dtype, B.dtype):  # mlx has no float64 in a file
            A, B = A.float(), B.float()
            narrowed.append(module)
        if not exact:
            rounded.append(module)
        if info.rank < rank:
            A = torch.nn.functional.pad(A, (0, 0, 0, rank - info.rank))
            B = torch.nn.functional.pad(B, (0, rank - info.rank))
            filled.append(module)
        if _name_stack(module) in counts:
            stacks[_name_stack(module)][int(module.rpartition(".")[2])] = A, B
        else:
            tensors |= {f"{module}.lora_a": A.T, f"{module}.lora_b": B.T}
    for path, experts in stacks.items():
        tensors |= _stack_experts(path, experts, counts[path])
    notes = []
    left = [path for path, experts in stacks.items() if len(experts) < counts[path]]
    if left:
        notes.append(f"zeros for the experts that were left out: {some(left)}")
    if rounded:
        notes.append(
            f"{NAME} stores one scale, {scale:g}: that of {some(rounded)} is folded into lora_b, "
            "exact to float32's rounding"
        )
    if filled:
        notes.append(f"{NAME} stores one rank, {rank}: {some(filled)} filled up with zeros")
    if narrowed:
        notes.append(f"{NAME} has no float64: {some(narrowed)} rounded to float32")
    config = {
        "fine_tune_type": "lora",
        "lora_parameters": {
            "rank": rank,
            "scale": scale,
            "dropout": 0.0,
            # Whole paths: a key within a layer would match all layers.
            "keys": list(
                dict.fromkeys(_name_stack(m) if _name_stack(m) in counts else m for m in infos)
            ),
        },
        "model": adapter.base_model,
        "num_layers": -1,
    }
    return Content(tensors, config, {"format": "mlx"}, tuple(notes))


def _name_stack(module: str) -> str:
    return module.rpartition(".")[0]


def _count_experts(adapter: Adapter) -> Mapping[str, int]:
    """Return how many experts each stack has that MLX-LM wrote."""
    stacks = {_name_stack(name) for name, info in adapter.updates.items() if info.kind == "expert"}
    return {path: count for path, count in adapter.layout.experts.items() if path in stacks}


def _stack_experts(
    path: str, pairs: Mapping[int, tuple[torch.Tensor, torch.Tensor]], count: int
) -> dict[str, torch.Tensor]:
    import torch

    zeros = tuple(torch.zeros_like(x) for x in next(iter(pairs.values())))
    A, B = zip(*(pairs.get(n, zeros) for n in range(count)), strict=True)
    # (E, r, d_in), (E, d_out, r), of one dtype though a folded B may be wider
    a, b = (torch.cat([x[None] for x in each]) for each in (A, B))
    return {f"{path}.lora_a": a, f"{path}.lora_b": b}
