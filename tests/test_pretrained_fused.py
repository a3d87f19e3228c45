"""Fused projections, split to the blocks that the model itself takes out of them."""

import json

import pytest
import torch
import transformers
from safetensors.torch import save_file
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from subspace.errors import FormatError, ShapeError, UnknownModuleError
from subspace.pretrained import open_pretrained

SMALL = {"vocab_size": 30, "num_hidden_layers": 1, "pad_token_id": None}


def phi3():
    sizes = {"num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 16}
    config = transformers.Phi3Config(**SMALL, **sizes, intermediate_size=20)
    return transformers.Phi3ForCausalLM(config), "model.layers.0.self_attn"


def gpt_neox():
    sizes = {"num_attention_heads": 4, "hidden_size": 16, "intermediate_size": 20}
    config = transformers.GPTNeoXConfig(**SMALL, **sizes, attention_bias=False)
    return transformers.GPTNeoXForCausalLM(config), "gpt_neox.layers.0.attention"


def gpt2():
    config = transformers.GPT2Config(vocab_size=30, n_embd=16, n_layer=1, n_head=4, n_positions=8)
    return transformers.GPT2LMHeadModel(config), "transformer.h.0.attn"


def bigcode(multi_query):
    sizes = {"vocab_size": 30, "n_embd": 16, "n_layer": 1, "n_head": 4, "n_positions": 8}
    config = transformers.GPTBigCodeConfig(**sizes, multi_query=multi_query)
    return transformers.GPTBigCodeForCausalLM(config), "transformer.h.0.attn"


def bloom():
    config = transformers.BloomConfig(vocab_size=30, hidden_size=16, n_layer=1, n_head=4)
    return transformers.BloomForCausalLM(config), "transformer.h.0.self_attention"


def falcon(**options):
    sizes = {"num_attention_heads": 4, "hidden_size": 16}
    config = transformers.FalconConfig(**SMALL, **sizes, **options)
    return transformers.FalconForCausalLM(config), "transformer.h.0.self_attention"


MODELS = {
    "phi3": phi3,
    "gpt2": gpt2,
    "gpt_neox": gpt_neox,
    "bloom": bloom,
    "bigcode, one key": lambda: bigcode(True),
    "bigcode, all keys": lambda: bigcode(False),
    "falcon, one key": lambda: falcon(multi_query=True),
    "falcon, all keys": lambda: falcon(multi_query=False),
    "falcon, grouped": lambda: falcon(new_decoder_architecture=True, num_kv_heads=2),
}


def watched(model, attention, monkeypatch):
    """Run the model; return what went into the fused projection, and its q, k, v per head."""
    seen = {}
    fused = next(
        m
        for name, m in model.get_submodule(attention).named_modules()
        if name in {"qkv_proj", "query_key_value", "c_attn"}
    )
    if getattr(fused, "bias", None) is not None:
        torch.nn.init.zeros_(fused.bias)
    fused.register_forward_hook(lambda _, args, __: seen.update(x=args[0].detach()))

    def spy(_, query, key, value, *__, **___):
        seen.setdefault("qkv", [t.detach() for t in (query, key, value)])
        return query.transpose(1, 2).contiguous(), None

    owner = type(model.get_submodule(attention))
    split = next((n for n in ("_reshape", "_split_heads") if hasattr(owner, n)), None)
    if split is None or model.config.model_type == "gpt_neox":
        monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, "spy", spy)
        model.config._attn_implementation = "spy"
        family = __import__(type(model).__module__, fromlist=["x"])
        if hasattr(family, "apply_rotary_pos_emb"):
            monkeypatch.setattr(family, "apply_rotary_pos_emb", lambda q, k, *_, **__: (q, k))
    else:
        original = getattr(owner, split)

        def record(self, tensor):
            out = original(self, tensor)
            swap = (lambda t: t) if split == "_reshape" else (lambda t: t.transpose(1, 2))
            seen.setdefault("qkv", [swap(t.detach()) for t in out])
            return out

        monkeypatch.setattr(owner, split, record)
    model.eval()(torch.arange(6)[None], use_cache=False)
    return seen["x"][0], [t[0] for t in seen["qkv"]]  # each (heads, tokens, size)


@pytest.mark.parametrize("kind", MODELS)
def test_q_k_and_v_are_what_the_model_takes_out(kind, tmp_path, monkeypatch):
    torch.manual_seed(0)
    model, attention = MODELS[kind]()
    model.save_pretrained(tmp_path)
    base = open_pretrained(tmp_path)
    x, qkv = watched(model, attention, monkeypatch)
    for name, heads in zip(("q_proj", "k_proj", "v_proj"), qkv, strict=True):
        weight = base[f"{attention}.{name}"]
        assert weight.shape == tuple(weight.W.shape)
        got = (x @ weight.W.T).unflatten(1, (-1, heads.shape[2])).transpose(0, 1)
        repeats = len(heads) // len(got)  # heads that share a key
        torch.testing.assert_close(got.repeat_interleave(repeats, 0), heads, atol=1e-5, rtol=1e-4)


