"""Single tokens that PEFT trained beside a LoRA (``trainable_token_indices``).

peft 0.21.2, ``tuners/trainable_tokens/layer.py``: ``<path>.token_adapter.trainable_tokens_delta``
(k, dim) is, whatever its name says, the embeddings of the tokens after training; which they are is
in the config alone, a list or a list for each path's end. What they changed takes the base.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from subspace.adapters.set_aside import SetAsideReason
from subspace.errors import FormatError
from subspace.tensorfiles import short

if TYPE_CHECKING:
    from subspace.adapters.adapter import Adapter

FIELD = "trainable_token_indices"


class Tokens(NamedTuple):
    """Of one embedding."""

    tensor: str  # (k, dim), of `Adapter.set_aside`
    indices: tuple[int, ...]


def find_trained_tokens(adapter: Adapter) -> dict[str, Tokens]:
    """Find the tokens that were trained, by embedding; none of an adapter of another writer.

    Raises
    ------
    FormatError
        The config does not say which tokens they are.
    """
    field = adapter.layout.config.get(FIELD)
    trained = {}
    for aside in adapter.set_aside:
        if aside.reason is not SetAsideReason.TOKENS or aside.module is None:
            continue
        given = field
        if isinstance(field, Mapping):
            path = f".{aside.module}"
            given = next((v for key, v in field.items() if path.endswith(f".{key}")), None)
        tokens = given if isinstance(given, list) else []
        ints = all(type(i) is int and i >= 0 for i in tokens)
        if not ints or len(aside.shape) != 2 or len(tokens) != aside.shape[0]:
            raise FormatError(
                f"{adapter.path}: {FIELD} = {short(field)} does not say which tokens the "
                f"{aside.shape[0] if aside.shape else 0} of {aside.name!r} {aside.shape} are"
            )
        trained[aside.module] = Tokens(aside.name, tuple(tokens))
    return trained
