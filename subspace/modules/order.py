"""The model's own order of modules, from their paths alone.

Natural order (layer 2 before layer 10) plus what models agree on about siblings: embeddings before
layers before heads, attention before the feed-forward part, query before key before value.
"""

from __future__ import annotations

import re
from functools import lru_cache

from subspace.modules.words import list_words

# Siblings in the order in which data meets them; a name that is not here comes between
# the layers and the attention, in natural order.
_SIBLINGS: tuple[tuple[str, ...], ...] = (
    list_words("embeddings"),
    list_words("positions"),
    list_words("segments"),
    ("text_encoder", "encoder"),
    ("decoder",),
    ("layers", "layer", "h", "blocks", "block"),
    (),  # all others
    ("self_attn", "attention", "attn", "self_attention", "self"),
    list_words("query"),
    list_words("fused"),
    list_words("key"),
    list_words("value"),
    list_words("output"),
    ("crossattention", "encoder_attn", "cross_attn"),
    ("mlp", "ffn", "feed_forward", "intermediate"),
    (*list_words("gate"), *list_words("gate_up")),
    list_words("up"),
    (*list_words("down"), "c_proj"),  # as GPT-2 calls the attention's too
    ("output",),
    ("norm", "ln_f"),
    ("pooler",),
    ("classifier", "score", "qa_outputs", *list_words("head")),
)
_RANK: dict[str, int] = {}
for _rank, _names in enumerate(_SIBLINGS):
    for _name in _names:
        _RANK.setdefault(_name, _rank)  # wo is Llama's output before it is T5's way down
_RANK["output"] = _SIBLINGS.index(("output",))  # of BERT's layers; RWKV's and Llama's heads too
_OTHERS = _SIBLINGS.index(())
_DIGITS = re.compile(r"([0-9]+)")


def model_order(name: str) -> tuple[object, ...]:
    """Return a key that sorts module paths in the model's own order.

    >>> sorted(["h.10.v_proj", "h.2.v_proj", "h.2.q_proj", "lm_head", "wte"], key=model_order)
    ['wte', 'h.2.q_proj', 'h.2.v_proj', 'h.10.v_proj', 'lm_head']
    """
    return tuple(_part_order(part) for part in name.split("."))


@lru_cache(maxsize=4096)
def _part_order(part: str) -> tuple[object, ...]:
    pieces = (p for p in _DIGITS.split(part) if p)
    natural = tuple((0, int(p), "") if p.isdecimal() else (1, 0, p) for p in pieces)
    return _RANK.get(part, _OTHERS), natural
