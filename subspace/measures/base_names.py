"""Names with ``_`` for every dot, turned into those of the base model that ``--base`` gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from subspace.adapters.factors.kernels import KINDS
from subspace.adapters.writers.content import split_part
from subspace.errors import ArgumentError, MissingFileError, UnknownModuleError
from subspace.modules.underscored import is_flat, models_of
from subspace.modules.words import FLAT_PREFIXES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from subspace.adapters import Adapter
    from subspace.pretrained import Pretrained

_INDEX = "model_index.json"  # of a pipeline's folder, which has a folder for each part
_ALL = tuple(dict.fromkeys(model for models in FLAT_PREFIXES.values() for model in models))


def match_base_names(
    adapter: Adapter,
    base: str,
    modules: Iterable[str],
    *,
    to: str,
    open_base: Callable[[str], Pretrained],
) -> dict[str, str]:
    """Map each of `modules` that has such a name to the base's own.

    Every module, also one whose name has its dots, must be in the base in its shape.

    Of a pipeline's folder names begin with its part, as diffusers has them (``unet.``), and are for
    it alone; a path with dots that one of the parts has gets it too.

    Raises
    ------
    ArgumentError
        `base` is a pipeline's folder, and the format `to` is of one model.
    UnknownModuleError
        The base has no such module, or several that it could be.
    ShapeError
        It has another shape.
    MissingFileError
        The pipeline lacks the part, or nothing is there.
    """
    pipeline = (Path(base) / _INDEX).is_file()
    if pipeline and to != "diffusers":
        raise ArgumentError(
            f"--base {base!r} is a pipeline of several models, for --to diffusers: give the folder "
            "of one of them, such as its unet, and --modules 'lora_unet_*'"
        )
    opened: dict[str, Pretrained] = {}

    def model(part: str) -> Pretrained:
        place = f"{base}/{part}" if part else base
        if place not in opened:
            opened[place] = open_base(place)
        return opened[place]

    there = [part for part in _ALL if pipeline and (Path(base) / part).is_dir()]
    table = {}
    for module in modules:
        part = _part(module, Path(base)) if pipeline else ""
        if part is None and is_flat(module):  # LyCORIS's, which does not say the model
            part = _only_holder(module, {name: model(name) for name in there})
        if part is None:  # dots, and no part in front: PEFT's adapter of one model of the pipeline
            holding = [name for name in there if module in model(name)]
            if len(holding) == 1:
                table[module] = f"{holding[0]}.{module}"
            continue
        own = model(part).named(module)
        # A name that has its dots is held against the base too: it may be another model's.
        model(part).get(own, shape=adapter.updates[module].shape)
        if own != module:
            table[module] = f"{part}.{own}" if part else own
    return table


def with_kernels(adapter: Adapter, base: str, *, open_base: Callable[[str], Pretrained]) -> Adapter:
    """Take from the base the kernels of convolutions that the adapter's file lays flat.

    A module that the base lacks keeps what it has.
    """
    pipeline = (Path(base) / _INDEX).is_file()
    opened: dict[str, Pretrained] = {}
    updates = dict(adapter.updates)
    for module, info in adapter.updates.items():
        part, path = split_part(module) if pipeline else ("", module)
        if not info.flat or (pipeline and not part):
            continue
        place = f"{base}/{part}" if part else base
        if place not in opened:
            opened[place] = open_base(place)
        try:
            kernel = opened[place].get(path, shape=info.shape).kernel
        except UnknownModuleError:
            continue
        updates[module] = replace(info, kind=KINDS[len(kernel)], kernel=kernel, flat=False)
    return replace(adapter, updates=MappingProxyType(updates))


def _part(module: str, pipeline: Path) -> str | None:
    """Say which part of a pipeline a module is of; None of a name that has its dots."""
    models = models_of(module)
    if not models:
        return None
    part = next((model for model in models if (pipeline / model).is_dir()), None)
    if part is None:
        raise MissingFileError(
            f"{pipeline}: has no {' or '.join(models)}, of which module {module!r} is"
        )
    return part


def _only_holder(module: str, models: Mapping[str, Pretrained]) -> str:
    """Return which of a pipeline's models alone has a module that a flat name means.

    Raises
    ------
    UnknownModuleError
        None has it, or several have.
    """
    holding = []
    for name, model in models.items():
        try:
            model.named(module)
        except UnknownModuleError:
            continue
        holding.append(name)
    if len(holding) != 1:
        which = f"{' and '.join(holding)} have" if holding else f"none of {', '.join(models)} has"
        raise UnknownModuleError(
            f"module {module!r}: {which} such a module; --rename OLD=NEW names it"
        )
    return holding[0]
