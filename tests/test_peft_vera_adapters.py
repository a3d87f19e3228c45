"""VeRA as peft writes it is read with the update that peft merges, to 1e-6."""

from __future__ import annotations

import warnings

import peft
import pytest
import torch
import transformers
from peft.tuners.vera.layer import VeraLayer
from safetensors.torch import load_file, save_file

import subspace
from subspace.adapters.peft.vera.widths import infer_widths
from tests.support.peft_adapters import (
    PREFIX,
    assert_same_update,
    edited,
    merged_deltas,
    tiny_bert,
    tiny_gpt2,
    two_linears,
    written,
)

pytestmark = pytest.mark.filterwarnings("ignore:::peft", "ignore:::transformers")


def made(model, seed=0, **config):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = peft.get_peft_model(model, peft.VeraConfig(**{"r": 3} | config))
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in wrapped.named_parameters():
        if "vera_lambda" in name:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator))
    return wrapped


def tiny_llama(**config):
    torch.manual_seed(1)
    config = {
        "hidden_size": 12, "intermediate_size": 20, "num_hidden_layers": 2, "vocab_size": 31,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4,
    } | config  # fmt: skip
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**config))


def tiny_t5():
    torch.manual_seed(1)
    config = transformers.T5Config(
        d_model=12, d_kv=4, d_ff=20, num_layers=2, num_heads=5, vocab_size=31,
        decoder_start_token_id=0,
    )  # fmt: skip
    return transformers.T5ForConditionalGeneration(config)


@pytest.mark.parametrize(
    ("model", "targets"),
    [
        (tiny_bert, ["query", "value"]),
        (tiny_gpt2, ["c_attn"]),  # stored transposed
        (tiny_gpt2, ["c_attn", "c_fc", "mlp.c_proj"]),
        (tiny_llama, ["q_proj", "v_proj"]),
        (tiny_llama, ["q_proj", "o_proj"]),
        (tiny_llama, ["q_proj", "down_proj"]),  # of which one must be as wide as the projection
        (tiny_llama, "all-linear"),
    ],
)
def test_vera(model, targets, tmp_path):
    wrapped = made(model(), target_modules=targets)
    adapter = subspace.load(written(wrapped, tmp_path), strict=True)
    assert_same_update(adapter, merged_deltas(wrapped, VeraLayer))
    assert (adapter.format, str(adapter.method)) == ("PEFT VeRA", "VeRA")
    assert {update.scale for update in adapter.values()} == {1.0}
    assert {info.rank for info in adapter.updates.values()} == {3}
    assert adapter.set_aside == ()
    assert "share their directions before any training" in adapter.notes[0]


def test_bert_in_full(tmp_path):
    wrapped = made(tiny_bert(), target_modules=r".*encoder\.layer.*(query|key|value|dense)")
    adapter = subspace.load(written(wrapped, tmp_path), strict=True)
    assert_same_update(adapter, merged_deltas(wrapped, VeraLayer))
    assert {info.shape[1] for info in adapter.updates.values()} == {12, 20}


