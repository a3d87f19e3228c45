"""PEFT's LoRA: from tensor names, shapes and config to modules, factors and scales.

Layout as peft 0.21.2 writes it: ``base_model.model.<path>.lora_A.weight`` (r, d_in) and
``.lora_B.weight`` (d_out, r); a live state dict has the adapter's name before ``weight``. The
scale is ``lora_alpha / r``, or ``lora_alpha / sqrt(r)`` with ``use_rslora`` (arXiv:2312.03732).
``fan_in_fan_out`` says how the base weight is stored, not what the update maps: B @ A is y = B A x
either way. Everything here looks at names and shapes alone; tensors are read when asked for.
"""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import TYPE_CHECKING

from subspace.adapters.adapter import Adapter, LowRankUpdate, SetAside, UpdateInfo
from subspace.adapters.find import CONFIG
from subspace.adapters.order import model_order
from subspace.adapters.peft_config import LoraConfig, check_peft_type, read_config
from subspace.adapters.peft_keys import Key, Pair, pairs_of, parse, set_aside
from subspace.adapters.peft_patterns import from_patterns
from subspace.adapters.source import some
from subspace.errors import FormatError, MissingFileError, UnknownModuleError
from subspace.tensorfiles import open_tensors

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch

    from subspace.adapters.source import Source
    from subspace.tensorfiles import TensorFile

NAME = "PEFT"
WANTS = "NAME.lora_A.weight (r, d_in) and NAME.lora_B.weight (d_out, r), adapter_config.json beside"
ENDS = (".lora_A", ".lora_B", ".lora_embedding_A", ".lora_embedding_B")
READS = (
    "LoRA with rsLoRA, rank and alpha patterns, `fan_in_fan_out`, embeddings, convolutions of 1 "
    "to 3 dimensions, named adapters; DoRA by its BA part; heads, biases, trained tokens set aside"
)
PROOF = "tests/test_peft_adapters.py"
_KINDS = {2: "linear", 3: "conv1d", 4: "conv2d", 5: "conv3d"}


def claims(source: Source) -> str | None:
    """Say why these are PEFT's: the config's ``peft_type``, else the tensors' names.

    Raises
    ------
    FormatError
        A ``peft_type`` that is not read: said before the weights are opened.
    """
    if source.config is not None and "peft_type" in source.config:
        check_peft_type(source.config, source.where)
        lora = source.config["peft_type"] == "LORA"
        return f"{source.where} has peft_type LORA" if lora else None
    factors = {"A", "B", "embedding_A", "embedding_B"}
    found = next((name for name in source.tensors if parse(name).slot in factors), None)
    return None if found is None else f"tensor {found!r} is named as PEFT names a factor"


def read(source: Source) -> Adapter:
    """Make an `Adapter` of a PEFT folder, from headers alone.

    Raises
    ------
    MissingFileError
        There is no config, which holds alpha.
    FormatError
        A factor without its partner, shapes that do not fit, a config that makes no sense.
    """
    if source.config is None:
        raise MissingFileError(
            f"{source.weights.parent}: {source.weights.name} has no {CONFIG} beside it, which "
            "holds lora_alpha and so the scale; copy it from where the weights came from"
        )
    config, where, tensors = source.config, source.where, source.tensors
    adapter_name = source.adapter_name
    initial = open_tensors(source.initial) if source.initial else None
    lora = read_config(config, where)
    keys, others = _one_adapter([parse(t) for t in tensors], adapter_name, tensors.path)
    pairs, rest = pairs_of(keys, lora, tensors)
    alphas, ranks, unsure = from_patterns({m: pair.target for m, pair in pairs.items()}, lora)
    updates, disagree = {}, []
    notes = [*lora.notes, *unsure]
    for module in sorted(pairs, key=model_order):
        info = _info(module, pairs[module], alphas[module], lora, tensors)
        updates[module] = info
        if info.rank not in ranks[module] and ranks[module] != [None]:
            disagree.append(f"{module} ({ranks[module][0]}, stored {info.rank})")
    if disagree:
        notes.append(
            "the config's rank is not that of the tensors, whose rank the scale uses: "
            + some(disagree)
        )
    grouped = [module for module in updates if pairs[module].groups > 1]
    if grouped:
        notes.append(
            f"{some(grouped)}: a convolution in groups, of which PEFT's A reads all inputs, so "
            "the update is wider than the base weight"
        )
    if not updates:
        notes.append("no low-rank update is in this file")
    dora = lora.dora or any(key.slot == "magnitude" for key in rest)
    if initial is not None:
        _check_initial(initial, updates)

    def read_update(module: str) -> LowRankUpdate:
        return _read(module, pairs[module], updates[module].scale, tensors)

    return Adapter(
        source.name,
        source.path,
        NAME,
        "DoRA (BA part)" if dora else "rsLoRA" if lora.rslora else "LoRA",
        MappingProxyType(updates),
        MappingProxyType(
            {
                "base_model": lora.base_model,
                "stored_transposed": lora.fan_in_fan_out,
                "weights": str(tensors.path),
                "config": MappingProxyType(dict(config)),
            }
        ),
        (*(set_aside(key, lora, tensors) for key in rest), *others_aside(others, tensors)),
        tuple(dict.fromkeys(notes)),
        MappingProxyType(initial) if initial is not None else {},
        _read=read_update,
        _read_tensor=tensors.__getitem__,
    )


