"""Names with ``_`` for every dot, turned into those of the base model that ``--base`` gives."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from subspace.errors import ArgumentError, MissingFileError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from subspace.adapters import Adapter
    from subspace.pretrained import Pretrained

_INDEX = "model_index.json"  # of a pipeline's folder, which has a folder for each part
_PARTS = {
    "lora_unet_": ("unet", "transformer"),
    "lora_te_": ("text_encoder",),
    "lora_te1_": ("text_encoder",),
    "lora_te2_": ("text_encoder_2",),
    "lora_te3_": ("text_encoder_3",),
}
_ALL = tuple(dict.fromkeys(part for parts in _PARTS.values() for part in parts))


def names_of(adapter: Adapter, base: str, modules: Iterable[str], *, to: str) -> dict[str, str]:
    """Map each of `modules` that has such a name to the base's own; shapes are held against it.

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
            "of one of them, such as its unet, and --module 'lora_unet_*'"
        )
    from subspace.cli.shared.reading import open_base

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
        if part is None:  # dots, and no part in front: PEFT's adapter of one model of the pipeline
            holding = [name for name in there if module in model(name)]
            if len(holding) == 1:
                table[module] = f"{holding[0]}.{module}"
            continue
        own = model(part).named(module)
        if own != module:
            model(part).get(own, shape=adapter.updates[module].shape)
            table[module] = f"{part}.{own}" if part else own
    return table


def _part(module: str, pipeline: Path) -> str | None:
    """Say which part of a pipeline a module is of; None of a name that has its dots."""
    start = next((start for start in _PARTS if module.startswith(start)), None)
    if start is None:
        return None
    part = next((part for part in _PARTS[start] if (pipeline / part).is_dir()), None)
    if part is None:
        raise MissingFileError(
            f"{pipeline}: has no {' or '.join(_PARTS[start])}, of which module {module!r} is"
        )
    return part
