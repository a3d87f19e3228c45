"""kohya's sd-scripts as ``networks/lora.py`` reads it: flat names, and an alpha for every module.

``<component>_<path with _ for .>`` has ``lora_down.weight`` (r, in, kh, kw), ``lora_up.weight``
(d_out, r, 1, 1), without the kernel for a linear layer, and ``alpha``, which is divided by r.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from subspace.adapters.formats import diffusers, kohya
from subspace.adapters.source import some
from subspace.adapters.writers.content import (
    Content,
    find_alpha,
    find_most_common,
    refuse_kinds,
    shape_convolution,
    split_part,
)
from subspace.errors import FormatError
from subspace.modules.underscored import is_flat
from subspace.modules.words import DENOISERS, FLAT_PREFIXES

if TYPE_CHECKING:
    import torch

    from subspace.adapters.adapter import Adapter

NAME = kohya.NAME
FOLDER = False
WEIGHTS = ""
SUFFIXES = (".safetensors",)
_UNET = "lora_unet_"
# What diffusers puts in front of a path -> what kohya's programs do, the first of several.
_COMPONENTS = {
    f"{model}.": prefix for prefix, models in [*FLAT_PREFIXES.items()][::-1] for model in models
}


def content(adapter: Adapter, *, updates_only: bool) -> Content:  # noqa: ARG001 - `Writer`'s
    """Lay an adapter out as sd-scripts does.

    Raises
    ------
    FormatError
        An embedding, an expert, a part of a pipeline that no program of this naming has, or two
        modules whose flat names are the same.
    """
    import torch

    refuse_kinds(adapter.updates.values(), NAME, ("linear", "conv1d", "conv2d", "conv3d"))
    names = _flatten_name(adapter)
    tensors: dict[str, torch.Tensor] = {}
    alphas: dict[str, float] = {}
    rounded, zero = [], []
    for module, info in adapter.updates.items():
        update, name = adapter[module], names[module]
        down, up = update.A, update.B
        if info.kernel:
            down = shape_convolution(info, down)
            up = up.reshape(*up.shape, *(1 for _ in info.kernel))
        wanted = find_alpha(info.scale, info.rank)
        alpha = torch.tensor(wanted, dtype=torch.float32)
        if not torch.isfinite(alpha):
            raise FormatError(f"module {module!r}: an alpha of {wanted:g} is beyond float32")
        if alpha == 0:  # which readers take for an alpha that is not there
            alpha, up = torch.tensor(float(info.rank)), up * info.scale
            zero.append(module)
        elif float(alpha) != wanted:
            rounded.append(module)
        alphas[module] = float(alpha)
        tensors |= {
            f"{name}.lora_down.weight": down,
            f"{name}.lora_up.weight": up,
            f"{name}.alpha": alpha,
        }
    notes = []
    if zero:
        notes.append(f"{some(zero)}: an alpha of 0 means none here, so lora_up is 0 instead")
    if rounded:
        notes.append(f"{some(rounded)}: alpha is stored in float32, its scale exact to 6e-8")
    if not all(is_flat(module) or module.startswith(tuple(_COMPONENTS)) for module in names):
        notes.append(
            "modules without a component in front are taken for the UNet's or transformer's "
            f"({_UNET}); paths are the base's own, none is translated to another program's"
        )
    return Content(
        tensors,
        metadata={
            key: value
            for key, value in adapter.metadata.items()
            if key.startswith("ss_") and isinstance(value, str)
        }
        | {
            "ss_network_module": "networks.lora",
            "ss_network_dim": f"{find_most_common(i.rank for i in adapter.updates.values()):g}",
            "ss_network_alpha": f"{find_most_common(alphas.values()):g}",
        },
        notes=tuple(notes),
    )


def _components(adapter: Adapter) -> dict[str, str]:
    """Return what kohya's programs put in front for each of a pipeline's parts in the adapter.

    Raises
    ------
    FormatError
        Two models that take noise away, of which such a file has one, or a part without a prefix.
    """
    components = dict(_COMPONENTS)
    if any(module.startswith("text_encoder_2.") for module in adapter.updates):
        components["text_encoder."] = "lora_te1_"
    if adapter.format != diffusers.NAME:  # GPT-2's own paths begin with it too
        del components["transformer."]
        return components
    parts = dict.fromkeys(split_part(module)[0] for module in adapter.updates)
    denoisers = [part for part in parts if part.rstrip("_0123456789") in DENOISERS]
    if len(denoisers) > 1:
        raise FormatError(
            f"{adapter.path or adapter.name}: has modules of {' and of '.join(denoisers)}, and a "
            f"file of {NAME} has one such model: write one after the other, with --modules "
            + " and ".join(f"'{part}.*'" for part in denoisers)
        )
    components |= {f"{part}.": _UNET for part in denoisers}
    lost = next((part for part in parts if part and f"{part}." not in components), None)
    if lost is not None:
        raise FormatError(
            f"{adapter.path or adapter.name}: has modules of {lost}, for which {NAME} has no "
            f"prefix: --modules leaves them out, or write it as {diffusers.NAME}"
        )
    return components


def _flatten_name(adapter: Adapter) -> dict[str, str]:
    """Return kohya's name of every module."""
    components = _components(adapter)
    names: dict[str, str] = {}
    taken: dict[str, str] = {}
    for module in adapter.updates:
        if is_flat(module):
            name = module
        elif adapter.format == NAME and adapter.prefix:  # its dots are known, and ComfyUI's
            name = f"{adapter.prefix}{module}"
        else:
            start = next((c for c in components if module.startswith(c)), "")
            path = module.removeprefix(start).replace(".", "_")
            name = f"{components.get(start, _UNET)}{path}"
        other = taken.setdefault(name, module)
        if other != module:
            raise FormatError(
                f"modules {other!r} and {module!r} are both {name!r} in {NAME}, which has _ for "
                "every dot"
            )
        names[module] = name
    return names
