"""``layer_replication``: the base's own index of each layer that PEFT copied.

``[[0, 4], [2, 5]]`` makes a model of the base's layers 0, 1, 2, 3, 2, 3, 4, whose copies share the
base's weights and have an adapter each (peft 0.21.2, ``replicate_layers``).
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from subspace.adapters.source import some
from subspace.errors import FormatError
from subspace.tensorfiles import short

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from subspace.adapters.build import UpdateSpec
    from subspace.adapters.source import AdapterSource

# PEFT replicates the list of this name: Llama's and Mistral's, BERT's, Falcon's.
_LAYER = re.compile(r"(^|\.)(layers|layer|h)\.(\d+)(?=\.|$)")
_MOST = 100_000


def name_base_layers(
    source: AdapterSource, planned: Iterable[UpdateSpec], config: Mapping[str, Any]
) -> tuple[list[UpdateSpec], list[str], dict[str, str]]:
    """Name modules by the base's layers, where no two copies of one layer are adapted.

    Returns
    -------
    The updates, a note, and of modules that keep PEFT's index the base's own name.

    Raises
    ------
    FormatError
        ``layer_replication`` is no list of ranges, or does not reach an adapted layer.
    """
    updates, ranges = list(planned), config.get("layer_replication")
    if not ranges:
        return updates, [], {}
    origin = _origin(ranges, source.where)
    names = {
        update.module: _rename_layer(update.module, origin, source.where) for update in updates
    }
    if len(set(names.values())) == len(names):
        renamed = [replace(update, module=names[update.module]) for update in updates]
        return (
            renamed,
            [f"layer_replication = {short(ranges)}: layers are named by the base's own index"],
            {},
        )
    sources = {mine: name for mine, name in names.items() if mine != name}
    moved = [f"{mine} is the base's {name}" for mine, name in sources.items()]
    return (
        updates,
        [
            f"layer_replication = {short(ranges)}: several adapted layers share one base layer, so "
            f"they keep PEFT's index, which is not the base's: {some(moved)}"
        ],
        sources,
    )


def _origin(ranges: object, where: str) -> list[int]:
    origin: list[int] = []
    for pair in ranges if isinstance(ranges, list) else [ranges]:
        if isinstance(pair, list) and len(pair) == 2 and all(type(n) is int for n in pair):
            first, last = pair
            if 0 <= first < last and len(origin) + last - first <= _MOST:
                origin.extend(range(first, last))
                continue
        raise FormatError(
            f"{where}: layer_replication = {short(ranges)} is no list of [first, last + 1]"
        )
    return origin


def _rename_layer(module: str, origin: list[int], where: str) -> str:
    match = _LAYER.search(module)
    if match is None:
        return module
    index = int(match[3]) if len(match[3]) < 9 else len(origin)
    if index >= len(origin):
        raise FormatError(
            f"{where}: layer_replication makes {len(origin)} layers, and {short(module)} is none"
        )
    return f"{module[: match.start(3)]}{origin[index]}{module[match.end(3) :]}"
