"""PEFT's LoRA of parameters (``target_parameters``): a stack of experts, one update an expert.

Layout as peft 0.21.2 writes it, ``ParamWrapper`` in ``tuners/lora/layer.py``: of a parameter with E
experts, lora_A (E * r, d_in) holds expert after expert, lora_B (d_out, r * E) rank after rank:
``B.reshape(d_out, r, E)``. A module with several such parameters is wrapped once for each, so the
names differ by ``base_layer`` alone, and whose factors these are is told by their shapes or not at
all: the order is that of the model's code.

Which side of the map A is on depends on how the model stores the stack, and on PEFT: 0.19.0 took
the one for the other, earlier ones did not ask. Two parameters of one expert tell it by their
shapes.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from subspace.adapters.build import UpdateSpec
from subspace.adapters.layout import MOST_EXPERTS, Stack
from subspace.adapters.peft.patterns import apply_patterns
from subspace.adapters.set_aside import SetAside, SetAsideReason
from subspace.adapters.source import read_factor_shape, require_factors, some
from subspace.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import torch

    from subspace.adapters.build import Factors
    from subspace.adapters.peft.config import LoraConfig
    from subspace.adapters.peft.keys import Key
    from subspace.adapters.source import AdapterSource

_TWO = {"gate_up_proj", "down_proj"}


class _Pair(NamedTuple):
    """The factors of all experts of one parameter."""

    a: str
    b: str
    rows: int  # E * r
    d_a: int  # the other side of A
    d_b: int  # and of B


class _Parameter(NamedTuple):
    """Whose factors these are, and whether A is on the map's output side."""

    name: str
    pair: _Pair
    flipped: bool


def specify_parameters(
    source: AdapterSource, keys: Iterable[Key], lora: LoraConfig
) -> tuple[list[UpdateSpec], dict[str, Stack], dict[str, SetAside], list[str]]:
    """Plan the updates of parameters; those that cannot be told apart are set aside.

    Returns
    -------
    Updates named ``<module>.<parameter>.<expert>``, ``<module>.<parameter>`` to where its updates
    are stored, the reason for each tensor that is set aside, and notes.

    Raises
    ------
    FormatError
        A factor without its partner, shapes that do not fit.
    """
    stacks = _group_stacks(source, keys, lora)
    targets = {
        f"{module}.{name}": f"{target}.{name}"
        for module, (target, names, _) in stacks.items()
        for name in names
    }
    alphas, ranks, notes = apply_patterns(targets, lora)
    planned: list[UpdateSpec] = []
    stored: dict[str, Stack] = {}
    aside: dict[str, SetAside] = {}
    for module, (target, names, slots) in stacks.items():
        pairs = [_pair(source, module, by_depth) for _, by_depth in sorted(slots.items())]
        rank = {name: ranks[f"{module}.{name}"][0] for name in names}
        parameters = _find_parameters(pairs, names, rank, source)
        if isinstance(parameters, str):
            detail = f"({', '.join(names)}): {parameters}"
            for name in (t for pair in pairs for t in (pair.a, pair.b)):
                header = source.tensors.headers[name]
                aside[name] = SetAside.of(name, header, SetAsideReason.PARAMETERS, detail=detail)
            continue
        for parameter in parameters:
            r, alpha = rank[parameter.name], alphas[f"{module}.{parameter.name}"]
            scale = alpha / math.sqrt(r) if lora.rslora else alpha / r
            experts = list(_count_experts(source, module, parameter, r, scale))
            planned += experts
            path = f"{target}.{parameter.name}"
            stored[_spell_path(module, parameter)] = Stack(parameter.pair.a, len(experts), path)
    if planned and _is_unsloths(source.config or {}):
        notes.append(
            "Unsloth wrote experts' factors expert after expert before September 2026, and PEFT's "
            "B is rank after rank: which of the two this file has is not stored, and PEFT's is "
            "taken; in the other order every expert's update here is wrong"
        )
    alone = [m for m, (_, names, _) in stacks.items() if len(names) == 1]
    if planned and alone:
        notes.append(
            f"{some(alone)}: that PEFT's A is on the input side of these parameters is taken from "
            "its version; of a model that stores its experts otherwise, in and out are swapped"
        )
    return planned, stored, aside, notes


