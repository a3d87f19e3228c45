"""kohya's sd-scripts and LyCORIS: LoRA, LoCon, LoHa and LoKr under one naming.

Layout as kohya-ss/sd-scripts (``networks/lora.py``, ``lora_flux.py``, ``loha.py``, ``lokr.py``) and
lycoris-lora 4.1.3 (``modules/``) write it. ``<name>`` is ``lora_unet_``, ``lora_te_``,
``lora_te1_``, … or ``lycoris_`` and the module's path with ``_`` for ``.``, which cannot be taken
back without the base model, so it stays as it is; Flux's and SD3's fused blocks stay whole.

- ``<name>.lora_down.weight`` (r, in, kh, kw) and ``.lora_up.weight`` (d_out, r, 1, 1), of a linear
  layer without the kernel: B is the one, A the other as a matrix;
- with ``.lora_mid.weight`` (r, r, kh, kw), a Tucker core, ``.lora_down.weight`` is (r, in, 1, 1);
- ``.hada_…`` and ``.lokr_…``: see `hadamard` and `kronecker`.

The scale is ``.alpha`` / r. Both writers take r for an alpha that is 0 or missing, and save alpha
so that alpha / r holds with rsLoRA too. Where a module has a ``.scale`` of its own, A1111's web UI
takes that instead (``extensions-builtin/Lora/network.py``, ``calc_scale``).
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, NamedTuple

from subspace.adapters.build import UpdateSpec, build_adapter
from subspace.adapters.factors import hadamard, kronecker
from subspace.adapters.factors.kernels import KINDS, read_pair
from subspace.adapters.factors.products import GAUGE, Extent, multiply_core, require_small
from subspace.adapters.formats.diffusers import COMFY
from subspace.adapters.method import Method
from subspace.adapters.set_aside import SetAsideReason
from subspace.adapters.source import (
    group_by_module,
    read_factor_shape,
    read_number,
    require_factors,
    some,
)
from subspace.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import torch

    from subspace.adapters.adapter import Adapter
    from subspace.adapters.build import Factors
    from subspace.adapters.source import AdapterSource

NAME = "kohya / LyCORIS"
EXPECTS = "NAME.lora_down.weight (r, d_in), NAME.lora_up.weight (d_out, r) and NAME.alpha"
TENSOR_SUFFIXES = ("lora_down.", "lora_up.", ".lora_mid.", ".hada_w", ".lokr_w")
READS = (
    "LoRA and LoCon of linear layers and convolutions, with a Tucker core; LoHa and LoKr as exact "
    "factors; A1111's `.scale`; DoRA by its BA part; alpha 0 or missing as its writers take it; "
    "norms, biases and full updates set aside"
)
REFERENCE = "files of `lycoris`, its layers' forward; sd-scripts' by the documented rule"
TESTS = ("tests/test_kohya_adapters.py",)

_LORA = ("lora_down.weight", "lora_up.weight", "lora_mid.weight")
_METHODS = {Method.LORA: _LORA, Method.LOHA: hadamard.SLOTS, Method.LOKR: kronecker.SLOTS}
_FACTORS = {slot: method for method, slots in _METHODS.items() for slot in slots}
_ASIDE = {
    "dora_scale": SetAsideReason.MAGNITUDE,
    "diff": SetAsideReason.FULL_UPDATE,
    "diff_b": SetAsideReason.BIAS_UPDATE,
    "w_norm": SetAsideReason.NORM_WEIGHT_UPDATE,
    "b_norm": SetAsideReason.NORM_BIAS_UPDATE,
    "oft_blocks": SetAsideReason.ROTATION,
    "oft_diag": SetAsideReason.ROTATION,
    "rescale": SetAsideReason.ROTATION,
    "a1.weight": SetAsideReason.GLORA,
    "a2.weight": SetAsideReason.GLORA,
    "b1.weight": SetAsideReason.GLORA,
    "b2.weight": SetAsideReason.GLORA,
    "bm.weight": SetAsideReason.GLORA,
    "on_input": SetAsideReason.IA3,
    "q_layer.weight": SetAsideReason.TLORA,
    "p_layer.weight": SetAsideReason.TLORA,
    "lambda_layer": SetAsideReason.TLORA,
}
_SLOTS = (*_FACTORS, *_ASIDE, "alpha", "scale")
# Any of these alone is an adapter of this naming, if not one that is read.
_SIGNS = (*_FACTORS, "oft_blocks", "oft_diag", "a1.weight", "on_input", "lambda_layer", "diff")
_EMBEDDINGS = "bundle_emb."


class _Module(NamedTuple):
    """What the headers tell of one module, and how its factors are made."""

    extent: Extent
    factors: Factors
    kernel: tuple[int, ...] = ()


def matches(source: AdapterSource) -> str | None:
    """Say why these are of this naming: the tensors' names."""
    if source.config is not None and "peft_type" in source.config:
        return None
    names = (name for name in source.tensors if not name.startswith("base_model."))
    example = next((name for name in names if (p := _parse(name)) and p[1] in _SIGNS), None)
    return None if example is None else f"tensor {example!r} is named as sd-scripts and LyCORIS do"


