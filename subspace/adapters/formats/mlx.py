"""MLX-LM's LoRA: factors stored transposed, and a scale that is not alpha / r.

Layout as mlx-lm 0.32.2 writes it, ``mlx_lm/tuner/lora.py``: ``<path>.lora_a`` (d_in, r) and
``<path>.lora_b`` (r, d_out), update ``scale * lora_b.T @ lora_a.T``, where ``scale`` is
``lora_parameters.scale`` of ``adapter_config.json``, 20.0 if it is not named. Before 0.14.2 it was
``scale * alpha / r``; from there to 0.23 the config still has an alpha that nothing reads.

An embedding stores (vocabulary, r) and (r, dims). A mixture of experts stores (experts, r, d_in)
and (experts, d_out, r), not transposed: each expert is a module here (up to 0.28.0 A was
(experts * r, d_in)). DoRA has a magnitude ``.m`` beside.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from subspace.adapters.build import UpdateSpec, build_adapter
from subspace.adapters.layout import MOST_EXPERTS, Layout
from subspace.adapters.method import Method
from subspace.adapters.source import group_by_module, read_factor_shape, require_factors
from subspace.errors import FormatError
from subspace.tensorfiles import short

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import torch

    from subspace.adapters.adapter import Adapter
    from subspace.adapters.build import Factors
from subspace.adapters.source import AdapterSource

NAME = "MLX-LM"
EXPECTS = "NAME.lora_a (d_in, r) and NAME.lora_b (r, d_out), without .weight"
TENSOR_SUFFIXES = (".lora_a", ".lora_b")
READS = "LoRA of linear layers, embeddings and experts with its absolute scale; DoRA by its BA part"
REFERENCE = "files of `mlx_lm`'s layers, their `fuse`"
TESTS = ("tests/test_mlx_adapters.py",)
_SLOTS = {"lora_a": "lora_a", "lora_b": "lora_b", "m": "m"}
_DEFAULT_SCALE = 20.0


def matches(source: AdapterSource) -> str | None:
    """Say why these are MLX-LM's: the config's fields, else the tensors' names."""
    config = source.config
    if config is not None and "peft_type" in config:
        return None
    if config is not None and "lora_parameters" in config:
        return f"{source.where} has lora_parameters"
    example = next((name for name in source.tensors if name.endswith(TENSOR_SUFFIXES)), None)
    return None if example is None else f"tensor {example!r} ends in .lora_a or .lora_b"


def read(source: AdapterSource) -> Adapter:
    """Make an `Adapter` of an MLX-LM folder or file, from headers alone.

    Raises
    ------
    FormatError
        A full fine-tune, a factor without its partner, shapes that do not fit.
    """
    config = source.config or {}
    kind = config.get("fine_tune_type", "lora")
    if kind not in ("lora", "dora"):
        raise FormatError(
            f"{source.where}: fine_tune_type {short(kind)} is no low-rank update; what is read: "
            "lora and dora"
        )
    scale, alpha, notes = _scale(source, config)
    modules = group_by_module(source, _parse)
    planned: list[UpdateSpec] = []
    for module, slots in modules.items():
        if "m" in slots and len(slots) == 1:
            continue  # not understood
        require_factors(source, module, slots, "lora_a", "lora_b")
        planned.extend(_specify(source, module, slots, scale, alpha))
        if "m" in slots:
            if planned[-1].kind == "expert":
                raise FormatError(
                    f"{source.text(slots['m'])}: a magnitude beside factors of experts, which "
                    "MLX-LM does not train"
                )
            planned[-1] = replace(planned[-1], magnitude=slots["m"])
    dora = any(update.magnitude for update in planned)
    experts = Counter(p.module.rpartition(".")[0] for p in planned if p.kind == "expert")
    return build_adapter(
        source,
        planned,
        format=NAME,
        method=Method.of_lora(dora=dora or kind == "dora"),
        notes=notes,
        base_model=config["model"] if isinstance(config.get("model"), str) else None,
        layout=Layout(
            experts=MappingProxyType(dict(experts)),
            asked_alpha=None if _stored_scale(config) else source.alpha,
        ),
    )