def specify_stacked(
    source: AdapterSource, keys: Iterable[Key], lora: LoraConfig
) -> tuple[list[UpdateSpec], dict[str, SetAside]]:
    """Plan experts whose factors lie in stacks of three dimensions, as Tinker's archives have them.

    lora_A is (E, r, d_in) and lora_B (E, d_out, r), either of them (1, …) where all experts share
    it. What is empty, of experts that a layer lacks, is set aside.

    Raises
    ------
    FormatError
        A factor without its partner, or stacks that do not fit together.
    """
    headers = source.tensors.headers
    stacked: dict[str, dict[str, str]] = {}
    targets: dict[str, str] = {}
    empty: dict[str, SetAside] = {}
    for key in keys:
        if key.slot not in {"A", "B"} or "experts" not in key.module.split("."):
            continue
        if headers[key.name].shape == (0,):
            empty[key.name] = SetAside.of(key.name, headers[key.name], SetAsideReason.EMPTY)
        elif len(headers[key.name].shape) == 3:
            stacked.setdefault(key.module, {})[key.slot] = key.name
            targets[key.module] = key.target
    alphas, _, _ = apply_patterns(targets, lora)
    planned = []
    for module, slots in stacked.items():
        require_factors(source, module, slots, "A", "B")
        a, b = slots["A"], slots["B"]
        (n_a, r, d_in), (n_b, d_out, width) = (
            read_factor_shape(source, name, (3,)) for name in (a, b)
        )
        experts = max(n_a, n_b)
        if r != width or {n_a, n_b} - {1, experts} or experts > MOST_EXPERTS:
            raise FormatError(
                f"{source.text(a)} and {source.text(b)} are not factors of the same experts"
            )
        scale = alphas[module] / (math.sqrt(r) if lora.rslora else r)
        planned += [
            UpdateSpec(
                module=f"{module}.{expert}",
                shape=(d_out, d_in),
                rank=r,
                scale=scale,
                tensors=(a, b),
                factors=_take(a, min(expert, n_a - 1), b, min(expert, n_b - 1)),
                kind="expert",
            )
            for expert in range(experts)
        ]
    return planned, empty


def _take(a: str, of_a: int, b: str, of_b: int) -> Factors:
    return lambda tensors: (tensors[b][of_b], tensors[a][of_a])


def _is_unsloths(config: Mapping[str, Any]) -> bool:
    mapping = config.get("auto_mapping")
    fixed = isinstance(mapping, dict) and "unsloth_fixed" in mapping
    return fixed or "unsloth" in str(config.get("base_model_name_or_path")).lower()


def _spell_path(module: str, parameter: _Parameter) -> str:
    return module if parameter.name == "weight" else f"{module}.{parameter.name}"


def _group_stacks(
    source: AdapterSource, keys: Iterable[Key], lora: LoraConfig
) -> dict[str, tuple[str, list[str], dict[int, dict[str, str]]]]:
    """Give each wrapped module PEFT's own path, its parameters, and depth -> slot -> tensor."""
    stacks: dict[str, tuple[str, list[str], dict[int, dict[str, str]]]] = {}
    for key in keys if lora.target_parameters else ():
        names = _parameters(source, key, lora) if key.slot in {"A", "B"} else []
        if names:
            _, _, slots = stacks.setdefault(key.module, (key.target, names, {}))
            depth = key.name.split(".").count("base_layer")
            experts = slots.setdefault(depth, {})
            if key.slot in experts:
                raise FormatError(
                    f"{source.weights}: {experts[key.slot]!r} and {key.name!r} are the same factor "
                    f"of module {key.module!r}"
                )
            experts[key.slot] = key.name
    return stacks


