"""What PEFT's methods beside LoRA share: names of tensors, one adapter of several, the rest.

peft 0.21.2 writes ``base_model.model.<path>.<slot>``, a live state dict the adapter's name after
it; ``lora_A`` is here a parameter of its own, without ``.weight``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from subspace.adapters.find import CONFIG
from subspace.adapters.peft.keys import parse_name, set_aside, strip_wrappers
from subspace.adapters.set_aside import SetAside, SetAsideReason
from subspace.adapters.source import group_by_module
from subspace.errors import FormatError, MissingFileError, UnknownModuleError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from typing import Any

    from subspace.adapters.peft.config import LoraConfig
    from subspace.adapters.source import AdapterSource

PREFIX = "base_model.model."


class Key(NamedTuple):
    """A tensor's name taken apart."""

    module: str  # the base model's path
    target: str  # the path that PEFT matches its patterns against
    slot: str
    adapter: str | None


class Modules(NamedTuple):
    """The tensors of one adapter."""

    slots: Mapping[str, Mapping[str, str]]  # module -> slot -> tensor
    targets: Mapping[str, str]  # module -> the path that PEFT matches its patterns against
    others: Mapping[str, SetAside]  # the tensors of other adapters


def match_method(
    source: AdapterSource, methods: Collection[str], slots: Collection[str]
) -> str | None:
    """Say why files are of one of these ``peft_type``, else by names of tensors with PEFT's prefix.

    None if they are not.
    """
    if source.config is not None and "peft_type" in source.config:
        method = source.config["peft_type"]
        valid = isinstance(method, str) and method in methods
        return f"{source.where} has peft_type {method}" if valid else None
    for name in source.tensors:
        key = split_name(name, slots)
        if key is not None and name.startswith("base_model."):
            return f"tensor {name!r} is named as PEFT names {key.slot}"
    return None


def require_config(source: AdapterSource, *, why: str, or_else: str = "") -> Mapping[str, Any]:
    """Return the config, without which nothing is read.

    Raises
    ------
    MissingFileError
        There is none; `why` it is needed, and what would do in its place.
    """
    if source.config is None:
        raise MissingFileError(
            f"{source.weights.parent}: {source.weights.name} has no {CONFIG} beside it, which "
            f"holds {why}; copy it from where the weights came from"
            + (f", or {or_else}" if or_else else "")
        )
    return source.config


def split_name(name: str, slots: Collection[str]) -> Key | None:
    """Take a tensor's name apart; None if it is none of these slots.

    >>> split_name("base_model.model.h.0.q.hada_w1_a", {"hada_w1_a"})
    Key(module='h.0.q', target='h.0.q', slot='hada_w1_a', adapter=None)
    >>> split_name("base_model.model.h.0.q.hada_w1_a.student", {"hada_w1_a"}).adapter
    'student'
    """
    parts = name.removeprefix(PREFIX).removeprefix("base_model.").split(".")
    at = next((i for i in reversed(range(len(parts))) if parts[i] in slots), None)
    if at is None or len(parts) - at > 2:
        return None
    module = parts[:at]
    target = module[: module.index("base_layer")] if "base_layer" in module else module
    return Key(
        strip_wrappers(module),
        strip_wrappers(target),
        parts[at],
        parts[at + 1] if parts[at + 1 :] else None,
    )


def group_modules(source: AdapterSource, slots: Collection[str]) -> Modules:
    """Group the tensors of the adapter that was asked for by module.

    Raises
    ------
    UnknownModuleError
        There is no adapter of the name that was asked for.
    FormatError
        The file holds several adapters and none was asked for, or nothing of these slots.
    """
    keys = {name: key for name in source.tensors if (key := split_name(name, slots)) is not None}
    if not keys:
        raise FormatError(
            f"{source.weights}: none of its {len(source.tensors)} tensors is a factor "
            f"({', '.join(sorted(slots))}), which {source.where} says they are"
        )
    chosen = choose_adapter(source, (key.adapter for key in keys.values()))
    mine = {name: key for name, key in keys.items() if key.adapter in (None, chosen)}
    return Modules(
        group_by_module(source, lambda name: mine[name][::2] if name in mine else None),
        {key.module: key.target for key in mine.values()},
        {
            name: SetAside.of(
                name,
                source.tensors.headers[name],
                SetAsideReason.OTHER_ADAPTER,
                detail=f", {key.adapter!r}",
            )
            for name, key in keys.items()
            if name not in mine
        },
    )


def choose_adapter(source: AdapterSource, names: Iterable[str | None]) -> str | None:
    """Choose one adapter of those whose names the tensors' names carry; None if they carry none.

    Raises
    ------
    UnknownModuleError
        There is no adapter of the name that was asked for.
    FormatError
        The file holds several adapters and none was asked for.
    """
    named = list(dict.fromkeys(name for name in names if name is not None))
    wanted = source.adapter_name
    if wanted is not None and wanted not in named:
        have = f"those of {', '.join(map(repr, named))}" if named else "no adapter's name in them"
        raise UnknownModuleError(
            f"{source.weights}: no adapter {wanted!r}; its tensors have {have}"
        )
    if wanted is None and len(named) > 1:
        raise FormatError(
            f"{source.weights}: holds {len(named)} adapters ({', '.join(map(repr, named[:8]))}); "
            f"choose with load(…, adapter_name={named[0]!r}) or --adapter-name"
        )
    return wanted if wanted is not None else next(iter(named), None)


def set_rest_aside(
    source: AdapterSource, lora: LoraConfig, used: Collection[str]
) -> dict[str, SetAside]:
    """Say of each tensor that is not `used` why it is no factor."""
    names = (name for name in source.tensors if name not in used)
    return {name: set_aside(parse_name(name), lora, source.tensors) for name in names}
