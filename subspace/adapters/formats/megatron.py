"""Megatron-Bridge's and NeMo's LoRA, of one tensor-parallel rank or gathered.

Layout of Megatron-Bridge (``megatron/bridge/peft/lora.py``, ``lora_merge.py``) and NeMo 2
(``nemo/collections/llm/peft/lora.py``): ``<path>.adapter.linear_in.weight`` (r, d_in) and
``<path>.adapter.linear_out.weight`` (d_out, r), update ``alpha / dim * linear_out @ linear_in``.
Canonical LoRA has one pair for each part of a fused layer, ``<path>.adapter.adapter_q.…``; several
adapters in one file are ``<path>.adapters.<slot>.…``. Neither stores alpha. NeMo 1
(``nemo/collections/nlp/modules/common/megatron/adapters``) has them in the layer's
``adapter_layer.lora_kqv_adapter`` and so on, which are the modules here.

Fused layers keep their rows as Megatron has them: those of ``linear_qkv`` go by query group (the
group's queries, its key, its value), those of ``linear_fc1`` are gate, then up. A folder of shards
(``torch_dist``, ``.distcp``) is not read.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from subspace.adapters.build import build_adapter
from subspace.adapters.factors.plain import require_alpha, specify_linear
from subspace.adapters.method import Method
from subspace.adapters.set_aside import SetAside, SetAsideReason
from subspace.adapters.source import group_by_module, require_factors, some
from subspace.errors import FormatError, UnknownModuleError

if TYPE_CHECKING:
    from subspace.adapters.adapter import Adapter
    from subspace.adapters.build import UpdateSpec
    from subspace.adapters.source import AdapterSource

NAME = "Megatron / NeMo"
EXPECTS = "NAME.adapter.linear_in.weight (r, d_in) and NAME.adapter.linear_out.weight (d_out, r)"
TENSOR_SUFFIXES = (".linear_in.weight", ".linear_out.weight")
READS = (
    "LoRA and canonical LoRA of one rank, NeMo 1's too, by Megatron's own names and rows; alpha is "
    "asked for; "
    "DoRA by its BA part"
)
REFERENCE = "files and merge by the documented rule"
TESTS = ("tests/test_megatron_adapters.py",)
_KEY = re.compile(
    r"(?P<path>.+?\.adapter_layer\.[a-z0-9_]+_adapter(?=\.)"
    r"|.+?(?=\.adapters?\.))(?:\.adapter|\.adapters\.(?P<slot>[^.]+))?(?:\.adapter_(?P<part>[a-z]+))?"
    r"\.(?P<what>linear_in|linear_out|layer_norm|weight_magnitude)(?:\.(?:weight|bias))?\Z"
)
_FUSED = (".linear_qkv", ".linear_fc1", ".lora_kqv_adapter")
_SHARDS = ": shards of tensor parallelism look so; gather the ranks, or export as PEFT"


def matches(source: AdapterSource) -> str | None:
    """Say why these are Megatron's: the tensors' names."""
    if source.config is not None and "peft_type" in source.config:
        return None
    example = next(
        (name for name in source.tensors if name.endswith(TENSOR_SUFFIXES) and _KEY.match(name)),
        None,
    )
    return None if example is None else f"tensor {example!r} is named as Megatron-Bridge names it"


def read(source: AdapterSource) -> Adapter:
    """Make an `Adapter` of a state dict of Megatron-Bridge or NeMo, from headers alone.

    Raises
    ------
    FormatError
        A factor without its partner, shapes that do not fit (a rank's shard), no alpha, several
        adapters, an adapter that normalises.
    UnknownModuleError
        The file has no adapter of that name.
    """
    alpha = require_alpha(source, "a Megatron state dict")
    wanted, others = _slot(source)
    planned: list[UpdateSpec] = []
    aside = {
        name: SetAside.of(
            name,
            source.tensors.headers[name],
            SetAsideReason.OTHER_ADAPTER,
            detail=f" than {wanted!r}",
        )
        for name in others
    }
    mine = source.only(name for name in source.tensors if name not in aside)
    for module, slots in group_by_module(mine, _parse).items():
        if "layer_norm" in slots:
            raise FormatError(
                f"{source.text(slots['layer_norm'])}: an adapter that normalises its input is no "
                "low-rank update"
            )
        if "weight_magnitude" in slots and len(slots) == 1:
            continue  # not understood
        require_factors(source, module, slots, "linear_in", "linear_out")
        a, b = slots["linear_in"], slots["linear_out"]
        update = specify_linear(source, module, a, b, alpha, why=_SHARDS)
        planned.append(replace(update, magnitude=slots.get("weight_magnitude", "")))
    notes = []
    fused = [p.module for p in planned if p.module.endswith(_FUSED)]
    if fused:
        notes.append(
            f"{some(fused)}: rows in Megatron's order (linear_qkv by query group, linear_fc1 gate "
            "then up): norms and the sides A and in are as elsewhere, the sides B and out compare "
            "with Megatron's files alone"
        )
    dora = any(update.magnitude for update in planned)
    return build_adapter(
        source,
        planned,
        format=NAME,
        method=Method.of_lora(dora=dora),
        set_aside=aside,
        notes=notes,
    )


def _parse(name: str) -> tuple[str, str] | None:
    """Take a tensor's name apart.

    >>> _parse("module.decoder.layers.0.linear_qkv.adapter.adapter_q.linear_in.weight")
    ('decoder.layers.0.linear_qkv.q', 'linear_in')
    """
    key = _KEY.match(name)
    if key is None or name.endswith(".bias"):
        return None
    path = key["path"]
    while path.startswith("module."):  # of DistributedDataParallel and of Float16Module
        path = path.removeprefix("module.")
    return (f"{path}.{key['part']}" if key["part"] else path), key["what"]


def _slot(source: AdapterSource) -> tuple[str | None, list[str]]:
    """Choose one of several adapters; return it and the tensors of the others."""
    keys = {name: key["slot"] for name in source.tensors if (key := _KEY.match(name))}
    slots = list(dict.fromkeys(slot for slot in keys.values() if slot is not None))
    wanted = source.adapter_name
    if wanted is None and len(slots) > 1:
        raise FormatError(
            f"{source.weights}: holds {len(slots)} adapters ({some(slots, 8)}); choose with "
            f"load(…, adapter_name={slots[0]!r}) or --adapter-name"
        )
    if wanted is not None and wanted not in slots:
        have = f"those of {some(slots, 8)}" if slots else "no adapter's name in them"
        raise UnknownModuleError(
            f"{source.weights}: no adapter {wanted!r}; its tensors have {have}"
        )
    chosen = wanted if wanted is not None else next(iter(slots), None)
    return chosen, [n for n, slot in keys.items() if slot is not None and slot != chosen]
