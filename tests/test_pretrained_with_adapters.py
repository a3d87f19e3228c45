"""W and the update side by side: their sum is the weight that peft itself merges."""

import subprocess
import sys

import peft
import pytest
import torch
import transformers
from safetensors.torch import save_file

import subspace
from subspace.errors import ShapeError
from subspace.pretrained import open_pretrained

TINY = {"vocab_size": 50, "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 12}


def gpt2():
    config = transformers.GPT2Config(vocab_size=50, n_embd=12, n_layer=2, n_head=2, n_positions=16)
    return transformers.GPT2LMHeadModel(config), ["c_attn", "c_proj", "c_fc", "wpe"]


def bert():
    config = transformers.BertConfig(**TINY, intermediate_size=20, max_position_embeddings=16)
    model = transformers.BertForSequenceClassification(config)
    return model, ["query", "output.dense", "intermediate.dense", "word_embeddings"]


def llama():
    config = transformers.LlamaConfig(**TINY, num_key_value_heads=1, intermediate_size=20)
    return transformers.LlamaForCausalLM(config), ["k_proj", "up_proj", "down_proj"]


def mha():
    layer = torch.nn.TransformerEncoderLayer(8, 2, 12)
    return torch.nn.ModuleDict({"layer": layer}), ["self_attn", "linear1"]


@pytest.mark.parametrize("build", [gpt2, bert, llama, mha])
def test_the_sum_is_what_peft_merges(build, tmp_path):
    torch.manual_seed(0)
    model, targets = build()
    if build is mha:
        (tmp_path / "base").mkdir()
        save_file(model.state_dict(), tmp_path / "base" / "model.safetensors")
        out_proj = model["layer"].self_attn.out_proj.weight.detach().clone()
    else:
        model.save_pretrained(tmp_path / "base")
    config = peft.LoraConfig(r=3, lora_alpha=7, target_modules=targets)
    tuned = peft.get_peft_model(model, config)
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_" in name:
                parameter.normal_()
    tuned.save_pretrained(tmp_path / "adapter")
    merged = tuned.merge_and_unload().state_dict()
    base, adapter = open_pretrained(tmp_path / "base"), subspace.load(tmp_path / "adapter")
    assert len(adapter) >= 2
    for name, update in adapter.items():
        weight = base.get(name, shape=update.shape)
        if name.endswith("self_attn.out_proj"):
            assert torch.equal(weight.W, out_proj)  # peft 0.21 merges its update twice
            continue
        key = f"{name}.weight" if f"{name}.weight" in merged else f"{name}.in_proj_weight"
        want = merged[key].double()
        got = weight.W.double() + update.delta()
        torch.testing.assert_close(
            got, want.T if weight.stored_transposed else want, rtol=1e-5, atol=1e-6
        )


def test_another_models_base_is_named_with_both_shapes(tmp_path):
    llama()[0].save_pretrained(tmp_path / "base")
    wider = transformers.LlamaConfig(**(TINY | {"hidden_size": 16}), intermediate_size=20)
    model = transformers.LlamaForCausalLM(wider)
    config = peft.LoraConfig(r=2, target_modules=["q_proj"])
    peft.get_peft_model(model, config).save_pretrained(tmp_path / "adapter")
    base, adapter = open_pretrained(tmp_path / "base"), subspace.load(tmp_path / "adapter")
    name, info = next(iter(adapter.updates.items()))
    with pytest.raises(ShapeError, match=rf"'{name}': the update is 16 x 16, W is 12 x 12"):
        base.get(name, shape=info.shape)


def test_a_text_adapter_finds_the_text_part_of_a_larger_model(tmp_path):
    want = torch.randn(3, 2)
    tensors = {
        "language_model.model.layers.0.self_attn.q_proj.weight": want,
        "vision_tower.encoder.layers.0.self_attn.q_proj.weight": torch.ones(3, 2),
    }
    save_file(tensors, tmp_path / "model.safetensors")
    base = open_pretrained(tmp_path)
    for name in ("model.layers.0", "model.language_model.layers.0", "layers.0"):
        assert torch.equal(base[f"{name}.self_attn.q_proj"].W, want)


def test_opening_a_safetensors_base_imports_no_torch(tmp_path):
    save_file({"q.weight": torch.ones(3, 2)}, tmp_path / "model.safetensors")
    script = (
        "import sys\nfrom subspace.pretrained import open_pretrained\n"
        f"weight = open_pretrained({str(tmp_path)!r})['q']\n"
        "assert weight.shape == (3, 2)\nassert 'torch' not in sys.modules\n"
        "weight.W\nassert 'torch' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