def read(source: AdapterSource) -> Adapter:
    """Make an `Adapter` of a file of sd-scripts or LyCORIS, from headers and alphas alone.

    Raises
    ------
    FormatError
        A factor without its partner, shapes that do not multiply, an alpha that is no number, or
        a method that is no low-rank update.
    """
    planned: list[UpdateSpec] = []
    methods: set[Method] = set()
    notes: dict[str, list[str]] = defaultdict(list)
    aside = {
        name: SetAsideReason.LEARNED_WORD for name in source.tensors if name.startswith(_EMBEDDINGS)
    }
    copies: list[str] = []
    modules = group_by_module(source, _parse, copies)
    aside |= dict.fromkeys(copies, SetAsideReason.COPY)
    for module, slots in modules.items():
        factors = {slot: name for slot, name in slots.items() if slot in _FACTORS}
        kinds = list(dict.fromkeys(_FACTORS[slot] for slot in factors))
        aside |= {name: _ASIDE[slot] for slot, name in slots.items() if slot in _ASIDE}
        if not kinds:
            if "alpha" in slots and len(slots) > 1:
                aside[slots["alpha"]] = next(_ASIDE[s] for s in slots if s in _ASIDE)
            continue
        if len(kinds) > 1:
            both = " and of ".join(sorted(map(str, kinds)))
            raise FormatError(
                f"{source.weights}: module {module!r} has factors of {both}: "
                f"{some(factors.values(), 4)}"
            )
        (method,) = kinds
        methods.add(method)
        spec = _MODULES[method](source, module, factors)
        planned.append(
            UpdateSpec(
                module=module,
                shape=spec.extent.shape,
                rank=spec.extent.rank,
                scale=_scale(source, module, slots, spec.extent.dim, notes),
                tensors=spec.extent.tensors,
                factors=spec.factors,
                kind=KINDS[len(spec.kernel)],
                numbers=tuple(slots[slot] for slot in ("alpha", "scale") if slot in slots),
                multiplied=spec.extent.multiplied,
                flat=method is not Method.LORA and not spec.kernel,
                kernel=spec.kernel,
                magnitude=slots.get("dora_scale", ""),
            )
        )
    if not planned and aside:
        why = next(iter(aside.values())).value
        raise FormatError(
            f"{source.weights}: nothing in it is a low-rank update that is read ({why}); a merge "
            "of it is two checkpoints with its base: subspace diff BASE MERGED"
        )
    dora = any(update.magnitude for update in planned)
    return build_adapter(
        source,
        planned,
        format=NAME,
        method=_method(methods, dora=dora),
        set_aside=aside,
        notes=_notes(source, notes, methods, [update.module for update in planned]),
        prefix=COMFY if any(name.startswith(COMFY) for name in source.tensors) else "",
        base_model=_base_model(source),
        metadata=_metadata(source),
    )


def _parse(name: str) -> tuple[str, str] | None:
    """Take a tensor's name apart.

    >>> _parse("lora_unet_conv_in.lora_down.weight")
    ('lora_unet_conv_in', 'lora_down.weight')
    >>> _parse("diffusion_model.blocks.0.q.alpha")
    ('blocks.0.q', 'alpha')
    """
    slot = next((slot for slot in _SLOTS if name.endswith(f".{slot}")), None)
    if slot is None or name.startswith(_EMBEDDINGS):
        return None
    module = name.removesuffix(f".{slot}").removeprefix(COMFY)
    return (module, slot) if module else None