def _stored_scale(config: Mapping[str, Any]) -> bool:
    parameters = config.get("lora_parameters")
    return isinstance(parameters, dict) and parameters.get("scale") is not None


def _parse(name: str) -> tuple[str, str] | None:
    module, _, slot = name.rpartition(".")
    return (module, slot) if module and slot in _SLOTS else None


def _scale(
    source: AdapterSource, config: Mapping[str, Any]
) -> tuple[float, float | None, list[str]]:
    """Return the scale, the alpha that it is multiplied by over r if it is, and notes."""
    lora_parameters = config.get("lora_parameters")
    parameters = lora_parameters if isinstance(lora_parameters, dict) else {}
    for name in ("scale", "alpha"):
        value = parameters.get(name)
        if value is not None and (type(value) not in (int, float) or not math.isfinite(value)):
            raise FormatError(
                f"{source.where}: lora_parameters.{name} = {short(value)} is not a number"
            )
    scale, alpha = parameters.get("scale"), parameters.get("alpha")
    if scale is None and source.alpha is not None:
        note = f"no scale is stored: it is alpha / r with the alpha {source.alpha:g} that was given"
        return 1.0, source.alpha, [note]
    if scale is None:
        return (
            _DEFAULT_SCALE,
            None,
            [
                f"no scale is stored; {_DEFAULT_SCALE:g} is MLX-LM's own (10 in some earlier "
                "releases), and norms depend on it; --alpha (alpha=) gives another, scale times r"
            ],
        )
    # The config tells the release: fine_tune_type came with 0.19, use_dora with 0.13.
    if alpha is None or "fine_tune_type" in config:
        return float(scale), None, []
    if "use_dora" not in config:
        return (
            float(scale),
            float(alpha),
            [f"by its config of mlx-lm before 0.13, which trained with {scale:g} * {alpha:g} / r"],
        )
    return (
        float(scale),
        None,
        [
            f"by its config of mlx-lm 0.13 to 0.18; up to 0.14.1 it trained with {scale:g} * "
            f"{alpha:g} / r, and from there on with {scale:g}, which is taken here: norms may be "
            "off by that factor, directions are not"
        ],
    )


def _specify(
    source: AdapterSource, module: str, slots: Mapping[str, str], scale: float, alpha: float | None
) -> Iterator[UpdateSpec]:
    a, b = slots["lora_a"], slots["lora_b"]
    shape_a, shape_b = read_factor_shape(source, a, (2, 3)), read_factor_shape(source, b, (2, 3))
    both = f"{source.text(a)} and {b!r} {shape_b}"
    if len(shape_b) == 3 and len(shape_a) == 2 and shape_a[0] % shape_b[0] == 0:
        shape_a = (shape_b[0], shape_a[0] // shape_b[0], shape_a[1])
    if len(shape_a) != len(shape_b):
        raise FormatError(f"{both} are not the two factors of one layer")
    if alpha is not None:
        scale *= alpha / shape_a[1]
    if len(shape_a) == 2:
        (d_in, rank), (width, d_out) = shape_a, shape_b
        if rank != width:
            raise FormatError(f"{both} have different ranks, {rank} and {width}")
        yield UpdateSpec(
            module=module,
            shape=(d_out, d_in),
            rank=rank,
            scale=scale,
            tensors=(a, b),
            factors=lambda tensors: (tensors[b].T, tensors[a].T),
        )
        return
    (experts, rank, d_in), (others, d_out, width) = shape_a, shape_b
    if rank != width or experts != others:
        raise FormatError(f"{both} are not factors of the same experts and rank")
    if experts > MOST_EXPERTS:
        raise FormatError(f"{both}: {experts} experts, more than {MOST_EXPERTS}, are no layer's")
    for expert in range(experts):
        yield UpdateSpec(
            module=f"{module}.{expert}",
            shape=(d_out, d_in),
            rank=rank,
            scale=scale,
            tensors=(a, b),
            factors=_of_expert(a, b, expert),
            kind="expert",
        )


def _of_expert(a: str, b: str, expert: int) -> Factors:
    def factors(tensors: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        B = tensors[b][expert]  # (d_out, r)
        return B, tensors[a].reshape(-1, B.shape[1], tensors[a].shape[-1])[expert]

    return factors
