r"""PEFT as peft 0.21.2 reads it: names, shapes, and the patterns that give each module its scale.

``rank_pattern`` and ``alpha_pattern`` map regular expressions to numbers; the first for which
``re.match(rf"(.*\.)?({key})$", module)`` holds is taken (``get_pattern_key``). A module's path is
such an expression, but one that may match others: where it does, it is escaped and anchored.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from subspace.adapters.formats import diffusers
from subspace.adapters.peft import lora as peft
from subspace.adapters.peft.keys import parse_name
from subspace.adapters.peft.regex import match_patterns
from subspace.adapters.set_aside import SetAsideReason
from subspace.adapters.writers.content import (
    Content,
    find_alpha,
    find_most_common,
    refuse_flat_names,
    refuse_kinds,
    refuse_parts,
    shape_convolution,
    write_whole,
)
from subspace.adapters.writers.peft_experts import LAYOUT, lay_out_stacks
from subspace.errors import FormatError
from subspace.tensorfiles import short

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from subspace.adapters.adapter import Adapter, LowRankUpdate, UpdateInfo

NAME = peft.NAME
FOLDER = True
WEIGHTS = "adapter_model.safetensors"
SUFFIXES = ()
_PREFIX = "base_model.model."
_KINDS = ("linear", "embedding", "conv1d", "conv2d", "conv3d")
_PLAIN = re.compile(r"[\w.\-]*")
# Of a config that PEFT itself wrote: with these the factors are not what is stored, or the
# adapter is more than its updates in ways that are not written here.
_REFUSED = (
    "layer_replication",
    "use_bdlora",
    "kasa_config",
    "arrow_config",
    "monteclora_config",
    "velora_config",
)
# On loading, PEFT takes the leading part of this rank out of the base weights again.
_OF_THE_RANK = ("pissa", "olora", "corda", "lora_ga", "loftq", "mica")
# What goes with the tensors that are left out.
_OF_OTHERS = {
    "modules_to_save": None,
    "bias": "none",
    "lora_bias": False,
    "use_dora": False,
    "trainable_token_indices": None,
}


def content(adapter: Adapter, *, updates_only: bool) -> Content:
    """Lay an adapter out as PEFT's ``save_pretrained`` does.

    Of an adapter that PEFT wrote the config stays, and with it heads, biases and magnitudes.

    Raises
    ------
    FormatError
        A module of a kind that PEFT has no place for, or a config that cannot be written again.
    """
    stacks = lay_out_stacks(adapter, _PREFIX)
    plain = {name: info for name, info in adapter.updates.items() if name not in stacks.members}
    refuse_kinds(plain.values(), NAME, _KINDS)
    refuse_flat_names(adapter, NAME)
    refuse_parts(adapter, NAME, diffusers.NAME)
    own = _own_config(adapter)
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": adapter.base_model,
        "inference_mode": True,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": adapter.layout.stored_transposed,
        "target_modules": None,
        **own,
    }
    if updates_only:
        config |= {name: value for name, value in _OF_OTHERS.items() if name in config}
    if adapter.partial and config.get("use_dora"):
        raise FormatError(
            f"{adapter.path or adapter.name}: some of its modules were left out, and DoRA's "
            "magnitude rescales a module's weights even where B @ A is zero; --updates-only "
            "(updates_only=True) writes B and A alone, as LoRA"
        )
    if config["target_modules"] is None or adapter.partial:
        config["target_modules"] = list(plain)
    if stacks.infos or config.get("target_parameters"):
        config["target_parameters"] = list(stacks.infos)
    # What is written here follows the rules of this release, whichever wrote the config.
    config["peft_version"] = LAYOUT
    config |= choose_numbers({**plain, **stacks.infos}, rslora=bool(config.get("use_rslora")))
    tensors: dict[str, torch.Tensor] = dict(stacks.tensors)
    prefix = adapter.prefix if own and adapter.prefix else _PREFIX
    for module, info in plain.items():
        if module.startswith(_PREFIX):  # under another format's naming: PEFT would look in itself
            raise FormatError(
                f"module {module!r} begins with PEFT's own prefix {_PREFIX!r}, which it would have "
                "twice; --rename OLD=NEW gives it the base's path"
            )
        tensors |= lay_out_update(adapter[module], info, f"{prefix}{module}")
    carried = {} if updates_only or not own else _others(adapter)
    tensors |= {name: adapter.tensor(stored) for stored, name in carried.items()}
    return Content(tensors, config, notes=stacks.notes, carried=frozenset(carried))


def _own_config(adapter: Adapter) -> dict[str, Any]:
    entries = dict(adapter.layout.config)
    if entries.get("peft_type") != "LORA":
        return {}
    refused = [name for name in _REFUSED if entries.get(name)]
    if any(tensor.reason is SetAsideReason.PARAMETERS for tensor in adapter.set_aside):
        refused.append("target_parameters")
    if refused:
        raise FormatError(
            f"{adapter.path or adapter.name}: its config has {', '.join(refused)}, with which what "
            "is stored is more than a B and an A a module; it is not written again"
        )
    start = str(entries.get("init_lora_weights")).lower()
    if adapter.resized and start.startswith(_OF_THE_RANK):
        raise FormatError(
            f"{adapter.path or adapter.name}: init_lora_weights = {short(start)} changes the base "
            "weights by the rank on loading, so that no other rank goes with them; have PEFT "
            "convert it first (save_pretrained with path_initial_model_for_weight_conversion)"
        )
    return entries


def _others(adapter: Adapter) -> dict[str, str]:
    """Map the names of heads, biases and magnitudes to those that PEFT saves them under.

    A state dict of a live model has the adapter's name in them, which ``save_pretrained`` drops.
    """
    others = {}
    for tensor in adapter.set_aside:
        if tensor.known and tensor.reason is not SetAsideReason.OTHER_ADAPTER:
            key = parse_name(tensor.name)
            parts = tensor.name.split(".")
            if key.adapter is not None:
                at = len(parts) - 1 - parts[::-1].index(key.adapter)
                parts = [p for n, p in enumerate(parts) if n != at and p != "modules_to_save"]
                if key.slot == "magnitude":
                    parts = parts[: parts.index("lora_magnitude_vector") + 1]
            others[tensor.name] = ".".join(parts)
    return others


def choose_numbers(infos: Mapping[str, UpdateInfo], *, rslora: bool = False) -> dict[str, Any]:
    """Give r, lora_alpha and their patterns, of updates by the paths that PEFT matches."""
    ranks = {module: info.rank for module, info in infos.items()}
    alphas = {
        module: find_alpha(info.scale, math.sqrt(info.rank) if rslora else info.rank)
        for module, info in infos.items()
    }
    r, alpha = find_most_common(ranks.values()), find_most_common(alphas.values())
    return {
        "r": int(r),
        "lora_alpha": write_whole(alpha),
        "rank_pattern": _pattern(ranks, r),
        "alpha_pattern": {key: write_whole(a) for key, a in _pattern(alphas, alpha).items()},
    }


def _pattern(wanted: Mapping[str, float], default: float) -> dict[str, Any]:
    r"""Return a pattern that gives every module its own number.

    >>> _pattern({"a.q": 2, "b.a.q": 2, "k": 4}, 4)
    {'a.q': 2, 'b.a.q': 2}
    >>> _pattern({"a.q": 2, "b.a.q": 4, "k": 4}, 4)
    {'^a\\.q': 2}
    """
    special = [module for module, number in wanted.items() if number != default]
    odd = {module for module in special if not _PLAIN.fullmatch(module)}
    plain = [module for module in special if module not in odd]
    for module, keys in match_patterns(plain, wanted, where="rank_pattern").items():
        odd |= {key for key in keys if wanted[key] != wanted[module]}
    return {f"^{re.escape(m)}" if m in odd else m: wanted[m] for m in special}


def lay_out_update(update: LowRankUpdate, info: UpdateInfo, name: str) -> dict[str, torch.Tensor]:
    """Return an update's two tensors by PEFT's names, in the shapes of its kind of layer."""
    A, B = update.A, update.B
    if info.kind == "embedding":
        return {f"{name}.lora_embedding_A": A, f"{name}.lora_embedding_B": B}
    if info.kind != "linear":
        A = shape_convolution(info, A)
        B = _group_factors(info, B).reshape(len(B), -1, *(1 for _ in info.kernel))
    return {f"{name}.lora_A.weight": A, f"{name}.lora_B.weight": B}


def _group_factors(info: UpdateInfo, B: torch.Tensor) -> torch.Tensor:
    """Take the blocks of B (d_out, r) that a convolution in groups stores, (d_out, r / groups)."""
    import torch

    if info.groups == 1:
        return B
    module = f"module {info.name!r}"
    if B.shape[1] % info.groups or len(B) % info.groups:
        raise FormatError(f"{module}: {info.groups} groups do not divide {tuple(B.shape)}")
    height, width = len(B) // info.groups, B.shape[1] // info.groups
    rest, blocks = B.clone(), []
    for group in range(info.groups):
        rows = slice(group * height, (group + 1) * height)
        columns = slice(group * width, (group + 1) * width)
        blocks.append(B[rows, columns])
        rest[rows, columns] = 0
    if bool(rest.any()):
        raise FormatError(
            f"{module} is a convolution in {info.groups} groups, and its B mixes them: {NAME} "
            "stores a block for each"
        )
    return torch.cat(blocks)
