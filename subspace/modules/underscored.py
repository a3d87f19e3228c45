"""Names that have ``_`` for every dot: which stored module kohya's programs or LyCORIS mean.

``lora_unet_<path>``, ``lora_te1_<path>``, ``lycoris_<path>`` and so on, where the path is that of
the model that was trained, in its wrappers or without. Which of its underscores were dots is told
by a checkpoint's own names alone.
"""

from __future__ import annotations

import re
from collections import defaultdict
from types import MappingProxyType
from typing import TYPE_CHECKING

from subspace.modules.wrappers import HEADS, WRAPPERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_FLAT = re.compile(r"(?:lora_[a-z0-9]+|lycoris)_([^.]+)\Z")


def by_flat_name(names: Iterable[str]) -> Mapping[str, tuple[str, ...]]:
    """Group module paths by what they are with ``_`` for dots, in their wrappers and without.

    >>> dict(by_flat_name(["model.layers.0.q_proj"]))
    {'model_layers_0_q_proj': ('model.layers.0.q_proj',), 'layers_0_q_proj': \
('model.layers.0.q_proj',)}
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        parts = name.removesuffix(".base_layer").split(".")
        groups["_".join(parts)].append(name)
        while len(parts) > 1 and parts[0] in WRAPPERS:
            del parts[0]
            groups["_".join(parts)].append(name)
    return MappingProxyType({key: tuple(group) for key, group in groups.items()})


def dotted(module: str, groups: Mapping[str, tuple[str, ...]]) -> tuple[str, ...] | None:
    """List the stored modules that a flat name could mean; None if it is no such name.

    A head that is not stored keeps its path: it may be tied.

    >>> dotted("lycoris_model_layers_0_q_proj", by_flat_name(["layers.0.q_proj"]))
    ('layers.0.q_proj',)
    >>> dotted("lora_unet_a_q", by_flat_name(["a.q", "model.a_q"]))
    ('a.q', 'model.a_q')
    >>> dotted("model.layers.0.q_proj", {}) is None
    True
    """
    found = _FLAT.match(module)
    if found is None:
        return None
    path = found[1]
    while path not in groups:
        heads = tuple(head for head in HEADS if head.replace(".", "_") == path)
        if heads:
            return heads
        wrapper = next((w for w in WRAPPERS if path.startswith(f"{w}_")), None)
        if wrapper is None:
            return ()
        path = path.removeprefix(f"{wrapper}_")
    return groups[path]
