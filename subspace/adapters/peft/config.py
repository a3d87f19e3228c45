"""What an ``adapter_config.json`` of PEFT says, checked field by field.

Facts from peft 0.21.2, ``tuners/lora/config.py``. A field that changes what B @ A means becomes a
note; so does a field that PEFT of that version does not know.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from subspace.adapters.peft.release import read_release
from subspace.errors import FormatError
from subspace.tensorfiles import short

if TYPE_CHECKING:
    from collections.abc import Mapping

    from subspace.adapters.peft.release import Release

# Fields that leave B @ A as it is, or that are read elsewhere in this room.
_UNDERSTOOD = frozenset({
    "task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path",
    "revision", "inference_mode", "r", "target_modules", "exclude_modules", "lora_alpha",
    "lora_dropout", "fan_in_fan_out", "bias", "use_rslora", "modules_to_save",
    "init_lora_weights", "layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern",
    "megatron_config", "megatron_core", "trainable_token_indices", "loftq_config", "use_dora",
    "qalora_group_size", "runtime_config", "lora_bias", "target_parameters",
    "ensure_weight_tying", "layer_replication", "enable_lora", "merge_weights",
})  # fmt: skip
_VARIANTS = {
    "use_qalora": "on GPTQ layers A acts on inputs pooled in groups, and d_in is "
    "the number of groups",
    "alora_invocation_tokens": "aLoRA: the update acts on tokens after the invocation alone",
    "eva_config": "EVA: A began as the data's singular vectors, not at random",
    "corda_config": "CorDA: the base weights may have been changed before training",
    "lora_ga_config": "LoRA-GA: the base weights may have been changed before training",
    "kasa_config": "KaSA: the learned diagonal is folded into B; the base weights were truncated "
    "before training",
    "velora_config": "VeLoRA: gradients were compressed in training; B @ A is as usual",
    "monteclora_config": "MonteCLoRA: the learned distribution around A is not read",
    "use_bdlora": "BD-LoRA: a factor may be block-diagonal and stored compressed",
    "arrow_config": "Arrow: this adapter routes between others",
}
_BASE_CHANGED = (
    "the base weights were changed before training, so W + B @ A holds for those (PEFT's "
    "save_pretrained(…, path_initial_model_for_weight_conversion=START) writes the update of the "
    "base as it was)"
)
_CHANGES = {"pissa": "PiSSA", "olora": "OLoRA", "corda": "CorDA", "lora_ga": "LoRA-GA"}
_INITS = {
    **{start: f"{name}: {_BASE_CHANGED}" for start, name in _CHANGES.items()},
    "loftq": "LoftQ: B @ A began as the error of the quantised base weights",
    "eva": "EVA: A began as the data's singular vectors, not at random",
    "mica": "MiCA: B is frozen at the base weights' minor singular vectors",
    "orthogonal": "orthogonal start: B was not zero before training",
}


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """The fields that the loader needs, of the types that it needs."""

    where: str  # the file, for messages
    r: int | None
    alpha: float
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    rslora: bool
    dora: bool
    fan_in_fan_out: bool
    bias: str
    modules_to_save: tuple[str, ...]
    ties_saved: bool  # a saved embedding's tied head is saved too
    target_parameters: tuple[str, ...]
    block_diagonal: tuple[str, ...]  # BD-LoRA's patterns
    base_model: str | None
    base_changed: str | None  # by which start, before training
    release: Release | None  # of PEFT, as far as the fields tell
    notes: tuple[str, ...]


def read_config(
    config: Mapping[str, Any],
    where: str,
    *,
    alpha: str | None = "lora_alpha",
    also: frozenset[str] = frozenset(),
) -> LoraConfig:
    """Check the fields of a LORA config, or of another method's that has most of them.

    Parameters
    ----------
    config, where
        The file's contents, and its name.
    alpha
        The field that holds alpha; None for a method without.
    also
        Fields that the method has beside LoRA's, and that change nothing or are read elsewhere.

    Raises
    ------
    FormatError
        A field has a value of the wrong kind; file, field and value are named.
    """
    if "peft_type" not in config and not {"r", "lora_alpha"} <= config.keys():
        raise FormatError(f"{where}: has no peft_type; it is not a config that PEFT wrote")
    if alpha is not None and config.get(alpha) is None:
        raise FormatError(f"{where}: has no {alpha}, so the scale is unknown; add it")
    ranks = _table(config, "rank_pattern", where)
    alphas = _table(config, "alpha_pattern", where)
    bd = config.get("use_bdlora")
    bd = bd if isinstance(bd, dict) else {}
    base = config.get("base_model_name_or_path")
    return LoraConfig(
        where=where,
        r=None if config.get("r") is None else read_rank(config["r"], "r", where),
        alpha=1.0 if alpha is None else _number(config[alpha], alpha, where),
        rank_pattern={k: read_rank(v, f"rank_pattern[{k!r}]", where) for k, v in ranks.items()},
        alpha_pattern={k: _number(v, f"alpha_pattern[{k!r}]", where) for k, v in alphas.items()},
        rslora=_flag(config, "use_rslora", where),
        dora=_flag(config, "use_dora", where),
        fan_in_fan_out=_flag(config, "fan_in_fan_out", where),
        bias=str(config.get("bias") or "none"),
        modules_to_save=_names(config, "modules_to_save", where),
        ties_saved=_flag(config, "ensure_weight_tying", where),
        target_parameters=_names(config, "target_parameters", where),
        block_diagonal=_names(bd, "target_modules_bd_a", where)
        + _names(bd, "target_modules_bd_b", where),
        base_model=base if isinstance(base, str) and base else None,
        base_changed=_base_changed(config),
        release=read_release(config),
        notes=_notes(config, _UNDERSTOOD | also)
        + (() if "peft_type" in config else ("the config has no peft_type: taken for LORA",)),
    )


def _base_changed(config: Mapping[str, Any]) -> str | None:
    init = str(config.get("init_lora_weights")).lower()
    return next((name for start, name in _CHANGES.items() if init.startswith(start)), None)


def _notes(config: Mapping[str, Any], understood: frozenset[str]) -> tuple[str, ...]:
    notes = []
    init = config.get("init_lora_weights", True)
    if isinstance(init, str):
        texts = [text for name, text in _INITS.items() if init.lower().startswith(name)]
        if texts:
            notes.append(f"init_lora_weights = {short(init)}: {texts[0]}")
        elif init.lower() != "gaussian":
            notes.append(f"init_lora_weights = {short(init)} is not known here")
    elif init is False:
        notes.append("init_lora_weights = False: B was not zero before training")
    for name, value in config.items():
        if name in _VARIANTS and value not in (None, False, [], {}):
            notes.append(f"{name}: {_VARIANTS[name]}")
        elif name not in understood and name not in _VARIANTS and value:
            notes.append(f"config field {name!r} is not known here; it may change what B @ A means")
    return tuple(notes)


def _number(value: object, name: str, where: str) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
    raise FormatError(f"{where}: {name} = {short(value)} is not a number")


def read_rank(value: object, name: str, where: str) -> int:
    """Check that a field's value is a rank.

    Raises
    ------
    FormatError
        It is no whole number from 1.
    """
    if type(value) is int and 0 < value < 2**31:
        return value
    raise FormatError(f"{where}: {name} = {short(value)} is not a rank (a whole number from 1)")


def _flag(config: Mapping[str, Any], name: str, where: str) -> bool:
    value = config.get(name)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise FormatError(f"{where}: {name} = {short(value)} is neither true nor false")


def _table(config: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    value = config.get(name)
    if value is None or isinstance(value, dict):
        return value or {}
    raise FormatError(f"{where}: {name} = {short(value)} is not a mapping from pattern to number")


def _names(config: Mapping[str, Any], name: str, where: str) -> tuple[str, ...]:
    value = config.get(name)
    if value is None:
        return ()
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list) and all(isinstance(v, str) for v in value):
        return tuple(value)
    raise FormatError(f"{where}: {name} = {short(value)} is not a list of names")