@pytest.mark.parametrize(
    ("model", "targets", "unknown"),
    [
        (two_linears, ["0", "2"], "0, 2"),  # names tell nothing
        (tiny_llama, ["o_proj", "down_proj"], "down_proj"),  # up_proj is not there to tell
        (tiny_gpt2, ["c_attn", "c_proj"], "attn.c_proj"),
        (tiny_t5, ["k", "v"], "EncDecAttention.k"),  # reads the other stack
    ],
)
def test_a_width_that_does_not_follow_is_not_guessed(model, targets, unknown, tmp_path):
    """… and the way out works: what peft converts to LoRA is read with the same update."""
    wrapped = made(model(), target_modules=targets)
    folder = written(wrapped, tmp_path / "vera")
    with pytest.raises(subspace.SubspaceError, match="does not store a layer's d_in") as raised:
        subspace.load(folder)
    assert unknown in str(raised.value)
    assert "peft.save_as_lora(FOLDER, model, rank=3)" in str(raised.value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peft.save_as_lora(tmp_path / "lora", wrapped, rank=3)
    adapter = subspace.load(tmp_path / "lora")
    assert_same_update(adapter, merged_deltas(wrapped, VeraLayer), rtol=1e-5)


def test_a_model_that_is_built_otherwise_does_not_pass():
    """The widest d_in that follows must be the projection's own width."""
    assert infer_widths({"a.q_proj": 8, "a.o_proj": 6}, widest=8) == {"a.q_proj": 6, "a.o_proj": 8}
    assert infer_widths({"a.q_proj": 8, "a.o_proj": 6}, widest=10) == {}
    assert infer_widths({"a.q_proj": 8, "b.q_proj": 4}, widest=8) == {}  # two stacks
    assert infer_widths({"a.o_proj": 8, "b.o_proj": 4, "a.q_proj": 8, "b.q_proj": 4}, widest=8) == {
        "a.o_proj": 8, "b.o_proj": 4
    }  # fmt: skip
    assert infer_widths({}, widest=8) == {}
    # The second layer of ChatGLM reads half of what the first gives, gate times up.
    chatglm = {f"encoder.layers.0.mlp.dense_{n}": d for n, d in (("h_to_4h", 40), ("4h_to_h", 8))}
    assert all(set(infer_widths(chatglm, widest)) < set(chatglm) for widest in (None, 20, 40))
    qwen = {"h.0.attn.c_attn": 24, "h.0.mlp.w1": 20, "h.0.mlp.w2": 20}  # all three read 8
    assert set(infer_widths(qwen, widest=None)) < set(qwen)


@pytest.mark.parametrize(
    ("model", "targets"),
    [
        (tiny_llama, "all-linear"),
        (tiny_llama, ["q_proj", "v_proj", "o_proj"]),
        (tiny_bert, r".*encoder\.layer.*(query|key|value|dense)"),
    ],
)
def test_projections_that_were_not_saved_are_drawn_again(model, targets, tmp_path):
    options = {"save_projection": False, "projection_prng_key": 11, "r": 5}
    wrapped = made(model(), target_modules=targets, **options)
    adapter = subspace.load(written(wrapped, tmp_path), strict=True)
    assert len(load_file(tmp_path / "adapter_model.safetensors")) == 2 * len(adapter)
    assert_same_update(adapter, merged_deltas(wrapped, VeraLayer))
    assert any("drawn again from projection_prng_key" in note for note in adapter.notes)
    other = subspace.load(edited(tmp_path, projection_prng_key=12))
    for name, update in adapter.items():
        assert not torch.allclose(update.delta(), other[name].delta())


def test_drawn_projections_take_what_the_file_tells(tmp_path):
    wrapped = made(tiny_bert(), target_modules=["query", "value"], save_projection=False)
    # The width of the stream is that of a layer that writes to it, and none is here.
    folder = written(wrapped, tmp_path)
    with pytest.raises(subspace.SubspaceError, match=r"does not store a layer's d_in.*rank=3\)"):
        subspace.load(folder)
    folder = written(made(tiny_llama(), target_modules="all-linear", save_projection=False),
                     tmp_path / "llama")  # fmt: skip
    with pytest.raises(subspace.SubspaceError, match="projection_prng_key = 'x' is not a seed"):
        subspace.load(edited(folder, projection_prng_key="x"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype, tmp_path):
    wrapped = made(tiny_bert(), target_modules=["query"]).to(dtype)
    adapter = subspace.load(written(wrapped, tmp_path))
    assert_same_update(adapter, merged_deltas(wrapped, VeraLayer))


def test_a_live_state_dict_in_a_torch_file(tmp_path):
    """It holds the projections once for each layer."""
    wrapped = made(tiny_bert(), target_modules=["query"])
    folder = written(wrapped, tmp_path)
    live = {name: t for name, t in wrapped.state_dict().items() if "vera_" in name}
    (folder / "adapter_model.safetensors").unlink()
    torch.save(live, folder / "adapter_model.bin")
    adapter = subspace.load(folder, strict=True)
    assert_same_update(adapter, merged_deltas(wrapped, VeraLayer))
    assert {t.reason_text for t in adapter.set_aside} <= {"VeRA's shared projection, once more"}


def test_a_saved_head(tmp_path):
    wrapped = made(tiny_bert(), target_modules=["query"], task_type="SEQ_CLS")
    adapter = subspace.load(written(wrapped, tmp_path), strict=True)
    assert {t.reason_text for t in adapter.set_aside} == {
        "a full copy of the module (modules_to_save)"
    }


def test_biases_that_it_trains_are_set_aside(tmp_path):
    wrapped = made(tiny_bert(), target_modules=["query"], bias="vera_only")
    adapter = subspace.load(written(wrapped, tmp_path), strict=True)
    assert {t.reason_text for t in adapter.set_aside} == {
        "a trained bias of the base model (bias = 'vera_only')"
    }


@pytest.fixture
def folder(tmp_path):
    return written(made(tiny_bert(), target_modules=["query"]), tmp_path)


def rewrite(folder, change):
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    path.unlink()
    save_file(tensors, path)
    return folder


QUERY = f"{PREFIX}bert.encoder.layer.0.attention.self.query."


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        (f"{QUERY}vera_lambda_d", (4,), "do not fit the projections, 3 x 12 and 12 x 3"),
        (f"{QUERY}vera_lambda_b", (3, 1), "a shape that no factor has"),
        ("base_model.vera_A", (2, 12), "have different ranks, 2 and 3"),
        ("base_model.vera_B", (5, 3), "do not fit the projections"),
        (f"{QUERY}vera_lambda_d", None, "lacks vera_lambda_d"),
        ("base_model.vera_B", None, "of VeRA's two projections vera_B is not in it"),
    ],
)
def test_what_does_not_fit_is_named(folder, name, shape, words):
    def change(tensors):
        del tensors[name]
        if shape is not None:
            tensors[name] = torch.ones(shape)

    with pytest.raises(subspace.SubspaceError, match=words) as raised:
        subspace.load(rewrite(folder, change))
    assert str(folder) in str(raised.value)


def test_no_config_and_one_that_makes_no_sense(folder):
    with pytest.raises(subspace.SubspaceError, match="is not a rank"):
        subspace.load(edited(folder, r=0))
    (folder / "adapter_config.json").unlink()
    with pytest.raises(subspace.SubspaceError, match=r"has no adapter_config\.json beside it"):
        subspace.load(folder)
