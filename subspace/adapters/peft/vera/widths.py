"""The d_in of each layer that VeRA adapts, which its files do not store, from the others' d_out.

In a transformer what reads the residual stream has its width h, and what writes to it has
d_out = h; the output of attention reads as many numbers as the query gives, the output of the
feed-forward part as many as its first layer gives. The widest of them must be the projection's own
width: a model that is built otherwise does not pass.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from subspace.modules.words import NAMINGS, words_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from subspace.modules.words import Role

# Not diffusers': of its second attention, keys and values read another model's output.
_FAMILIES = (
    *("bert", "llama", "bart", "distilbert", "t5", "llama-original"),
    *("gpt_neox", "phi3", "mpt", "timm", "gpt2", "baichuan"),
)
_FIRST: tuple[Role, ...] = ("query", "key", "value", "fused", "gate", "up", "gate_up")
_WORDS = {w for name in _FAMILIES for role in _FIRST for w in words_of(NAMINGS[name], role)}
_READS = re.compile(rf"(^|\.)({'|'.join(map(re.escape, sorted(_WORDS)))})$")
# What writes to the residual stream -> where, in its place, the layer is whose output it reads.
_WRITES = tuple(
    (re.compile(rf"(^|\.)({pattern})$"), sources)
    for pattern, sources in (
        (r"o_proj|out_proj", ("q_proj",)),
        (r"out_lin", ("q_lin",)),
        (r"attention\.wo", ("attention.wq",)),
        (r"o", ("q",)),
        (r"attention\.output\.dense", ("attention.self.query",)),
        (r"down_proj", ("up_proj", "gate_proj")),
        (r"fc2", ("fc1",)),
        (r"lin2", ("lin1",)),
        (r"w2", ("w1", "w3")),
        (
            r"DenseReluDense\.wo",
            ("DenseReluDense.wi", "DenseReluDense.wi_0", "DenseReluDense.wi_1"),
        ),
        (r"dense_4h_to_h", ("dense_h_to_4h",)),
        (r"mlp\.c_proj", ("mlp.c_fc",)),
        (r"output\.dense", ("intermediate.dense",)),
    )
)
# ChatGLM's first layer gives gate and up in one, of which the second reads half; of Qwen's first
# generation w1 and w2 both read the residual stream.
_OTHERWISE = re.compile(r"(^|\.)(encoder\.layers\.[0-9]+\.mlp\.dense_4h_to_h|h\.[0-9]+\.mlp\.w2)$")
_FEEDS = re.compile(r"(^|\.)(feed_forward|ffn|mlp|channel_mix)\.")
_PROJECTED = frozenset({"key", "value", "receptance"})
_NUMBER = re.compile(r"(?<![^.])[0-9]+(?![^.])")
# Keys and values of these read another stack, whose width may be another.
_CROSS = re.compile(r"encoder_attn|cross_?attn|cross_?attention|EncDecAttention", re.IGNORECASE)


def infer_widths(d_outs: Mapping[str, int], widest: int | None) -> dict[str, int]:
    """Give each module's d_in; those of which it does not follow are left out.

    Parameters
    ----------
    d_outs
        Module path -> d_out, of all adapted modules.
    widest
        The largest d_in of them; None where the file does not tell, and then nothing is taken for
        it: what reads the residual stream needs another layer that writes to it.

    >>> infer_widths({"h.0.q_proj": 12, "h.0.k_proj": 4, "h.0.o_proj": 8}, widest=12)
    {'h.0.o_proj': 12, 'h.0.q_proj': 8, 'h.0.k_proj': 8}
    >>> infer_widths({"h.0.q_proj": 12, "h.0.v_proj": 4}, widest=8)
    {'h.0.q_proj': 8, 'h.0.v_proj': 8}
    >>> infer_widths({"h.0.q_proj": 8, "h.0.down_proj": 8}, widest=20)
    {'h.0.q_proj': 8, 'h.0.down_proj': 20}
    >>> infer_widths({"h.0.q_proj": 12, "h.0.o_proj": 8}, widest=9)
    {}
    """
    widths: dict[str, int] = {}
    streams: set[int] = set()
    readers: dict[str, set[int]] = {}  # by the last part of the path
    for module, d_out in d_outs.items():
        sources = _sources(module)
        if sources:
            streams.add(d_out)
            given = [d_outs[source] for source in sources if source in d_outs]
            if given:
                widths[module] = given[0]
        elif _reads(module):
            readers.setdefault(module.rpartition(".")[2], set()).add(d_out)
    # One width for all, if there is nothing among them that may be the widest instead.
    alone = all(map(_reads, d_outs)) and all(len(each) == 1 for each in readers.values())
    if widest is not None and not streams and alone:
        streams.add(widest)
    if len(streams) == 1:
        (stream,) = streams
        widths |= {m: stream for m in d_outs if not _sources(m) and _reads(m)}
    rest = [module for module in d_outs if module not in widths]
    alike = len({_NUMBER.sub("#", module) for module in rest}) == 1
    # One of them must be the widest, and layers that differ in their number are alike.
    if alike and widest is not None and widths and max(widths.values()) < widest:
        widths |= dict.fromkeys(rest, widest)
    return widths if widths and widest in (None, max(widths.values())) else {}


def _reads(module: str) -> bool:
    if _FEEDS.search(module) and module.rpartition(".")[2] in _PROJECTED:
        return False  # RWKV's: its value reads what its key gives, as wide as that is
    crossed = _CROSS.search(module) and module.rpartition(".")[2] not in {"q_proj", "query", "q"}
    return not crossed and _READS.search(module) is not None


def _sources(module: str) -> list[str]:
    for pattern, sources in () if _OTHERWISE.search(module) else _WRITES:
        end = pattern.search(module)
        if end is not None:
            return [module[: end.start(2)] + source for source in sources]
    return []
