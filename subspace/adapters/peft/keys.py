"""PEFT's tensor names: which factor of which module each is, and why the others are set aside."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from subspace.adapters.formats.diffusers import COMFY
from subspace.adapters.set_aside import SetAside, SetAsideReason
from subspace.adapters.source import FLOATS, LONGEST_NAME
from subspace.errors import FormatError
from subspace.modules.words import TOOL_WRAPPERS, list_words
from subspace.tensorfiles import FLOAT8

if TYPE_CHECKING:
    from collections.abc import Iterable

    from subspace.adapters.peft.config import LoraConfig
    from subspace.tensorfiles import TensorFile

_SLOTS = {
    "lora_A": "A",
    "lora_B": "B",
    "lora_embedding_A": "embedding_A",
    "lora_embedding_B": "embedding_B",
    "lora_magnitude_vector": "magnitude",
    "lora_diag": "diagonal",
    "lora_monteclora_sampler": "sampler",
    "lora_arrow": "arrow",
    "lora_velora_embed": "velora",
    "trainable_tokens_delta": "tokens",
    "trainable_tokens_original": "tokens",
    "modules_to_save": "saved",
}
# Wrappers that PEFT and torch put around a module: no part of the base model's path.
_WRAPPERS = {
    "base_layer",
    "token_adapter",
    *TOOL_WRAPPERS,
}
_PREFIX = "base_model.model."
# What tools put in front of all that: of Lightning, torch.compile and data parallelism.
_FRONT = re.compile(rf"\A(?:(?:{'|'.join((*TOOL_WRAPPERS, 'module', 'model'))})\.)+(?={_PREFIX})")
# Common names of input and output embeddings, which PEFT saves whole if they were resized.
_EMBEDDINGS = {
    *(word.rpartition(".")[2] for word in (*list_words("embeddings"), *list_words("head"))),
    "embedding",
} - {"output"}  # which is a part of BERT's layers
# What transformers calls the layers that a task adds on top, which a task_type saves whole.
_HEADS = frozenset(
    {"classifier", "pre_classifier", "score", "qa_outputs", "classification_head", "start_logits"}
    | {"sequence_summary", "projector", "logits_proj"}
)
# A grouped convolution's B is laid out in full when read, which multiplies its bytes by the groups.
_LARGEST_UNGROUPED = 2**28


@dataclass(frozen=True, kw_only=True)
class Key:
    """A tensor's name taken apart."""

    name: str
    module: str  # the base model's path
    target: str  # the path that PEFT matched its patterns against
    slot: str  # "A", "B", "magnitude", ..., or "" if it is no part of an update
    adapter: str | None  # its name, where the tensor's name carries one
    leaf: str  # "weight", "bias", ...


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The two tensors of one update."""

    a: str
    b: str
    target: str
    embedding: bool
    groups: int = 1
    diagonal: str | None = None


def parse_name(name: str) -> Key:
    """Take a tensor's name apart; it never fails.

    >>> key = parse_name("base_model.model.h.0.q.lora_A.default.weight")
    >>> key.module, key.slot, key.adapter, key.leaf
    ('h.0.q', 'A', 'default', 'weight')
    >>> parse_name("base_model.model.score.weight").slot
    ''
    """
    parts = strip_prefix(name).removeprefix(COMFY).split(".")
    at = next((i for i in reversed(range(len(parts))) if parts[i] in _SLOTS), None)
    if at is None:
        module, tail, slot = parts[:-1], parts[-1:], ""
    else:
        module, tail, slot = parts[:at], parts[at + 1 :], _SLOTS[parts[at]]
    adapter: str | None = None
    leaf = tail[-1] if tail else ""
    if slot in {"A", "B"}:
        if len(tail) == 2 and leaf in {"weight", "bias"}:
            adapter = tail[0]
        elif tail not in (["weight"], ["bias"]):
            slot = ""
    elif slot in {"saved", "sampler", "arrow", "velora"}:
        adapter = tail[0] if slot == "saved" and len(tail) > 1 else None
    elif slot:
        named = [part for part in tail if part != "weight"]
        adapter, leaf = (named[0] if named else None), ""
        slot = slot if len(named) < 2 else ""
    if slot in {"A", "B"} and leaf == "bias":
        slot = "bias"
    target = module[: module.index("base_layer")] if "base_layer" in module else module
    return Key(
        name=name,
        module=strip_wrappers(module),
        target=strip_wrappers(target),
        slot=slot,
        adapter=adapter,
        leaf=leaf,
    )


def strip_prefix(name: str) -> str:
    """Drop PEFT's prefix of a model, and what tools put in front of it.

    It stands within a path where PEFT's model is one part of a larger one, as in InternVL.

    >>> strip_prefix("_forward_module.base_model.model.h.0.q"), strip_prefix("model.h.0.q")
    ('h.0.q', 'model.h.0.q')
    >>> strip_prefix("language_model.base_model.model.h.0.q")
    'language_model.h.0.q'
    """
    bare = _FRONT.sub("", name, count=1).removeprefix(_PREFIX)
    return bare.replace(f".{_PREFIX}", ".", 1)


def strip_wrappers(parts: Iterable[str]) -> str:
    """Join a path without what PEFT and torch wrap around a module."""
    return ".".join(part for part in parts if part not in _WRAPPERS)


def pair_factors(
    keys: Iterable[Key], lora: LoraConfig, tensors: TensorFile
) -> tuple[dict[str, Pair], list[Key]]:
    """Pair the factors module by module; return the pairs and the keys that are none.

    Raises
    ------
    FormatError
        A factor without its partner, two for one place, or shapes that do not fit.
    """
    slots: dict[str, dict[str, Key]] = {}
    rest = []
    for key in keys:
        if len(key.name) > LONGEST_NAME:
            raise FormatError(f"{tensors.path}: tensor name {key.name[:40]!r}… is too long")
        factor = key.slot in {"A", "B", "embedding_A", "embedding_B", "diagonal"}
        if not factor or _is_block_diagonal(key, lora):
            rest.append(key)
            continue
        place = slots.setdefault(key.module, {})
        if key.slot in place:
            raise FormatError(
                f"{tensors.path}: {place[key.slot].name!r} and {key.name!r} are the same factor of "
                f"module {key.module!r}"
            )
        place[key.slot] = key
    pairs = {}
    for module, place in slots.items():
        embedding = "embedding_A" in place or "embedding_B" in place
        if embedding and ("A" in place or "B" in place):
            raise FormatError(
                f"{tensors.path}: module {module!r} has factors of an embedding and of a layer: "
                f"{', '.join(repr(key.name) for key in place.values())}"
            )
        pairs[module] = _pair(place, embedding, tensors)
    return pairs, rest


def _pair(place: dict[str, Key], embedding: bool, tensors: TensorFile) -> Pair:
    path = tensors.path
    prefix = "embedding_" if embedding else ""
    a, b = place.get(prefix + "A"), place.get(prefix + "B")
    if a is None or b is None:
        have = a or b or next(iter(place.values()))
        old, new = ("lora_", "lora_") if a is None and b is None else ("_A", "_B")
        partner = have.name.replace(*((old, new) if a else (new, old)))
        raise FormatError(
            f"{path}: {have.name!r} has no partner {partner!r}; the file is incomplete"
        )
    shape_a, shape_b = tensors.headers[a.name].shape, tensors.headers[b.name].shape
    both = f"{path}: {a.name!r} {shape_a} and {b.name!r} {shape_b}"
    for key in (a, b):
        header = tensors.headers[key.name]
        if not 2 <= len(header.shape) <= (2 if embedding else 5) or 0 in header.shape:
            raise FormatError(
                f"{path}: {key.name!r} has shape {header.shape}, which is no factor "
                "(shards of DeepSpeed or FSDP that were not gathered look so)"
            )
        if header.dtype not in (*FLOATS, *FLOAT8):
            raise FormatError(
                f"{path}: {key.name!r} holds {header.dtype}; factors of {', '.join(FLOATS)}, "
                f"{' and '.join(FLOAT8)} are read, convert it to one"
            )
    if len(shape_a) != len(shape_b) or any(n != 1 for n in shape_b[2:]):
        raise FormatError(f"{both} are not the two factors of one layer")
    rank, width = shape_a[0], shape_b[1]
    groups = 1 if rank == width else _groups(shape_a, shape_b)
    if groups is None:
        raise FormatError(f"{both} have different ranks, {rank} and {width}")
    if groups > 1 and shape_b[0] * rank > _LARGEST_UNGROUPED:
        raise FormatError(f"{both}: {groups} groups of a convolution are too many to lay out")
    diagonal = place.get("diagonal")
    if diagonal is not None and tensors.headers[diagonal.name].shape != (rank,):
        raise FormatError(f"{path}: {diagonal.name!r} is not of shape ({rank},)")
    return Pair(
        a=a.name,
        b=b.name,
        target=a.target,
        embedding=embedding,
        groups=groups,
        diagonal=diagonal.name if diagonal else None,
    )


def _groups(shape_a: tuple[int, ...], shape_b: tuple[int, ...]) -> int | None:
    """Read the groups of a convolution off B (d_out, r / groups, 1, …); None if there are none."""
    if len(shape_a) < 3 or shape_a[0] % shape_b[1]:
        return None
    groups = shape_a[0] // shape_b[1]
    return groups if shape_b[0] % groups == 0 and shape_a[1] % groups == 0 else None


def _is_block_diagonal(key: Key, lora: LoraConfig) -> bool:
    return any(pattern in key.module for pattern in lora.block_diagonal)  # not read yet


_REASONS = {
    "magnitude": SetAsideReason.MAGNITUDE,
    "bias": SetAsideReason.UPDATE_BIAS,
    "tokens": SetAsideReason.TOKENS,
    "saved": SetAsideReason.SAVED_MODULE,
    "sampler": SetAsideReason.MONTECLORA,
    "arrow": SetAsideReason.ARROW,
    "velora": SetAsideReason.VELORA,
}


def set_aside(key: Key, lora: LoraConfig, tensors: TensorFile) -> SetAside:
    """Say why a tensor is no factor, as far as that is understood."""
    reason, detail = _reason(key, lora), ""
    if reason is SetAsideReason.BASE_BIAS:
        detail = repr(lora.bias)
    module = None if reason is SetAsideReason.NOT_UNDERSTOOD else key.module
    return SetAside.of(key.name, tensors.headers[key.name], reason, detail=detail, module=module)


def _reason(key: Key, lora: LoraConfig) -> SetAsideReason:
    if key.slot in _REASONS:
        return _REASONS[key.slot]
    if _is_block_diagonal(key, lora):
        return SetAsideReason.BLOCK_DIAGONAL
    if any(f".{m}." in f".{key.module}." for m in lora.modules_to_save):
        return SetAsideReason.SAVED_MODULE
    last = key.module.rpartition(".")[2]
    if lora.ties_saved and key.leaf == "weight" and last in _EMBEDDINGS:
        return SetAsideReason.SAVED_MODULE
    if key.leaf in {"weight", "bias"} and (last in _HEADS or key.module.split(".")[0] in _HEADS):
        return SetAsideReason.SAVED_MODULE
    if key.leaf == "bias" and (lora.bias == "all" or lora.bias.endswith("_only")):
        return SetAsideReason.BASE_BIAS
    wrapped = "base_layer" in strip_prefix(key.name).split(".")
    if key.leaf == "weight" and (wrapped or key.module.rpartition(".")[2] in _EMBEDDINGS):
        return SetAsideReason.SAVED_EMBEDDING
    return SetAsideReason.NOT_UNDERSTOOD