def others_aside(keys: list[Key], tensors: TensorFile) -> list[SetAside]:
    """List the tensors of the adapters that were not asked for."""
    return [
        SetAside(
            key.name,
            tensors.headers[key.name].shape,
            tensors.headers[key.name].dtype,
            f"of another adapter, {key.adapter!r}",
            module=key.module,
        )
        for key in keys
    ]


def _one_adapter(keys: list[Key], wanted: str | None, path: Path) -> tuple[list[Key], list[Key]]:
    named = dict.fromkeys(key.adapter for key in keys if key.adapter is not None)
    if wanted is not None and wanted not in named:
        have = f"those of {', '.join(map(repr, named))}" if named else "no adapter's name in them"
        raise UnknownModuleError(f"{path}: no adapter {wanted!r}; its tensors have {have}")
    if wanted is None and len(named) > 1:
        raise FormatError(
            f"{path}: holds {len(named)} adapters ({', '.join(map(repr, list(named)[:8]))}); "
            f"choose with load(…, adapter_name={next(iter(named))!r})"
        )
    chosen = wanted if wanted is not None else next(iter(named), None)
    mine = [key for key in keys if key.adapter in (None, chosen)]
    return mine, [key for key in keys if key.adapter not in (None, chosen)]


def _info(
    module: str, pair: Pair, alpha: float, lora: LoraConfig, tensors: TensorFile
) -> UpdateInfo:
    a, b = tensors.headers[pair.a], tensors.headers[pair.b]
    rank = a.shape[0]
    return UpdateInfo(
        module,
        (b.shape[0], math.prod(a.shape[1:])),
        rank,
        alpha / math.sqrt(rank) if lora.rslora else alpha / rank,
        a.dtype if a.dtype == b.dtype else f"{a.dtype}/{b.dtype}",
        "embedding" if pair.embedding else _KINDS[len(a.shape)],
        a.shape[2:],
        pair.groups,
    )


def _read(module: str, pair: Pair, scale: float, tensors: TensorFile) -> LowRankUpdate:
    a, b = tensors[pair.a], tensors[pair.b]
    a = a.reshape(a.shape[0], -1)  # (r, d_in); a view of what the file holds
    b = b.reshape(b.shape[0], -1)  # (d_out, r / groups)
    if pair.groups > 1:
        b = _ungrouped(b, pair.groups)
    if pair.diagonal is not None:  # KaSA, arXiv:2412.06071: B diag(d) A
        b = b * tensors[pair.diagonal].to(b.dtype)
    return LowRankUpdate(module, a, b, scale, f"{tensors.path} ({pair.a}, {pair.b})")


def _ungrouped(b: torch.Tensor, groups: int) -> torch.Tensor:
    """Lay out B of a grouped convolution, (d_out, r / groups), as block-diagonal (d_out, r)."""
    full = b.new_zeros(b.shape[0], b.shape[1] * groups)
    height, width = b.shape[0] // groups, b.shape[1]
    for group in range(groups):
        rows = slice(group * height, (group + 1) * height)
        full[rows, group * width : (group + 1) * width] = b[rows]
    return full


def _check_initial(initial: TensorFile, updates: Mapping[str, UpdateInfo]) -> None:
    for module, header in initial.headers.items():
        info = updates.get(module)
        if info is None:
            raise FormatError(
                f"{initial.path}: tensor {module!r} belongs to no module that is read"
            )
        if header.shape != (info.rank, info.shape[1]):
            raise FormatError(
                f"{initial.path}: tensor {module!r} is {header.shape}, "
                f"A is {(info.rank, info.shape[1])}; it is not of this adapter"
            )
