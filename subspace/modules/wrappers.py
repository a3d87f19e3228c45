"""Which stored tensor an adapter's module name means, where the two sides differ in prefixes."""

from __future__ import annotations

from collections import defaultdict
from difflib import get_close_matches
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING

from subspace.errors import UnknownModuleError
from subspace.tensorfiles import short

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# What a model is wrapped in: the name under which transformers' heads hold their backbone, and
# what peft, torch.compile and data parallelism put before it.
WRAPPERS = frozenset(
    {
        "_orig_mod",
        "albert",
        "base_model",
        "bert",
        "camembert",
        "deberta",
        "distilbert",
        "electra",
        "esm",
        "gpt_neox",
        "language_model",
        "longformer",
        "mobilebert",
        "model",
        "module",
        "mpnet",
        "roberta",
        "transformer",
        "vit",
        "xlm_roberta",
    }
)
# What GPTQ and AWQ, and compressed-tensors, call a weight of packed integers.
PACKED = (".qweight", ".weight_packed")
_ENDINGS = (".weight", ".in_proj_weight", *PACKED)
# Output heads that share the input embedding when the file does not hold them.
HEADS = ("lm_head", "lm_head.decoder", "cls.predictions.decoder", "vocab_projector")
_INPUTS = frozenset(
    {"embed_in", "embed_tokens", "shared", "tok_embeddings", "tokens_embed", "word_embeddings"}
    | {"wte"}
)
_MOST_COMPARED = 20_000


def modules(tensors: Iterable[tuple[str, tuple[int, ...]]]) -> Mapping[str, str]:
    """Map module path to tensor name for every weight of two dimensions or more, empty ones out."""
    found = {}
    for name, shape in tensors:
        for ending in _ENDINGS:
            if name.endswith(ending) and len(shape) > 1 and 0 not in shape:
                found[name.removesuffix(ending)] = name
    return MappingProxyType(found)


def bare(module: str) -> str:
    """Drop what differs between two writers of one model.

    >>> bare("base_model.model.bert.encoder.layer.0.attention.self.query")
    'encoder.layer.0.attention.self.query'
    >>> bare("language_model.model.layers.0.q_proj") == bare("model.language_model.layers.0.q_proj")
    True
    """
    parts = module.split(".")
    while len(parts) > 1 and parts[0] in WRAPPERS:
        del parts[0]
    return ".".join([p for p in parts[:-1] if p not in {"model", "base_layer"}] + parts[-1:])


def by_bare_name(names: Iterable[str]) -> Mapping[str, tuple[str, ...]]:
    """Group module paths by what is left of them without their wrappers."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[bare(name.removesuffix(".base_layer"))].append(name)
    return MappingProxyType({key: tuple(group) for key, group in groups.items()})


def fitting(
    module: str, stored: Mapping[str, str], groups: Mapping[str, tuple[str, ...]], *, tied: bool
) -> tuple[str, ...]:
    """List the stored modules that `module` could mean.

    Parameters
    ----------
    module
        As an adapter names it.
    stored, groups
        What `modules` and `by_bare_name` found in the checkpoint.
    tied
        Whether a head that is not stored may be the input embedding.
    """
    if module in stored:
        return (module,)
    found = groups.get(bare(module), ())
    if not found and tied and bare(module) in HEADS:
        return tuple(name for name in stored if name.rsplit(".", 1)[-1] in _INPUTS)
    return found


def only(module: str, found: tuple[str, ...], stored: Iterable[str], base: str) -> str:
    """Return the one module that was found.

    Raises
    ------
    UnknownModuleError
        None was, with the nearest names; or several were.
    """
    if len(found) == 1:
        return found[0]
    if found:
        raise UnknownModuleError(
            f"base {base!r}: {short(module)} could be {' or '.join(map(repr, found[:4]))}; "
            "the names do not say which"
        )
    names = {bare(name): name for name in islice(stored, _MOST_COMPARED)}
    near = [names[key] for key in get_close_matches(bare(module)[:300], names, n=3, cutoff=0.4)]
    hint = f"the nearest are {', '.join(near)}" if near else f"it has {len(names)} others"
    raise UnknownModuleError(f"base {base!r} has no weight of module {short(module)}; {hint}")