def _lora(source: AdapterSource, module: str, slots: Mapping[str, str]) -> _Module:
    require_factors(source, module, slots, *_LORA[:2])
    down, up = slots[_LORA[0]], slots[_LORA[1]]
    if _LORA[2] not in slots:
        shape, rank, tensors, factors, kernel = read_pair(source, down, up)
        return _Module(
            Extent(shape=shape, rank=rank, dim=rank, tensors=tensors, multiplied=1), factors, kernel
        )
    mid = slots[_LORA[2]]
    (dim, d_in, *point), (d_out, rank, *ones) = (
        read_factor_shape(source, name, (2, 3, 4, 5)) for name in (down, up)
    )
    core = read_factor_shape(source, mid, (3, 4, 5))
    if core[:2] != (rank, dim) or any(n != 1 for n in (*point, *ones)):
        raise FormatError(
            f"{source.text(mid)} is not the core of {source.text(down)} and {source.text(up)}"
        )
    d_in *= math.prod(core[2:])
    extent = require_small(
        source, module, Extent(shape=(d_out, d_in), rank=rank, dim=dim, tensors=(down, up, mid))
    )
    return _Module(extent, _tucker(down, up, mid), core[2:])


def _tucker(down: str, up: str, mid: str) -> Factors:
    def factors(tensors: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        core, inputs = tensors[mid].double(), tensors[down].flatten(1).double()
        return tensors[up].flatten(1), multiply_core(core, inputs)  # (d_out, r), (r, in * kh * kw)

    return factors


def _loha(source: AdapterSource, module: str, slots: Mapping[str, str]) -> _Module:
    extent = hadamard.read_extent(source, module, slots)
    return _Module(extent, hadamard.build_factors(slots), extent.kernel)


def _lokr(source: AdapterSource, module: str, slots: Mapping[str, str]) -> _Module:
    extent = kronecker.read_extent(source, module, slots)
    return _Module(
        extent, kronecker.build_factors(slots), _kernel(source, slots, "lokr_t2", "lokr_w2")
    )


def _kernel(source: AdapterSource, slots: Mapping[str, str], *cores: str) -> tuple[int, ...]:
    # Without these it lies flat among the inputs, and nothing tells it from a linear layer's.
    core = next((slots[slot] for slot in cores if slot in slots), None)
    return source.tensors.headers[core].shape[2:] if core else ()


_MODULES = {Method.LORA: _lora, Method.LOHA: _loha, Method.LOKR: _lokr}


def _scale(
    source: AdapterSource,
    module: str,
    slots: Mapping[str, str],
    dim: int | None,
    notes: dict[str, list[str]],
) -> float:
    if "scale" in slots:
        notes[
            "a .scale of its own is stored and taken in place of alpha / r, as A1111's web UI "
            "does; other programs leave it out"
        ].append(module)
        return read_number(source, slots["scale"])
    if dim is None:  # LoKr of two full matrices: both writers leave alpha out
        return 1.0
    if "alpha" not in slots:
        if source.alpha is not None:
            return source.alpha / dim
        notes["no alpha is stored; r is taken, as sd-scripts does, so the scale is 1"].append(
            module
        )
        return 1.0
    alpha = read_number(source, slots["alpha"])
    if alpha == 0:
        notes[
            "alpha is 0; r is taken, as sd-scripts and LyCORIS do, so the scale is 1 (other "
            "programs take 0, and no update)"
        ].append(module)
        return 1.0
    return alpha / dim


def _method(methods: Iterable[Method], *, dora: bool) -> Method:
    method = reduce(or_, methods, Method(0)) or Method.LORA
    return method | Method.DORA if dora else method


def _notes(
    source: AdapterSource,
    modules_by_method: Mapping[str, list[str]],
    methods: set[Method],
    modules: Iterable[str],
) -> list[str]:
    notes = [f"{some(names)}: {note}" for note, names in modules_by_method.items()]
    if {Method.LOHA, Method.LOKR} & methods:
        notes.append(GAUGE)
    fused = [m for m in modules if m.endswith("qkv") or "linear1" in m]
    if fused and _argument(source, "split_qkv") == "True":
        notes.append(
            f"{some(fused)}: trained in parts (split_qkv), whose alpha is stored for the whole: "
            "the scale is what sd-scripts applies to this file, and training's was as many times "
            "larger as there are parts"
        )
    return notes


def _argument(source: AdapterSource, name: str) -> str | None:
    try:
        given = json.loads(source.tensors.metadata.get("ss_network_args", "{}"))
    except (ValueError, RecursionError):
        return None
    return str(given.get(name)) if isinstance(given, dict) else None


def _base_model(source: AdapterSource) -> str | None:
    fields = source.tensors.metadata
    bases = (fields.get(key) for key in ("ss_sd_model_name", "ss_base_model_version"))
    base = next((base for base in bases if base and base != "None"), None)
    return base[:200] if base else None


def _metadata(source: AdapterSource) -> dict[str, str]:
    fields = source.tensors.metadata
    kept = ("ss_network_module", "ss_network_dim", "ss_network_alpha", "ss_base_model_version")
    return {key: fields[key][:200] for key in kept if key in fields}
