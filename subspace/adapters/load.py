"""`load`: find an adapter's files, and ask each format whether they are its own."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from subspace.adapters.find import describe_rest, find, is_shard
from subspace.adapters.formats import (
    adapterhub,
    cloneofsimo,
    diffusers,
    gguf,
    kohya,
    loralib,
    megatron,
    mistral,
    mlx,
    mlx_vlm,
    torchtune,
    xlabs,
)
from subspace.adapters.formats.custom import read as pattern
from subspace.adapters.peft import adalora as peft_adalora
from subspace.adapters.peft import lora as peft
from subspace.adapters.peft import lycoris as peft_lycoris
from subspace.adapters.peft.refused import explain_refusal
from subspace.adapters.peft.vera import read as peft_vera
from subspace.adapters.set_aside import group_by_reason
from subspace.adapters.source import AdapterSource, Format, some
from subspace.errors import ArgumentError, FormatError
from subspace.tensorfiles import read_json, short

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

    from subspace.adapters.adapter import Adapter

__all__ = ["FORMATS", "explain", "find", "load"]

# The first that matches a file reads it: what a config or a prefix tells comes before what names of
# tensors alone do.
FORMATS: tuple[Format, ...] = (
    xlabs,
    diffusers,
    gguf,
    torchtune,
    kohya,
    cloneofsimo,
    adapterhub,
    mistral,
    peft,
    peft_lycoris,
    peft_adalora,
    peft_vera,
    mlx,
    mlx_vlm,
    loralib,
    megatron,
    pattern,
)

# Those that a user's alpha says nothing to, unless their own place for it is missing.
_OWN_SCALE: tuple[Format, ...] = (
    adapterhub,
    gguf,
    peft,
    peft_lycoris,
    peft_adalora,
    peft_vera,
    mlx,
    mlx_vlm,
)

# Of a whole state dict: what the module had before, and what its update leaves as it is.
_OF_BASE = frozenset({"weight", "bias", "base_layer.weight", "base_layer.bias"})
_MOST_UNKNOWN = 1000  # tensors that are looked at for a module of theirs

# Those whose files may hold several adapters, by names in those of the tensors.
_NAMED: tuple[Format, ...] = (peft, peft_lycoris, peft_adalora, peft_vera, megatron)


def load(
    path: str | os.PathLike[str],
    *,
    adapter_name: str | None = None,
    alpha: float | None = None,
    pattern: str | os.PathLike[str] | None = None,
    peft_release: str | None = None,
    strict: bool = False,
) -> Adapter:
    """Open a trained adapter; its tensors are read when a module is first asked for.

    Parameters
    ----------
    path
        A folder as PEFT's ``save_pretrained`` writes it (``adapter_config.json`` beside
        ``adapter_model.safetensors`` or ``adapter_model.bin``), or the weights file in one; or
        a file or folder of another writer: README lists them.
    adapter_name
        Which adapter, where a folder or file holds several: PEFT saves each but the default
        into a subfolder of its name.
    alpha
        Of a format that does not store it, such as loralib's, or of PEFT's weights without their
        config; a note says where it is not used.
    pattern
        A format of your own: ``"A=blocks.{n}.w_a, B=blocks.{n}.w_b, alpha=16"``, or the path of a
        TOML file with these fields; `subspace.adapters.formats.custom.read` lists them.
    peft_release
        The release of PEFT that trained it, such as ``"0.13"``, where the config does not tell:
        LoKr's scale and the matching of patterns have changed (`subspace.adapters.peft.release`).
    strict
        Refuse a file with tensors that are not understood, and comparisons that leave out modules.

    Returns
    -------
    Adapter
        Module path -> `LowRankUpdate`, in the model's own order.

    Raises
    ------
    MissingFileError
        No such path, or the folder lacks the weights or the config.
    ArgumentError
        `alpha` is not a finite number, `peft_release` is no release, or `pattern` makes no sense.
    FormatError
        A file is damaged or hostile, its parts do not fit together, or its format is not read.
    """
    if alpha is not None and (type(alpha) not in (int, float) or not math.isfinite(alpha)):
        raise ArgumentError(f"{path}: alpha = {short(alpha)} is not a number")
    source = _source(Path(path), adapter_name, alpha, pattern)
    if peft_release is not None:
        source = _of_release(source, peft_release)
    format = _format_of(source)
    if format is None:
        raise FormatError(_unknown(source))
    adapter = _read(source, format)
    place = find(Path(path), adapter_name)
    rest = describe_rest(place, Path(path))
    if rest:
        partial = adapter.partial or is_shard(place)
        adapter = replace(adapter, notes=(*adapter.notes, *rest), partial=partial)
    if alpha is not None and format in _OWN_SCALE and adapter.layout.asked_alpha is None:
        note = f"alpha = {alpha:g} was given and is not used: {format.NAME} stores its own scale"
        adapter = replace(adapter, notes=(*adapter.notes, note))
    if source.adapter_name is not None and format not in _NAMED:
        note = (
            f"adapter_name = {short(source.adapter_name)} was given and is not used: a file of "
            f"{format.NAME} holds one adapter"
        )
        adapter = replace(adapter, notes=(*adapter.notes, note))
    unknown = [tensor.name for tensor in adapter.set_aside if not tensor.known]
    _refuse_mixed(source, format, unknown)
    if strict and unknown:
        raise FormatError(
            f"{source.weights}: {len(unknown)} tensors are not understood: {some(unknown)}"
        )
    unsure = _find_unsure(adapter, unknown)
    if unsure:
        note = (
            f"{some(unsure)}: a tensor of the module is not understood "
            f"({some(unsure.values())}), so that its update may be another than is said here; "
            "--strict refuses such a file"
        )
        infos = {
            name: replace(info, unknown=unsure.get(name, ""))
            for name, info in adapter.updates.items()
        }
        adapter = replace(adapter, updates=MappingProxyType(infos), notes=(note, *adapter.notes))
    return replace(adapter, strict=strict)


def _read(source: AdapterSource, format: Format) -> Adapter:
    """Read the files; where a config beside fits none of the tensors, by the tensors alone.

    Raises
    ------
    FormatError
        No low-rank update is there.
    """
    adapter = format.read(source)
    if adapter.updates:
        return adapter
    alone = replace(source, config=None, where=str(source.weights))
    other = None if source.config is None else _format_of(alone)
    if other is not None and other is not format:
        note = (
            f"{Path(source.where).name} beside is {format.NAME}'s and fits none of the tensors: "
            f"they are read as {other.NAME}, without it"
        )
        try:
            adapter = other.read(alone)
        except FormatError as error:
            raise FormatError(f"{error} ({note})") from None
        adapter = replace(adapter, notes=(note, *adapter.notes))
    if not adapter.updates:
        names = group_by_reason(adapter.set_aside)
        holds = "; ".join(f"{reason}: {some(of)}" for reason, of in names.items())
        raise FormatError(
            f"{source.weights}: no low-rank update is in this file; it holds {holds or 'nothing'}"
        )
    return adapter


def _find_unsure(adapter: Adapter, unknown: Iterable[str]) -> dict[str, str]:
    """Map adapted modules to a tensor of theirs that is not understood."""
    unsure: dict[str, str] = {}
    for name in list(unknown)[:_MOST_UNKNOWN]:
        parts = name.split(".")
        for start in range(min(len(parts), 4)):  # what a writer puts in front
            for stop in range(len(parts) - 1, start, -1):
                module = ".".join(parts[start:stop])
                if module in adapter and ".".join(parts[stop:]) not in _OF_BASE:
                    unsure.setdefault(module, name)
    return unsure


def _of_release(source: AdapterSource, release: str) -> AdapterSource:
    """Take the release of PEFT from the user, in place of what the config says of it."""
    if re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,4}){1,2}", release) is None:
        raise ArgumentError(f"peft_release = {short(release)} is no release, such as 0.13")
    config = None if source.config is None else {**source.config, "peft_version": release}
    return replace(source, config=config)


def _format_of(source: AdapterSource) -> Format | None:
    if source.pattern is not None:
        return pattern
    return next((format for format in FORMATS if format.matches(source)), None)


def explain(
    path: str | os.PathLike[str],
    *,
    adapter_name: str | None = None,
    pattern: str | os.PathLike[str] | None = None,
) -> dict[str, str]:
    """Say why a file is taken for what it is: format -> the reason, the one that reads it first.

    Raises
    ------
    MissingFileError
        No such path.
    FormatError
        No format matches it.
    """
    source = _source(Path(path), adapter_name, pattern=pattern)
    first = _format_of(source)
    asked = FORMATS if first is None else (first, *(f for f in FORMATS if f is not first))
    reasons = {format.NAME: why for format in asked if (why := format.matches(source))}
    if not reasons:
        raise FormatError(_unknown(source))
    return reasons


def _source(
    path: Path,
    adapter_name: str | None,
    alpha: float | None = None,
    pattern: str | os.PathLike[str] | None = None,
) -> AdapterSource:
    place = find(path, adapter_name)
    initial = place.folder / "initial_A.safetensors"
    return AdapterSource(
        name=place.name,
        path=path,
        weights=place.weights,
        config=read_json(place.config) if place.config else None,
        where=str(place.config or place.weights),
        initial=initial if initial.exists() else None,
        adapter_name=place.adapter_name,
        alpha=alpha,
        pattern=pattern,
    )


def _refuse_mixed(source: AdapterSource, format: Format, unknown: Iterable[str]) -> None:
    rest = source.only(unknown)
    if source.config is not None or source.pattern is not None or not rest.tensors:
        return
    for other in FORMATS:
        if other is not format and other.matches(rest):
            raise FormatError(
                f"{source.weights}: holds tensors of {format.NAME} and of {other.NAME} "
                f"({some(rest.tensors)}); save them apart"
            )


def _unknown(source: AdapterSource) -> str:
    tensors = source.tensors
    refused = explain_refusal(tensors)
    if refused is not None:
        return f"{source.weights}: {refused}"
    shown = ", ".join(short(name) for name in list(tensors)[:3])
    seen = f"{len(tensors)} tensors" + (f" ({shown}, …)" if tensors else "")
    if tensors.metadata:
        seen += f" and metadata {', '.join(short(key) for key in list(tensors.metadata)[:4])}"
    near = {
        format: count
        for format in FORMATS
        if (count := sum(any(end in name for end in format.TENSOR_SUFFIXES) for name in tensors))
    }
    if not near:
        return (
            f"{source.weights}: no LoRA factors among its {seen}; what is read: "
            f"{', '.join(format.NAME for format in FORMATS)} (pattern= or --pattern, of names of "
            "your own)"
        )
    closest = sorted(near, key=lambda format: -near[format])[:2]
    why = "; ".join(f"{f.NAME} wants {f.EXPECTS} ({near[f]} look alike)" for f in closest)
    return (
        f"{source.weights}: of no format that is read: {seen}; nearest: {why}; pattern= "
        "or --pattern takes names of your own"
    )
