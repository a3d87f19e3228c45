"""Where a module sits: its block, its layer and its kind, from its path alone."""

from __future__ import annotations

from dataclasses import dataclass

_MOST_DIGITS = 6  # a name may hold a number of any length


@dataclass(frozen=True)
class Place:
    """Where a module sits: ``encoder.layer.3.attention.self.query`` -> encoder.layer, 3, the rest.

    ``layer`` is None, and ``kind`` the whole path, where no component is a number.
    """

    prefix: str
    layer: int | None
    kind: str


def place(module: str) -> Place:
    """Split a module path at its first component that is a number.

    >>> place("model.layers.12.self_attn.q_proj")
    Place(prefix='model.layers', layer=12, kind='self_attn.q_proj')
    """
    parts = module.split(".")
    for k, part in enumerate(parts[:-1]):
        # Not str.isdigit: it takes superscripts.
        if part.isascii() and part.isdecimal() and len(part) <= _MOST_DIGITS:
            return Place(".".join(parts[:k]), int(part), ".".join(parts[k + 1 :]))
    return Place("", None, module)
