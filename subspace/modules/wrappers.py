"""The same module under another wrapper: one rule for adapters among themselves and for a base.

A path loses the wrappers of a whole model in front of it, and what tools put inside; `words` has
both. Two paths that are then one name one module, if nothing else has that name.
"""

from __future__ import annotations

import re
from collections import defaultdict
from difflib import get_close_matches
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING

from subspace.errors import UnknownModuleError, shorten
from subspace.modules.renamed import is_stack, renew
from subspace.modules.words import WRAPPERS, list_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# What GPTQ and AWQ, and compressed-tensors, call a weight of packed integers.
PACKED = (".qweight", ".weight_packed")
# Where single-file checkpoints of pipelines keep their text encoders.
_SINGLE_FILE = re.compile(
    r"\A(?:cond_stage_model|conditioner\.embedders\.[0-9]+|text_encoders\.[^.]+)"
    r"\.(?:transformer|model)\."
)
_ADAPTED = re.compile(r"\.lora_(?:A|B|embedding_A|embedding_B|magnitude_vector)(?:\.|\Z)")
_ENDINGS = (".weight", ".in_proj_weight", *PACKED)
# Of peft's wrapping of a layer; and of models that transformers has wrapped again inside.
_INSIDE = frozenset({"model", "base_layer"})
HEADS = list_words("head")
"""Output heads that share the input embedding when the file does not hold them."""
_INPUTS = frozenset(list_words("embeddings"))
_MOST_COMPARED = 20_000
_MOST_SHOWN = 200


def modules(tensors: Iterable[tuple[str, tuple[int, ...]]]) -> Mapping[str, str]:
    """Map module path to tensor name for every weight of two dimensions or more, empty ones out.

    Of a stack each expert's matrix is a module, `expert_of` says which. Adapters that lie inside
    are none.

    >>> dict(modules([("mlp.experts.down_proj", (2, 8, 4)), ("q.weight", (8, 8))]))
    {'mlp.experts.down_proj.0': 'mlp.experts.down_proj', \
'mlp.experts.down_proj.1': 'mlp.experts.down_proj', 'q': 'q.weight'}
    """
    names: dict[str, str] = {}
    for name, shape in tensors:
        if _ADAPTED.search(name):
            continue
        if is_stack(name, shape):
            path = name.removesuffix(".weight")
            names |= {f"{path}.{expert}": name for expert in range(shape[0])}
            continue
        for ending in _ENDINGS:
            if name.endswith(ending) and len(shape) > 1 and 0 not in shape:
                names[name.removesuffix(ending)] = name
    return MappingProxyType(names)


def expert_of(module: str, tensor: str) -> int | None:
    """Say which matrix of a stack a module is; None where its tensor is no stack.

    >>> expert_of("experts.down_proj.3", "experts.down_proj"), expert_of("q", "q.weight")
    (3, None)
    """
    stack = tensor.removesuffix(".weight")
    return int(module.removeprefix(f"{stack}.")) if module.startswith(f"{stack}.") else None


def bare_name(module: str) -> str:
    """Drop what differs between two writers of one model.

    >>> bare_name("base_model.model.bert.encoder.layer.0.attention.self.query")
    'encoder.layer.0.attention.self.query'
    >>> bare_name("language_model.model.layers.0.q_proj")
    'layers.0.q_proj'
    """
    *front, last = _SINGLE_FILE.sub("", module).split(".")
    parts = [part for part in front if part not in _INSIDE]
    start = next((k for k, part in enumerate(parts) if part not in WRAPPERS), len(parts))
    return ".".join([*parts[start:], last])


def spell(module: str) -> list[str]:
    """List a dotted path without its wrappers, and with one, two, … of them.

    >>> spell("base_model.bert.pooler.dense")
    ['pooler.dense', 'bert.pooler.dense', 'base_model.bert.pooler.dense']
    """
    parts = _SINGLE_FILE.sub("", module).removesuffix(".base_layer").split(".")
    spellings = [".".join(parts)]
    while len(parts) > 1 and parts[0] in WRAPPERS:
        del parts[0]
        spellings.insert(0, ".".join(parts))
    return list(dict.fromkeys([bare_name(spellings[-1]), *spellings]))


def group_by_bare_name(names: Iterable[str]) -> Mapping[str, tuple[str, ...]]:
    """Group module paths by what is left of them without their wrappers."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        bare = bare_name(name.removesuffix(".base_layer"))
        for key in dict.fromkeys((bare, renew(bare))):
            groups[key].append(name)
    return MappingProxyType({key: tuple(group) for key, group in groups.items()})


def list_candidates(
    module: str, stored: Mapping[str, str], groups: Mapping[str, tuple[str, ...]], *, tied: bool
) -> tuple[str, ...]:
    """List the stored modules that `module` could mean.

    Parameters
    ----------
    module
        As an adapter names it.
    stored, groups
        What `modules` and `group_by_bare_name` give of the checkpoint.
    tied
        Whether a head that is not stored may be the input embedding.
    """
    if module in stored:
        return (module,)
    candidates = groups.get(bare_name(module)) or groups.get(renew(bare_name(module)), ())
    if not candidates and tied and bare_name(module) in HEADS:
        return tuple(name for name in stored if name.rsplit(".", 1)[-1] in _INPUTS)
    return candidates


def take_only(module: str, candidates: tuple[str, ...], stored: Iterable[str], base: str) -> str:
    """Return the one candidate that there is.

    Raises
    ------
    UnknownModuleError
        There is none, with the nearest names; or there are several.
    """
    if len(candidates) == 1:
        return candidates[0]
    shown = repr(shorten(module, _MOST_SHOWN))
    if candidates:
        raise UnknownModuleError(
            f"base {base!r}: {shown} could be {' or '.join(map(repr, candidates[:4]))}; "
            "the names do not say which"
        )
    names = {bare_name(name): name for name in islice(stored, _MOST_COMPARED)}
    near = [
        names[key] for key in get_close_matches(bare_name(module)[:300], names, n=3, cutoff=0.4)
    ]
    hint = f"the nearest are {', '.join(near)}" if near else f"it has {len(names)} others"
    raise UnknownModuleError(f"base {base!r} has no weight of module {shown}; {hint}")
