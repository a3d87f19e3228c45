"""The model's own order of modules, from their paths alone.

Natural order (layer 2 before layer 10) plus what models agree on about siblings: embeddings before
layers before heads, attention before the feed-forward part, query before key before value.
"""

from __future__ import annotations

import re
from functools import lru_cache

# Siblings in the order in which data meets them; a name that is not here comes between
# the layers and the attention, in natural order.
_SIBLINGS = (
    (
        "embeddings",
        "embed_tokens",
        "wte",
        "tok_embeddings",
        "word_embeddings",
        "shared",
        "embed_in",
    ),
    ("wpe", "position_embeddings", "embed_positions"),
    ("token_type_embeddings",),
    ("text_encoder", "encoder"),
    ("decoder",),
    ("layers", "layer", "h", "blocks", "block"),
    (),  # all others
    ("self_attn", "attention", "attn", "self_attention", "self"),
    ("q_proj", "query", "q", "q_lin", "wq", "to_q"),
    ("qkv_proj", "query_key_value", "c_attn", "in_proj"),
    ("k_proj", "key", "k", "k_lin", "wk", "to_k"),
    ("v_proj", "value", "v", "v_lin", "wv", "to_v"),
    ("o_proj", "out_proj", "o", "out_lin", "wo", "to_out", "dense"),
    ("crossattention", "encoder_attn", "cross_attn"),
    ("mlp", "ffn", "feed_forward", "intermediate"),
    ("gate_proj", "gate_up_proj", "w1"),
    ("up_proj", "c_fc", "fc1", "lin1", "w3", "dense_h_to_4h", "wi", "wi_0", "wi_1"),
    ("down_proj", "c_proj", "fc2", "lin2", "w2", "dense_4h_to_h"),
    ("output",),
    ("norm", "ln_f"),
    ("pooler",),
    ("classifier", "score", "qa_outputs", "lm_head", "embed_out"),
)
_RANK = {name: rank for rank, names in enumerate(_SIBLINGS) for name in names}
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
