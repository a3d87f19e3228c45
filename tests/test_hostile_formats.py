"""Any tensors under the names of a format are read in full, or refused in one line."""

from __future__ import annotations

import json
from contextlib import suppress

import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

import subspace

ENDS = (
    *("lora_A", "lora_B", "weight", "conv.weight", "bias"),
    *("lora_a", "lora_b", "m"),
    *("lora_a.weight", "lora_b.weight", "magnitude"),
    *("adapter.linear_in.weight", "adapter.linear_out.weight", "adapter.layer_norm.weight"),
    *("adapters.1.linear_in.weight", "adapters.1.linear_out.weight"),
    *("adapter.adapter_q.linear_in.weight", "adapter.weight_magnitude"),
)
PATHS = ("", "module.", "a.", "conv1.", "layers.0.attn.q_proj.", "module.module.b.0.linear_qkv.")
NAMES = st.tuples(st.sampled_from(PATHS), st.sampled_from(ENDS)).map("".join)
SHAPES = st.lists(st.integers(0, 3), max_size=4)
TENSORS = st.dictionaries(
    NAMES, st.tuples(SHAPES, st.sampled_from(["float32", "bfloat16", "int32"])), max_size=5
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 9) | st.floats() | st.text("a.0", max_size=3),
    lambda inner: st.lists(inner, max_size=2),
    max_leaves=3,
)
CONFIG = st.dictionaries(
    st.sampled_from(["fine_tune_type", "use_dora", "model", "lora_alpha", "r"]), VALUES, max_size=3
)
PARAMETERS = VALUES | st.dictionaries(st.sampled_from(["scale", "alpha", "rank"]), VALUES)
BASE = st.fixed_dictionaries(
    {"model_type": st.sampled_from(["llama", "qwen2", "x", None, 3])},
    optional={"num_attention_heads": VALUES, "num_key_value_heads": VALUES},
)


@given(
    tensors=TENSORS,
    config=CONFIG | st.none(),
    parameters=PARAMETERS | st.none(),
    base=BASE | st.none(),
    alpha=st.sampled_from([None, 0, 4, 0.5]),
    pattern=st.sampled_from(
        [None, None, "A={m*}.lora_a,B={m*}.lora_b", "A={m*}.lora_A,B={m*}.lora_B,scale={m*}.bias"]
    ),
)
def test_any_tensors_and_any_config(
    tmp_path_factory, tensors, config, parameters, base, alpha, pattern
):
    folder = tmp_path_factory.mktemp("any")
    save_file(
        {n: torch.ones(shape, dtype=getattr(torch, t)) for n, (shape, t) in tensors.items()},
        folder / "x.safetensors",
    )
    if config is not None:
        config |= {} if parameters is None else {"lora_parameters": parameters}
        (folder / "adapter_config.json").write_text(json.dumps(config))
    if base is not None:
        (folder / "config.json").write_text(json.dumps(base))
    with suppress(subspace.SubspaceError):
        adapter = subspace.load(folder / "x.safetensors", alpha=alpha, pattern=pattern)
        for update in adapter.values():
            assert tuple(update.delta().shape) == update.shape
            assert isinstance(update.scale, float)
        told = {t.name for t in adapter.set_aside}
        assert told <= set(tensors)
