"""Experts as peft 0.21.2 reads them: the updates of one parameter in two tensors, in one stack.

The layout is that of `peft_experts`: lora_A (E * r, d_in) has expert after expert, lora_B
(d_out, r * E) rank after rank. One rank and one scale are stored for a stack, so that smaller ranks
are filled up with zeros, and what an expert's scale differs by is folded into its B. How deep a
parameter's wrapper lies is by the order in the model's code: it is kept as it was read.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from subspace.adapters.adapter import UpdateInfo
from subspace.adapters.source import some
from subspace.adapters.writers.content import find_most_common, fold_scale
from subspace.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from subspace.adapters.adapter import Adapter
    from subspace.adapters.layout import Stack

LAYOUT = "0.21.2"
"""The version whose layout this is: the reader tells A's side by it."""


class Stacked(NamedTuple):
    """What an adapter's stacks are written as."""

    infos: Mapping[str, UpdateInfo]  # by the path that PEFT matches patterns against
    members: frozenset[str]  # the modules that are in them
    tensors: Mapping[str, torch.Tensor]
    notes: tuple[str, ...]


def lay_out_stacks(adapter: Adapter, prefix: str) -> Stacked:
    """Lay out the updates of an adapter that PEFT stored in stacks.

    Raises
    ------
    FormatError
        An expert of another writer, whose names are not those of the base's stacks.
    """
    stacks = adapter.layout.stacks
    experts_by_stack: dict[str, dict[int, str]] = defaultdict(dict)
    for module, info in adapter.updates.items():
        path, _, number = module.rpartition(".")
        if module in stacks:
            experts_by_stack[module][0] = module
        elif info.kind == "expert" and path in stacks:
            experts_by_stack[path][int(number)] = module
        elif info.kind == "expert":
            raise FormatError(
                f"module {module!r} is an expert by the name that {adapter.format} has for it: "
                "PEFT wants the parameter of the base that holds all experts of a layer (such as "
                "experts.down_proj), which it does not tell; --modules 'PATTERN' leaves experts out"
            )
    tensors: dict[str, torch.Tensor] = {}
    infos: dict[str, UpdateInfo] = {}
    notes: dict[str, list[str]] = defaultdict(list)
    for path, name in _names({path: stacks[path] for path in experts_by_stack}, prefix).items():
        parameter, experts = stacks[path].parameter, stacks[path].experts
        infos[parameter], A, B = _stack(adapter, parameter, experts_by_stack[path], experts, notes)
        tensors |= {f"{name}.lora_A.weight": A, f"{name}.lora_B.weight": B}
    return Stacked(
        infos,
        frozenset(module for members in experts_by_stack.values() for module in members.values()),
        tensors,
        tuple(f"{note}: {some(modules)}" for note, modules in notes.items()),
    )


def _names(stacks: Mapping[str, Stack], prefix: str) -> dict[str, str]:
    """Name the wrapper of each stack; one that is left out leaves no gap in its module's."""
    by_module: dict[str, list[str]] = defaultdict(list)
    for path in sorted(stacks, key=lambda path: stacks[path].a.split(".").count("base_layer")):
        by_module[stacks[path].parameter.rpartition(".")[0]].append(path)
    return {
        path: f"{prefix}{module}" + ".base_layer" * depth
        for module, paths in by_module.items()
        for depth, path in enumerate(paths)
    }


def _stack(
    adapter: Adapter,
    parameter: str,
    members: Mapping[int, str],
    experts: int,
    notes: dict[str, list[str]],
) -> tuple[UpdateInfo, torch.Tensor, torch.Tensor]:
    import torch

    infos = [adapter.updates[module] for module in members.values()]
    rank = max(info.rank for info in infos)
    scale = find_most_common([info.scale for info in infos if info.scale] or [1.0])
    (d_out, d_in), dtype = infos[0].shape, adapter[infos[0].name].A.dtype
    all_A = [torch.zeros(rank, d_in, dtype=dtype)] * experts
    all_B = [torch.zeros(d_out, rank, dtype=dtype)] * experts
    for number, module in members.items():
        update = adapter[module]
        B, exact = fold_scale(update.B, update.scale / scale)
        if not exact:
            notes[
                f"PEFT stores one scale for all experts of a parameter, {scale:g} here, and others "
                "are folded into lora_B, exact to float32's rounding"
            ].append(module)
        if update.rank < rank:
            notes[f"PEFT stores one rank for all, {rank} here; filled up with zeros"].append(module)
        pad = torch.nn.functional.pad
        all_A[number] = pad(update.A, (0, 0, 0, rank - update.rank))
        all_B[number] = pad(B, (0, rank - update.rank))
    if len(members) < experts:
        notes["zeros for the experts that were left out"].append(parameter)
    A = torch.cat(all_A)  # (E * r, d_in)
    B = torch.cat([B[None] for B in all_B])  # (E, d_out, r)
    B = B.permute(1, 2, 0).reshape(d_out, rank * experts)
    return (
        UpdateInfo(
            name=parameter, shape=(d_out, d_in), rank=rank, scale=scale, dtype=infos[0].dtype
        ),
        A,
        B,
    )
