"""Names that have ``_`` for every dot: which dotted module, of which of a pipeline's models.

kohya's programs, OneTrainer and LyCORIS write ``lora_unet_<path>``, ``lora_te1_<path>``,
``lycoris_<path>`` and so on, where the path is that of the model that was trained, in its wrappers
or without. Which of its underscores were dots is told by another's dotted names alone, those of an
adapter or of a checkpoint.
"""

from __future__ import annotations

import re
from collections import defaultdict
from types import MappingProxyType
from typing import TYPE_CHECKING

from subspace.modules.words import FLAT_PREFIXES, TEXT_WRAPPER, WRAPPERS
from subspace.modules.wrappers import HEADS, spell

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# Also the prefixes of programs that the table lacks: what they write is no path all the same.
_FLAT = re.compile(
    rf"(?:(?P<prefix>{'|'.join(sorted(FLAT_PREFIXES, key=len, reverse=True))})"
    r"|lora_[a-z0-9]+_(?=[^.]+\Z))(?P<path>.+)\Z",
    re.DOTALL,
)
# Longest first: `wav2vec2_bert_` is no `wav2vec2_` of a module `bert_…`.
_WRAPPERS = tuple(f"{word}_" for word in sorted(WRAPPERS, key=lambda word: (-len(word), word)))


def is_flat(module: str) -> bool:
    """Say whether a name has ``_`` for every dot.

    >>> is_flat("lora_unet_mid_block_conv1"), is_flat("lora_anything_x"), is_flat("unet.conv1")
    (True, True, False)
    """
    return _FLAT.match(module) is not None


def models_of(module: str) -> tuple[str, ...] | None:
    """Return which of a pipeline's models a flat name may mean; None of any other name.

    >>> models_of("lora_unet_conv_in"), models_of("lycoris_conv_in"), models_of("unet.conv_in")
    (('unet', 'transformer'), (), None)
    """
    match = _FLAT.match(module)
    return None if match is None else FLAT_PREFIXES.get(match["prefix"] or "", ())


def _strip_repeated(path: str) -> str:
    """Drop the pipeline's model once more: ``lora_unet_unet_…`` was made of ``unet.unet.…``."""
    return path.removeprefix("unet_") or path


def spell_flat(module: str) -> list[str]:
    """List what a flat name's path may be: as it stands, then without one, two, … wrappers.

    A last underscore is no part of it: no module's name is empty.

    >>> spell_flat("lora_unet_attn_to_q_")
    ['attn_to_q']
    >>> spell_flat("lycoris_model_layers_0_q_proj")
    ['model_layers_0_q_proj', 'layers_0_q_proj']
    """
    match = _FLAT.match(module)
    if match is None:
        return []
    path = _strip_repeated(match["path"].replace(".", "_").rstrip("_"))
    paths = [path]
    if any(model.startswith("text_encoder") for model in models_of(module) or ()):
        path = path.removeprefix(f"{TEXT_WRAPPER}_")
        paths.append(path)
    while wrapper := next((w for w in _WRAPPERS if path.startswith(w) and path != w), ""):
        path = path.removeprefix(wrapper)
        paths.append(path)
    return list(dict.fromkeys(paths))


def group_by_flat_name(names: Iterable[str]) -> Mapping[str, tuple[str, ...]]:
    """Group module paths by what they are with ``_`` for dots, in their wrappers and without.

    >>> dict(group_by_flat_name(["model.layers.0.q_proj"]))
    {'layers_0_q_proj': ('model.layers.0.q_proj',), 'model_layers_0_q_proj': \
('model.layers.0.q_proj',)}
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        for path in dict.fromkeys(path.replace(".", "_") for path in spell(name)):
            groups[path].append(name)
    return MappingProxyType({key: tuple(group) for key, group in groups.items()})


def list_dotted(module: str, groups: Mapping[str, tuple[str, ...]]) -> tuple[str, ...] | None:
    """List the stored modules that a flat name could mean; None if it is no such name.

    A head that is not stored keeps its path: it may be tied.

    >>> list_dotted("lycoris_model_layers_0_q_proj", group_by_flat_name(["layers.0.q_proj"]))
    ('layers.0.q_proj',)
    >>> list_dotted("lora_unet_a_q", group_by_flat_name(["a.q", "model.a_q"]))
    ('a.q', 'model.a_q')
    >>> list_dotted("model.layers.0.q_proj", {}) is None
    True
    """
    if _FLAT.match(module) is None:
        return None
    for path in spell_flat(module):
        if path in groups:
            return groups[path]
        heads = tuple(head for head in HEADS if head.replace(".", "_") == path)
        if heads:
            return heads
    return ()
