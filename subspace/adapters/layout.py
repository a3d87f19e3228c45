"""How an adapter's files lay it out, as far as its reader and its writers act on it.

What only a person reads stays text, in `Adapter.metadata`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST_EXPERTS = 65_536
"""Of one layer: each becomes a module, on a header's word."""


class Stack(NamedTuple):
    """Where PEFT stores the updates of one parameter, for who writes them again."""

    a: str  # the tensor's name: base_layer in it tells how deep its wrapper lies
    experts: int
    parameter: str  # the path that PEFT matches target_parameters and patterns against


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How an adapter's files lay it out.

    Attributes
    ----------
    config
        PEFT's config, as it was read; empty for other writers.
    asked_alpha
        The alpha that the user gave and that was applied.
    base_changed
        The initialisation that changed the base's weights before training, such as ``pissa``.
    stored_transposed
        The base stores its weights (d_in, d_out), as GPT-2's Conv1D does.
    stacks
        PEFT's stacks of experts, by the module's path.
    experts
        The number of experts in each stack that MLX-LM wrote.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    asked_alpha: float | None = None
    base_changed: str | None = None
    stored_transposed: bool = False
    stacks: Mapping[str, Stack] = field(default_factory=dict)
    experts: Mapping[str, int] = field(default_factory=dict)