def _parameters(source: AdapterSource, key: Key, lora: LoraConfig) -> list[str]:
    """Name the parameters that the config may mean by a pair of factors of this module."""
    shape = source.tensors.headers[key.name].shape
    rank = shape[:1] if key.slot == "A" else shape[1:2]
    names = set()
    for parameter in lora.target_parameters:
        path, _, name = parameter.rpartition(".")
        # One without a path may be of any module that is no ordinary LoRA of the config's ranks.
        stacked = set(rank).isdisjoint({lora.r, *lora.rank_pattern.values()})
        if f".{key.module}".endswith(f".{path}") if path else stacked:
            names.add(name)
    return sorted(names)


def _pair(source: AdapterSource, module: str, slots: Mapping[str, str]) -> _Pair:
    require_factors(source, module, slots, "A", "B")
    a, b = slots["A"], slots["B"]
    (rows, d_a), (d_b, width) = read_factor_shape(source, a), read_factor_shape(source, b)
    if rows != width:
        raise FormatError(
            f"{source.text(a)} and {source.text(b)} have different ranks, {rows} and {width}"
        )
    return _Pair(a, b, rows, d_a, d_b)


def _find_parameters(
    pairs: list[_Pair], names: list[str], ranks: Mapping[str, int | None], source: AdapterSource
) -> list[_Parameter] | str:
    """Tell whose a pair is and on which side A is, or say why that cannot be told."""
    if None in ranks.values():
        return "the config has no r, which tells the number of experts"
    if len(pairs) == len(names) == 1:
        (pair,), (name,) = pairs, names
        flipped = pair.rows != ranks[name] and _exchange_slots(source.config or {})
        if flipped is None:
            return "which side of the map A is on is not stored by PEFT before 0.19.1"
        return [_Parameter(name, pair, flipped)]
    if len(pairs) == 2 and set(names) == _TWO:
        parameters = []
        for gate, down in (pairs, pairs[::-1]):
            if gate.d_a == down.d_b and gate.d_b == 2 * down.d_a:
                parameters.append((gate, down, False))
            if gate.d_b == down.d_a and gate.d_a == 2 * down.d_b:
                parameters.append((gate, down, True))
        if len(parameters) == 1:
            gate, down, flipped = parameters[0]
            return [
                _Parameter("gate_up_proj", gate, flipped), _Parameter("down_proj", down, flipped)
            ]  # fmt: skip
    return "which factors are of which parameter is not stored"


def _exchange_slots(config: Mapping[str, Any]) -> bool | None:
    numbers = re.findall(r"\d+", str(config.get("peft_version")))[:3]
    version = tuple(int(number[:9]) for number in numbers)
    if version >= (0, 19, 1):
        return False
    return True if version == (0, 19, 0) else None


def _count_experts(
    source: AdapterSource, module: str, parameter: _Parameter, r: int, scale: float
) -> Iterator[UpdateSpec]:
    pair, flipped = parameter.pair, parameter.flipped
    if pair.rows % r:
        raise FormatError(
            f"{source.text(pair.a)} and {pair.b!r} hold no whole number of experts of rank {r}, "
            "the config's"
        )
    experts = pair.rows // r
    if experts > MOST_EXPERTS:
        raise FormatError(
            f"{source.text(pair.a)}: {experts} experts, more than {MOST_EXPERTS}, are no layer's"
        )
    path = _spell_path(module, parameter)
    shape = (pair.d_a, pair.d_b) if flipped else (pair.d_b, pair.d_a)
    for expert in range(experts):
        yield UpdateSpec(
            module=f"{path}.{expert}" if experts > 1 else path,
            shape=shape,
            rank=r,
            scale=scale,
            tensors=(pair.a, pair.b),
            factors=_factors(pair, expert, experts, flipped=flipped),
            kind="expert" if experts > 1 else "linear",
        )


def _factors(pair: _Pair, expert: int, experts: int, *, flipped: bool) -> Factors:
    def factors(tensors: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        A = tensors[pair.a].reshape(experts, -1, pair.d_a)[expert]  # (r, d_a)
        B = tensors[pair.b].reshape(pair.d_b, -1, experts)[:, :, expert]  # (d_b, r)
        return (A.T, B.T) if flipped else (B, A)

    return factors