def test_gate_and_up_are_halves_and_views(tmp_path):
    model, _ = phi3()
    model.save_pretrained(tmp_path)
    base = open_pretrained(tmp_path)
    fused = model.model.layers[0].mlp.gate_up_proj
    x = torch.randn(16)
    gate, up = fused(x).chunk(2, dim=-1)  # as Phi3MLP does
    torch.testing.assert_close(base["model.layers.0.mlp.gate_proj"].W @ x, gate)
    torch.testing.assert_close(base["layers.0.mlp.up_proj"].W @ x, up)
    whole = base["model.layers.0.mlp.gate_up_proj"]
    assert base["model.layers.0.mlp.gate_proj"].W.data_ptr() == whole.W.data_ptr()
    with pytest.raises(ShapeError, match="the update is 40 x 16, W is 20 x 16"):
        base.get("model.layers.0.mlp.up_proj", (40, 16))


def test_multihead_attention_of_torch(tmp_path):
    attention = torch.nn.MultiheadAttention(6, 2, bias=False)
    state = {f"layer.self_attn.{n}": t for n, t in attention.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    base = open_pretrained(tmp_path)
    q, k, v = attention.in_proj_weight.chunk(3)  # torch.nn.functional._in_projection_packed
    for name, want in (("q_proj", q), ("k_proj", k), ("v_proj", v)):
        assert torch.equal(base[f"layer.self_attn.{name}"].W, want)
    assert torch.equal(base["layer.self_attn"].W, attention.in_proj_weight)


def test_a_block_named_after_the_fused_module(tmp_path):
    model, attention = gpt2()
    model.save_pretrained(tmp_path)
    weight = open_pretrained(tmp_path)[f"{attention}.c_attn.k"]
    assert weight.stored_transposed
    assert torch.equal(weight.W, model.transformer.h[0].attn.c_attn.weight[:, 16:32].T)


def test_a_fused_update_on_a_base_that_stores_the_parts(tmp_path):
    sizes = {"num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 16}
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**SMALL, **sizes, intermediate_size=20)
    )
    model.save_pretrained(tmp_path)
    base = open_pretrained(tmp_path)
    at = model.model.layers[0].self_attn
    fused = base.get("model.layers.0.self_attn.qkv_proj", (32, 16))
    assert torch.equal(fused.W, torch.cat([at.q_proj.weight, at.k_proj.weight, at.v_proj.weight]))
    mlp = model.model.layers[0].mlp
    want = torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight])
    assert torch.equal(base["layers.0.mlp.gate_up_proj"].W, want)
    with pytest.raises(ShapeError):
        base.get("model.layers.0.self_attn.qkv_proj", (48, 16))
    with pytest.raises(UnknownModuleError):
        base["model.layers.7.self_attn.qkv_proj"]


def test_parts_of_different_kinds_are_not_joined(tmp_path):
    t = {"mlp.gate_proj.weight": torch.ones(3, 2), "mlp.up_proj.weight": torch.ones(3, 2).half()}
    save_file(t, tmp_path / "model.safetensors")
    with pytest.raises(UnknownModuleError, match=r"nearest are mlp\.\w+_proj, mlp\.\w+_proj"):
        open_pretrained(tmp_path)["mlp.gate_up_proj"]


@pytest.mark.parametrize(
    ("fused", "config"),
    [
        ("qkv_proj", {"model_type": "codegen", "n_head": 4, "n_embd": 16}),
        ("qkv_proj", {"model_type": "phi3"}),
        ("qkv_proj", {"model_type": "phi3", "num_attention_heads": 5, "hidden_size": 16}),
        ("query_key_value", {"model_type": "strange", "num_attention_heads": 4}),
        ("query_key_value", {"model_type": ["gpt_neox"]}),
        ("query_key_value", {"model_type": "gpt_neox", "num_attention_heads": "4"}),
        ("c_attn", {}),
    ],
)
def test_a_layout_that_is_not_known_is_refused(fused, config, tmp_path):
    save_file({f"h.0.attn.{fused}.weight": torch.ones(48, 16)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    base = open_pretrained(tmp_path)
    assert base[f"h.0.attn.{fused}"].shape == (48, 16)
    with pytest.raises(FormatError, match=r"how its 48 rows hold the projections is not known"):
        base["h.0.attn.q_proj"]


def test_cross_attention_of_gpt2_is_not_taken_for_three(tmp_path):
    t = {"h.0.crossattention.c_attn.weight": torch.ones(12, 24)}
    save_file(t, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(FormatError, match="24 rows"):
        open_pretrained(tmp_path)["h.0.crossattention.q_proj"]
