"""Two checkpoints of one model: which weights of the one are which of the other."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import torch

from subspace.errors import ShapeError, UnknownModuleError
from subspace.modules.order import model_order
from subspace.modules.wrappers import bare_name, modules

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from subspace.pretrained import Pretrained, Weight

PLAIN = frozenset({"bfloat16", "float16", "float32", "float64"})
"""Dtypes of numbers that are W as they stand."""


@dataclass(frozen=True)
class MatchedWeights:
    """What two checkpoints have in common.

    Attributes
    ----------
    weights
        Module -> its weight in the base and in the tuned checkpoint, of equal shape, in the
        model's order, by the base's name where it has one.
    tensors
        The base's name -> the tuned one's, of tensors that are no module's matrix.
    only_base, only_tuned
        Modules, and tensors that are no module's, without a counterpart.
    notes
        What is not as the names say.
    """

    weights: Mapping[str, tuple[Weight, Weight]]
    tensors: Mapping[str, str]
    only_base: tuple[str, ...]
    only_tuned: tuple[str, ...]
    notes: tuple[str, ...]


def match_weights(base: Pretrained, tuned: Pretrained, glob: str | None) -> MatchedWeights:
    """Match by names, prefixes aside; headers are read and, of a tied head, its weight.

    Parameters
    ----------
    base, tuned
        Two checkpoints.
    glob
        A shell-style pattern that a module, or a tensor of none, is to match.

    Raises
    ------
    UnknownModuleError
        Nothing matches the pattern, or they share no module.
    ShapeError
        A module has two shapes.
    """
    pairs: dict[str, tuple[Weight, Weight]] = {}
    alone: tuple[list[str], list[str]] = [], []
    notes = []
    asked = _matching(base, glob)
    for name in asked:
        try:
            other = tuned.get(name)
        except UnknownModuleError:
            alone[0].append(name)
            continue
        pairs[name.removesuffix(".base_layer")] = _select_fitting(name, base[name], other, tuned)
    seen = {tensor for _, other in pairs.values() for tensor in other.tensors}
    for name in _matching(tuned, glob):
        weight = tuned[name]
        if seen.issuperset(weight.tensors):
            continue
        try:
            own = base.get(name)
        except UnknownModuleError:
            alone[1].append(name)
            continue
        tied = next((n for n, (b, _) in pairs.items() if b.source == own.source), None)
        if tied is not None and _are_same(weight, pairs[tied][1]):
            notes.append(f"{name} is stored apart in {tuned.name} and is {tied} all the same")
            continue
        if tied is not None:
            notes.append(f"{name} is {tied} in {base.name}, and its own in {tuned.name}")
        pair = _select_fitting(name, own, weight, tuned)
        pairs[name.removesuffix(".base_layer")] = pair
        alone[0][:] = [n for n in alone[0] if not set(base[n].tensors) <= set(own.tensors)]
    if not pairs:
        raise UnknownModuleError(_nothing(base, tuned, glob, asked))
    tensors = _others(base, tuned, glob)
    matched = set(tensors.values())
    alone[0].extend(n for n in _plain_tensors(base, glob) if n not in tensors)
    alone[1].extend(n for n in _plain_tensors(tuned, glob) if n not in matched)
    return MatchedWeights(
        {name: pairs[name] for name in sorted(pairs, key=model_order)},
        tensors,
        tuple(alone[0]),
        tuple(alone[1]),
        tuple(notes),
    )


def _matching(names: Iterable[str], glob: str | None) -> list[str]:
    return [name for name in names if glob is None or fnmatchcase(name, glob)]


def _nothing(base: Pretrained, tuned: Pretrained, glob: str | None, asked: list[str]) -> str:
    if glob is not None and not asked:
        have = ", ".join(list(base)[:4])
        more = f" and {len(base) - 4} more" if len(base) > 4 else ""
        return f"no module of base {base.name!r} matches {glob!r}; it has {have}{more}"
    return (
        f"{base.name!r} and {tuned.name!r} share no module: the one has {', '.join(list(base)[:3])}"
        f", the other {', '.join(list(tuned)[:3])}; are they of one model?"
    )


def _select_fitting(
    name: str, before: Weight, after: Weight, tuned: Pretrained
) -> tuple[Weight, Weight]:
    if before.shape == after.shape:
        return before, after
    if before.shape == after.shape[::-1]:  # the name does not say which way round it is stored
        try:
            return before, tuned.get(name, shape=before.shape)
        except (ShapeError, UnknownModuleError):
            pass
    raise ShapeError(
        f"module {name!r} is {before.shape[0]} x {before.shape[1]} in the base ({before.source}), "
        f"{after.shape[0]} x {after.shape[1]} in the tuned checkpoint ({after.source}): two shapes "
        "have no difference; choose other modules with --modules"
    )


def _are_same(one: Weight, other: Weight) -> bool:
    """Whether two weights are the same numbers, an embedding and the head that it is tied to."""
    if one.shape != other.shape and one.shape != other.shape[::-1]:
        return False
    W = other.W if one.shape == other.shape else other.W.mT
    return torch.equal(one.W, W)


def _plain_tensors(checkpoint: Pretrained, glob: str | None) -> list[str]:
    """List the tensors that are neither a module's matrix nor the scales of a quantised one."""
    headers = checkpoint.tensors.headers
    weights = modules((name, header.shape) for name, header in headers.items())
    taken = set(weights.values())
    packed = {module for module, name in weights.items() if headers[name].dtype not in PLAIN}
    plain = []
    for name in headers:
        parts = name.split(".")
        parents = {".".join(parts[:n]) for n in range(1, len(parts))}
        if name in taken or (not packed.isdisjoint(parents) and parts[-1] != "bias"):
            continue
        if glob is None or fnmatchcase(name, glob) or fnmatchcase(name.rpartition(".")[0], glob):
            plain.append(name)
    return plain


def _others(base: Pretrained, tuned: Pretrained, glob: str | None) -> dict[str, str]:
    by_bare: dict[str, list[str]] = defaultdict(list)
    there = _plain_tensors(tuned, glob)
    for name in there:
        by_bare[bare_name(name)].append(name)
    names = set(there)
    matched = {}
    for name in _plain_tensors(base, glob):
        near = [name] if name in names else by_bare[bare_name(name)]
        if len(near) == 1:
            matched[name] = near[0]
    return matched
