"""Rows of q and k that a writer has in its own rotary order, and how they come back.

torchtune and llama.cpp have a head's pairs side by side, transformers has its two halves; the
number of heads, which undoes it, is in the base's ``config.json``. Where that is not beside the
file, `Adapter.reordered` names the modules: what compares their rows with another order, or writes
them for another program, refuses.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from subspace.adapters.source import some
from subspace.errors import FormatError
from subspace.tensorfiles import read_json, short

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    import torch

    from subspace.adapters.adapter import Adapter
    from subspace.adapters.build import UpdateSpec
    from subspace.adapters.source import AdapterSource

CONFIG = "config.json"
WAY_OUT = (
    "put the base's config.json, which tells the heads, beside the file, or leave them out with "
    "--modules"
)


class Heads(NamedTuple):
    """How many the base's attention has."""

    query: int
    key: int
    rows: int | None  # of each, where the config tells it


def read_base_config(source: AdapterSource) -> tuple[Path, Mapping[str, Any]] | None:
    """Read the base's ``config.json`` beside the file, if there is one."""
    path = source.weights.parent / CONFIG
    return (path, read_json(path)) if path.exists() else None


def has_heads(config: Mapping[str, Any]) -> bool:
    """Whether a base's config tells them."""
    return "num_attention_heads" in _text(config)


def _text(config: Mapping[str, Any]) -> Mapping[str, Any]:
    inner = config.get("text_config")  # of a model that takes pictures too
    return inner if isinstance(inner, dict) else config


def read_heads(path: Path, config: Mapping[str, Any]) -> Heads:
    """Return the numbers of heads that a base's config tells.

    Raises
    ------
    FormatError
        They are no numbers.
    """
    config = _text(config)
    query = config.get("num_attention_heads")
    key = config.get("num_key_value_heads")
    key = query if key is None else key  # null means so to transformers, too
    for field, count in (("num_attention_heads", query), ("num_key_value_heads", key)):
        if type(count) is not int or count < 1:
            raise FormatError(f"{path}: {field} = {short(count)} is not a number of heads")
    rows, width = config.get("head_dim"), config.get("hidden_size")
    if type(rows) is not int:
        rows = width // query if type(width) is int else None  # type: ignore[operator]
    return Heads(query, key, rows)  # type: ignore[arg-type]


def is_reordered(module: str) -> bool:
    """Whether a module of the base is one whose rows are reordered."""
    return module.endswith(("self_attn.q_proj", "self_attn.k_proj"))


def restore_rows(source: AdapterSource, update: UpdateSpec, heads: Heads) -> UpdateSpec:
    """Plan the rows of a query's or key's B in transformers' order.

    Raises
    ------
    FormatError
        They are not those of so many heads.
    """
    _, b = update.tensors
    count = heads.query if update.module.endswith("q_proj") else heads.key
    rows = update.shape[0]
    if rows % (2 * count) or heads.rows not in (None, rows // count):
        raise FormatError(
            f"{source.text(b)}: its rows are not those of {count} heads, which config.json beside "
            "tells; it is not of this adapter's base"
        )
    return replace(update, rows=partial(_in_order, heads=count))


def _in_order(rows: torch.Tensor, heads: int) -> torch.Tensor:
    pairs = rows.reshape(heads, -1, 2, *rows.shape[1:])
    return pairs.transpose(1, 2).reshape(rows.shape)


def list_reordered(adapter: Adapter, modules: Iterable[str]) -> list[str]:
    """List those of `modules` whose rows are in the writer's own order."""
    return [module for module in modules if module in adapter.reordered]


def refuse_reordered(adapter: Adapter, modules: Iterable[str], what: str) -> None:
    """Refuse to compare or write such rows with those of transformers' order.

    Raises
    ------
    FormatError
        Names them, `what` has another order, and the way out.
    """
    reordered = list_reordered(adapter, modules)
    if reordered:
        raise FormatError(
            f"{adapter.path or adapter.name}: the rows of {some(reordered)} are in the rotary "
            f"order of {adapter.format}, and {what} transformers'; {WAY_OUT}"
        )
