"""LoRA whose base is not the one that is at hand: weights changed before, layers copied."""

from __future__ import annotations

import peft
import pytest
import torch
import transformers

import subspace
from tests.support.peft_adapters import assert_same_update, edited, made, written

pytestmark = pytest.mark.filterwarnings("ignore:::peft", "ignore:::transformers")


@pytest.mark.parametrize("name", ["PiSSA", "OLoRA"])
def test_an_update_that_peft_converted_is_that_of_the_base_as_it_was(name, tmp_path):
    """Saved with its start, peft writes a plain LoRA of twice the rank: B A - B0 A0."""
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(6, 10), torch.nn.Linear(10, 8))
    base = {n: model[n].weight.detach().double().clone() for n in (0, 1)}
    config = peft.LoraConfig(
        r=3, lora_alpha=7, target_modules=["0", "1"], init_lora_weights=name.lower()
    )
    wrapped = peft.get_peft_model(model, config)
    wrapped.peft_config["default"].init_lora_weights = True
    wrapped.save_pretrained(tmp_path / "start")
    wrapped.peft_config["default"].init_lora_weights = name.lower()
    for parameter in wrapped.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn(parameter.shape)
    wrapped.save_pretrained(
        tmp_path / "run", path_initial_model_for_weight_conversion=str(tmp_path / "start")
    )
    adapter = subspace.load(tmp_path / "run", strict=True)
    assert not any(name in note for note in adapter.notes)
    wrapped.double()
    wrapped.merge_adapter()
    layers = wrapped.base_model.model
    wanted = {str(n): layers[n].base_layer.weight.detach() - base[n] for n in (0, 1)}
    assert_same_update(adapter, wanted, rtol=1e-5)
    assert adapter.updates["0"].rank == 6
    # As it is saved otherwise, the file is that of a changed base, and says so.
    again = subspace.load(written(wrapped, tmp_path / "as_it_is"))
    assert any(f"{name}: the base weights were changed" in note for note in again.notes)


def tiny_llama():
    torch.manual_seed(1)
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            hidden_size=8, intermediate_size=12, num_hidden_layers=3, vocab_size=31,
            num_attention_heads=2, num_key_value_heads=1,
        )
    )  # fmt: skip


def test_replicated_layers_that_share_a_base_layer_keep_pefts_names(tmp_path):
    wrapped = made(tiny_llama(), target_modules=["q_proj"], layer_replication=[[0, 2], [1, 3]])
    adapter = subspace.load(written(wrapped, tmp_path), strict=True)
    assert len(adapter) == 4
    for name, update in adapter.items():
        torch.testing.assert_close(update.delta(), _delta(wrapped.double(), name))
    assert (
        "model.layers.3.self_attn.q_proj is the base's model.layers.2.self_attn.q_proj"
        in (adapter.notes[-1])
    )


def _delta(wrapped, name):
    layer = wrapped.base_model.model.get_submodule(name)
    return layer.get_delta_weight("default").detach().double()


def test_replicated_layers_take_the_bases_index_where_it_is_one(tmp_path):
    wrapped = made(
        tiny_llama(), target_modules=["q_proj"], layer_replication=[[1, 3], [0, 1]],
        layers_to_transform=[0, 2],
    )  # fmt: skip
    adapter = subspace.load(written(wrapped, tmp_path), strict=True)
    assert list(adapter) == ["model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj"]
    torch.testing.assert_close(
        adapter["model.layers.0.self_attn.q_proj"].delta(),
        _delta(wrapped.double(), "model.layers.2.self_attn.q_proj"),
    )
    assert "named by the base's own index" in adapter.notes[-1]


@pytest.mark.parametrize("ranges", [3, [3], [[2, 1]], [[0, 10**9]], [["a", 1]], [[0, 1]]])
def test_a_replication_that_makes_no_sense(ranges, tmp_path):
    folder = written(made(tiny_llama(), target_modules=["q_proj"]), tmp_path)
    with pytest.raises(subspace.SubspaceError, match="layer_replication"):
        subspace.load(edited(folder, layer_replication=ranges))
