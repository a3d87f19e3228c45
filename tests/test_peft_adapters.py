"""What peft writes is read with the update that peft merges, to 1e-6."""

from __future__ import annotations

import json
import math
import re

import peft
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft.utils.other import get_pattern_key
from safetensors.torch import load_file, save_file

import subspace
from subspace.adapters.peft.regex import match_patterns
from subspace.modules.order import model_order
from tests.support.peft_adapters import (
    PREFIX,
    assert_same_update,
    edited,
    made,
    merged_deltas,
    scrambled,
    tiny_bert,
    tiny_gpt2,
    two_linears,
    written,
)

pytestmark = pytest.mark.filterwarnings("ignore:::peft", "ignore:::transformers")


def test_plain(tmp_path):
    wrapped = made(two_linears(), target_modules=["0", "2"])
    adapter = subspace.load(written(wrapped, tmp_path / "run"))
    assert_same_update(adapter, merged_deltas(wrapped))
    assert (adapter.name, adapter.format, str(adapter.method)) == ("run", "PEFT", "LoRA")
    assert adapter["0"].scale == pytest.approx(7 / 3)
    assert adapter["0"].A.dtype == torch.float32
    assert "adapter_model.safetensors (base_model.model.0.lora_A.weight" in adapter["0"].source
    assert (adapter.set_aside, adapter.notes, dict(adapter.initial)) == ((), (), {})


def test_the_weights_file_is_as_good_as_its_folder(tmp_path):
    folder = written(made(two_linears(), target_modules=["0"]), tmp_path / "run")
    by_file = subspace.load(str(folder / "adapter_model.safetensors"))
    assert by_file.name == "run"
    assert torch.equal(by_file["0"].delta(), subspace.load(folder)["0"].delta())


def test_a_checkpoint_is_named_with_its_run(tmp_path):
    folder = tmp_path / "run" / "checkpoint-100"
    adapter = subspace.load(written(made(two_linears(), target_modules=["0"]), folder))
    assert adapter.name == "run/checkpoint-100"


def test_an_adapter_is_a_read_only_mapping(tmp_path):
    adapter = subspace.load(written(made(two_linears(), target_modules=["0"]), tmp_path / "run"))
    assert "0" in adapter
    assert "1" not in adapter
    assert repr(adapter) == "Adapter('run', LoRA, 1 modules, rank 3)"
    assert repr(adapter["0"]) == "LowRankUpdate('0', 10x6, rank=3, scale=2.33333)"
    with pytest.raises(KeyError, match="no module '1'; list what it has with `subspace inspect"):
        adapter["1"]
    with pytest.raises(subspace.SubspaceError, match="no module of adapter 'run' matches 'x'"):
        adapter.select("x")
    with pytest.raises(TypeError):
        adapter["0"] = adapter["0"]
    with pytest.raises(TypeError):
        adapter.updates["0"] = None
    with pytest.raises(TypeError):
        adapter.layout.config["r"] = 1


def test_rslora_divides_by_the_root_of_the_rank(tmp_path):
    wrapped = made(two_linears(), target_modules=["0", "2"], use_rslora=True)
    adapter = subspace.load(written(wrapped, tmp_path))
    assert_same_update(adapter, merged_deltas(wrapped))
    assert adapter["0"].scale == pytest.approx(7 / math.sqrt(3))
    assert str(adapter.method) == "rsLoRA"


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize(
    ("ranks", "alphas"),
    [
        ({"layer.0.attention.self.query": 5, "value": 2}, {"query": 11}),
        ({r"layer\.[01]\..*query": 5, "query": 4}, {r".*\.(value|key)": 3, "0.+query": 13}),
        ({"1.attention.self.value": 6, "value": 2}, {"attention.self.value": 5, "query": 9}),
        ({"self.query$": 5}, {"^bert.encoder.layer.2.attention.self.value": 5, "alue": 99}),
    ],
)
def test_rank_and_alpha_patterns(tmp_path, ranks, alphas, rslora):
    wrapped = made(
        tiny_bert(),
        target_modules=["query", "value"],
        rank_pattern=ranks,
        alpha_pattern=alphas,
        use_rslora=rslora,
    )
    adapter = subspace.load(written(wrapped, tmp_path))
    assert len({info.rank for info in adapter.updates.values()}) > 1
    assert_same_update(adapter, merged_deltas(wrapped))
    assert adapter.notes == ()


def test_alpha_patterns_that_overlap_are_noted(tmp_path):
    """peft takes the first in a dict, but sorts the dict when it saves: the file cannot tell."""
    alphas = {"value": 9, "attention.self.value": 5}
    wrapped = made(tiny_bert(1), target_modules=["value"], alpha_pattern=alphas)
    adapter = subspace.load(written(wrapped, tmp_path))
    (note,) = adapter.notes
    assert "several entries of alpha_pattern match" in note
    reloaded = peft.PeftModel.from_pretrained(tiny_bert(1), tmp_path)
    assert_same_update(adapter, merged_deltas(reloaded))


def test_gpt2_stores_the_transpose_but_the_map_is_the_same(tmp_path):
    wrapped = made(tiny_gpt2(), target_modules=["c_attn", "c_fc", "c_proj"], fan_in_fan_out=True)
    adapter = subspace.load(written(wrapped, tmp_path))
    assert adapter.updates["transformer.h.0.attn.c_attn"].shape == (36, 12)
    assert_same_update(adapter, merged_deltas(wrapped))
    assert adapter.layout.stored_transposed is True


def test_embedding_maps_a_one_hot_of_the_vocabulary(tmp_path):
    model = torch.nn.Sequential(torch.nn.Embedding(17, 5), torch.nn.Linear(5, 3))
    wrapped = made(model, target_modules=["0", "1"], rank_pattern={"0": 2})
    adapter = subspace.load(written(wrapped, tmp_path))
    assert adapter.updates["0"].shape == (5, 17)
    assert adapter.updates["0"].kind == "embedding"
    assert_same_update(adapter, merged_deltas(wrapped))


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (torch.nn.Conv1d(4, 6, 3), (6, 12)),
        (torch.nn.Conv2d(4, 6, (3, 2)), (6, 24)),
        (torch.nn.Conv2d(4, 6, 1), (6, 4)),
        (torch.nn.Conv3d(4, 6, (1, 2, 3)), (6, 24)),
    ],
)
def test_convolutions_become_matrices(tmp_path, model, shape):
    wrapped = made(torch.nn.Sequential(model), target_modules=["0"])
    adapter = subspace.load(written(wrapped, tmp_path))
    assert adapter.updates["0"].shape == shape
    assert adapter.updates["0"].kind == type(model).__name__.lower()
    assert_same_update(adapter, merged_deltas(wrapped))


def test_grouped_convolution_is_what_peft_computes(tmp_path):
    """peft does not merge these, so hold the map against its forward pass."""
    model = torch.nn.Sequential(torch.nn.Conv2d(4, 6, 3, groups=2, bias=False))
    wrapped = made(model, target_modules=["0"], r=4, lora_alpha=6)
    adapter = subspace.load(written(wrapped, tmp_path))
    assert adapter.updates["0"].shape == (6, 36)  # A reads all four inputs
    assert any("0: a convolution in groups" in note for note in adapter.notes)
    x = torch.randn(1, 4, 5, 5)
    with torch.no_grad():
        with_adapter = wrapped(x)
        with wrapped.disable_adapter():
            wanted = (with_adapter - wrapped(x)).double().flatten(2)
    patches = torch.nn.functional.unfold(x, 3).double()
    torch.testing.assert_close(adapter["0"].delta() @ patches, wanted, rtol=1e-4, atol=1e-4)


def test_multihead_attention_is_two_modules(tmp_path):
    model = torch.nn.Sequential(torch.nn.MultiheadAttention(8, 2))
    wrapped = made(model, target_modules=["0"])
    layer = wrapped.base_model.model[0]
    adapter = subspace.load(written(wrapped, tmp_path))
    wanted = {
        "0": layer.get_delta_weight("default").double(),
        "0.out_proj": layer.base_layer.out_proj.get_delta_weight("default").double(),
    }
    assert_same_update(adapter, wanted)


def test_layers_to_transform_and_regex_targets(tmp_path):
    wrapped = made(tiny_bert(), target_modules=["query"], layers_to_transform=[0, 2])
    adapter = subspace.load(written(wrapped, tmp_path / "layers"))
    assert list(adapter) == [f"bert.encoder.layer.{i}.attention.self.query" for i in (0, 2)]
    assert_same_update(adapter, merged_deltas(wrapped))

    wrapped = made(tiny_bert(), target_modules=r".*layer\.[12]\.(attention\.)?output\.dense")
    adapter = subspace.load(written(wrapped, tmp_path / "regex"))
    assert adapter.updates["bert.encoder.layer.1.output.dense"].shape == (12, 20)
    assert_same_update(adapter, merged_deltas(wrapped))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_as_stored(tmp_path, dtype):
    model = two_linears().to(dtype)
    wrapped = made(model, target_modules=["0", "2"])
    wrapped.to(dtype)
    adapter = subspace.load(written(wrapped, tmp_path))
    assert adapter["0"].A.dtype == adapter["0"].B.dtype == dtype
    assert adapter.updates["0"].dtype == str(dtype).removeprefix("torch.")
    assert_same_update(adapter, merged_deltas(wrapped))


def test_torch_files(tmp_path):
    wrapped = made(two_linears(), target_modules=["0", "2"])
    folder = written(wrapped, tmp_path)
    tensors = load_file(folder / "adapter_model.safetensors")
    torch.save(tensors, folder / "adapter_model.bin")
    (folder / "adapter_model.safetensors").unlink()
    adapter = subspace.load(folder)
    assert "adapter_model.bin" in adapter["0"].source
    assert_same_update(adapter, merged_deltas(wrapped))


def test_a_named_adapter_is_found_in_its_subfolder(tmp_path):
    wrapped = made(two_linears(), adapter="student", target_modules=["0"])
    adapter = subspace.load(written(wrapped, tmp_path / "run"))
    assert adapter.name == "run/student"
    assert_same_update(adapter, merged_deltas(wrapped))


def test_two_named_adapters_must_be_chosen_from(tmp_path):
    wrapped = made(two_linears(), adapter="one", target_modules=["0"])
    wrapped.add_adapter("two", peft.LoraConfig(r=2, lora_alpha=5, target_modules=["2"]))
    folder = written(scrambled(wrapped), tmp_path / "run")
    with pytest.raises(subspace.SubspaceError, match=r"2 adapters in subfolders \(one, two\)"):
        subspace.load(folder)
    two = subspace.load(folder, adapter_name="two")
    wrapped.set_adapter("two")
    layer = wrapped.base_model.model[2]
    assert_same_update(two, {"2": layer.get_delta_weight("two").double()})


def test_live_state_dicts_carry_the_adapters_name(tmp_path):
    wrapped = made(two_linears(), target_modules=["0"])
    wrapped.add_adapter("two", peft.LoraConfig(r=2, lora_alpha=5, target_modules=["2"]))
    folder = written(scrambled(wrapped), tmp_path / "run", selected_adapters=["default"])
    live = {k: v.clone() for k, v in wrapped.state_dict().items() if "lora_" in k}
    assert f"{PREFIX}0.lora_A.default.weight" in live
    save_file(live, folder / "adapter_model.safetensors")
    with pytest.raises(subspace.SubspaceError, match=r"2 adapters \('default', 'two'\)"):
        subspace.load(folder)
    adapter = subspace.load(folder, adapter_name="default")
    wanted = {"0": wrapped.base_model.model[0].get_delta_weight("default").double()}
    assert_same_update(adapter, wanted)
    assert {t.reason_text for t in adapter.set_aside} == {"of another adapter, 'two'"}
    with pytest.raises(subspace.SubspaceError, match="no adapter 'three'"):
        subspace.load(folder, adapter_name="three")


def test_names_without_pefts_prefix(tmp_path):
    wrapped = made(two_linears(), target_modules=["0", "2"])
    folder = written(wrapped, tmp_path)
    file = folder / "adapter_model.safetensors"
    save_file({k.removeprefix(PREFIX): v for k, v in load_file(file).items()}, file)
    assert_same_update(subspace.load(folder), merged_deltas(wrapped))


def test_weights_without_their_config_take_the_alpha_that_is_given(tmp_path):
    wrapped = made(two_linears(), target_modules=["0", "2"])
    file = written(wrapped, tmp_path) / "adapter_model.safetensors"
    whole = torch.load(_state_dict(wrapped, tmp_path / "step-5.pt"), weights_only=True)
    assert any("base_layer" in name for name in whole["model_state_dict"])
    (tmp_path / "adapter_config.json").unlink()
    with pytest.raises(subspace.SubspaceError, match=r"or give the alpha with .* --alpha 16"):
        subspace.load(file)
    deltas = merged_deltas(wrapped)
    for path in (file, tmp_path / "step-5.pt"):
        adapter = subspace.load(path, alpha=7)
        assert_same_update(adapter, deltas)
        (note,) = adapter.notes
        assert "alpha / r with the alpha 7 that was given" in note
    subspace.save(subspace.load(file, alpha=7), tmp_path / "with")
    assert_same_update(subspace.load(tmp_path / "with"), deltas)


def _state_dict(wrapped, path):
    """A training checkpoint, the base's weights beside the adapter's."""
    torch.save({"model_state_dict": wrapped.state_dict(), "step": 5}, path)
    return path


def reasons(adapter):
    return {t.name.removeprefix(PREFIX): (t.reason_text, t.known) for t in adapter.set_aside}


def test_saved_modules_are_set_aside(tmp_path):
    wrapped = made(tiny_bert(1), target_modules=["query"], task_type="SEQ_CLS")
    adapter = subspace.load(written(wrapped, tmp_path))
    found = reasons(adapter)
    assert set(found) == {"classifier.weight", "classifier.bias"}
    assert all("modules_to_save" in why and known for why, known in found.values())
    saved = adapter.tensor(f"{PREFIX}classifier.weight")
    assert torch.equal(saved, wrapped.base_model.model.classifier.modules_to_save.default.weight)
    with pytest.raises(subspace.SubspaceError, match="set no tensor 'x' aside"):
        adapter.tensor("x")


@pytest.mark.parametrize("bias", ["all", "lora_only"])
def test_trained_biases_are_set_aside(tmp_path, bias):
    wrapped = made(two_linears(), target_modules=["0"], bias=bias)
    adapter = subspace.load(written(wrapped, tmp_path))
    assert_same_update(adapter, merged_deltas(wrapped))
    found = reasons(adapter)
    assert len(found) == (2 if bias == "all" else 1)
    assert all(f"bias = '{bias}'" in why and known for why, known in found.values())


def test_bias_of_the_update_is_set_aside(tmp_path):
    wrapped = made(two_linears(), target_modules=["0"], lora_bias=True)
    adapter = subspace.load(written(wrapped, tmp_path))
    assert_same_update(adapter, merged_deltas(wrapped))
    assert reasons(adapter)["0.lora_B.bias"][0].startswith("bias of the update (lora_bias)")


def test_trainable_tokens_are_set_aside(tmp_path):
    wrapped = made(
        tiny_bert(1), target_modules=["query"], trainable_token_indices={"word_embeddings": [3, 5]}
    )
    adapter = subspace.load(written(wrapped, tmp_path))
    assert list(adapter) == ["bert.encoder.layer.0.attention.self.query"]
    ((why, known),) = reasons(adapter).values()
    assert known
    assert "trainable_token_indices" in why
    assert adapter.set_aside[0].module == "bert.embeddings.word_embeddings"


def test_saved_embeddings_are_set_aside(tmp_path):
    wrapped = made(tiny_gpt2(), target_modules=["c_fc", "wte"], fan_in_fan_out=True)
    adapter = subspace.load(written(wrapped, tmp_path, save_embedding_layers=True))
    assert "transformer.wte" in adapter
    found = reasons(adapter)
    assert found
    assert all("save_embedding_layers" in why and known for why, known in found.values()), found


def test_dora_is_its_ba_part_and_its_magnitude_completes_it(tmp_path):
    """W' = m (W + s B A) / ||W + s B A||, row by row (arXiv:2402.09353), is peft's merge."""
    wrapped = made(two_linears(), target_modules=["0", "2"], use_dora=True)
    base = [wrapped.base_model.model[i].get_base_layer().weight.double() for i in (0, 2)]
    adapter = subspace.load(written(wrapped, tmp_path))
    assert str(adapter.method) == "DoRA (BA part)"
    merged = merged_deltas(wrapped)
    for name, weight in zip("02", base, strict=True):
        magnitude = adapter.tensor(f"{PREFIX}{name}.lora_magnitude_vector").double()
        moved = weight + adapter[name].delta()
        moved = moved * (magnitude / moved.norm(dim=1))[:, None]
        torch.testing.assert_close(moved - weight, merged[name], rtol=1e-5, atol=1e-5)


def test_kasa_folds_its_diagonal_into_b(tmp_path):
    config = peft.KasaConfig() if hasattr(peft, "KasaConfig") else None
    if config is None:
        pytest.skip("this peft has no KaSA")
    wrapped = made(two_linears(), target_modules=["0"], kasa_config=config)
    layer = wrapped.base_model.model[0]
    adapter = subspace.load(written(wrapped, tmp_path))
    wanted = layer.lora_variant["default"]._get_delta_weight(layer, "default")
    assert_same_update(adapter, {"0": wanted.double()})
    assert any(note.startswith("kasa_config: KaSA") for note in adapter.notes)


def test_variants_that_are_not_read_are_set_aside(tmp_path):
    blocks = peft.tuners.lora.config.BdLoraConfig(
        target_modules_bd_a=["0"], target_modules_bd_b=["2"], nblocks=2
    )
    wrapped = made(two_linears(), target_modules=["0", "2"], r=4, use_bdlora=blocks)
    with pytest.raises(subspace.SubspaceError, match="no low-rank update is in this file") as bd:
        subspace.load(written(wrapped, tmp_path / "bd"))
    assert "it holds block-diagonal factor (BD-LoRA), not read yet: " in str(bd.value)
    for name in ("Monteclora", "Velora"):
        config = {f"{name.lower()}_config": getattr(peft.tuners.lora.config, f"{name}Config")()}
        wrapped = made(two_linears(), target_modules=["0", "2"], **config)
        adapter = subspace.load(written(wrapped, tmp_path / name))
        assert list(adapter) == ["0", "2"]
        assert all(known for _, known in reasons(adapter).values())
        assert name[:4] in adapter.notes[0].title()


def test_a_config_without_a_type_is_not_pefts(tmp_path):
    folder = written(made(two_linears(), target_modules=["0"]), tmp_path)
    (folder / "adapter_config.json").write_text('{"lora_alpha": 4}')
    with pytest.raises(subspace.SubspaceError, match="has no peft_type"):
        subspace.load(folder)


def test_unknown_tensors_are_reported_never_dropped(tmp_path):
    folder = written(made(two_linears(), target_modules=["0"]), tmp_path)
    file = folder / "adapter_model.safetensors"
    extra = {f"{PREFIX}0.lora_mystery.weight": torch.ones(2), f"{PREFIX}2.weight": torch.ones(3)}
    save_file(load_file(file) | extra, file)
    adapter = subspace.load(folder)
    assert {t.name for t in adapter.set_aside if not t.known} == set(extra)


@pytest.mark.parametrize(
    ("fields", "note"),
    [
        ({"init_lora_weights": "pissa_niter_4"}, "PiSSA: the base weights were changed"),
        ({"init_lora_weights": "olora"}, "OLoRA: the base weights were changed"),
        ({"init_lora_weights": "orthogonal"}, "B was not zero before training"),
        ({"init_lora_weights": False}, "B was not zero before training"),
        ({"init_lora_weights": "newest"}, "'newest' is not known here"),
        ({"alora_invocation_tokens": [1, 2]}, "aLoRA"),
        ({"layer_replication": [[0, 2], [1, 3]]}, "layers are named by the base's own index"),
        ({"use_qalora": True}, "pooled in groups"),
        ({"eva_config": {"rho": 2.0}}, "EVA"),
        ({"lora_colour": "red"}, "field 'lora_colour' is not known here"),
        ({"r": 9}, r"0 \(9, stored 3\)"),
    ],
)
def test_what_changes_the_meaning_is_noted(tmp_path, fields, note):
    folder = edited(written(made(two_linears(), target_modules=["0"]), tmp_path), **fields)
    (found,) = subspace.load(folder).notes
    assert re.search(note, found)


def test_every_field_that_peft_knows_is_understood(tmp_path):
    folder = written(made(two_linears(), target_modules=["0"]), tmp_path)
    fields = dict.fromkeys(peft.LoraConfig.__dataclass_fields__)
    config = json.loads((folder / "adapter_config.json").read_text())
    edited(folder, **{k: 1 for k in fields if k not in config and k != "runtime_config"})
    assert not any("not known here" in note for note in subspace.load(folder).notes)


def test_initial_a_is_read_and_held_against_a(tmp_path):
    folder = written(made(two_linears(), target_modules=["0", "2"]), tmp_path)
    start = {"0": torch.randn(3, 6), "2": torch.randn(3, 10)}
    save_file(start, folder / "initial_A.safetensors")
    adapter = subspace.load(folder)
    assert set(adapter.initial) == {"0", "2"}
    assert torch.equal(adapter.initial["2"], start["2"])
    with pytest.raises(TypeError):
        adapter.initial["0"] = start["0"]
    save_file({"0": torch.randn(2, 6)}, folder / "initial_A.safetensors")
    with pytest.raises(
        subspace.SubspaceError, match=r"initial_A.safetensors: tensor '0' is \(2, 6\)"
    ):
        subspace.load(folder)
    save_file({"1": torch.randn(2, 6)}, folder / "initial_A.safetensors")
    with pytest.raises(subspace.SubspaceError, match="'1' belongs to no module"):
        subspace.load(folder)


def test_modules_come_in_the_models_own_order(tmp_path):
    model = tiny_bert(11)
    wrapped = made(model, target_modules="all-linear", task_type="SEQ_CLS")
    adapter = subspace.load(written(wrapped, tmp_path))
    own = [name for name, _ in model.named_modules()]
    assert len(adapter) > 60
    assert list(adapter) == sorted(adapter, key=own.index)
    assert list(adapter.select("*.1.*.query")) == ["bert.encoder.layer.1.attention.self.query"]


def test_order_of_gpt2_and_llama():
    gpt2 = [name for name, module in tiny_gpt2().named_modules() if not list(module.children())]
    wanted = [n for n in gpt2 if re.search(r"(c_attn|c_proj|c_fc|lm_head|wte)$", n)]
    assert sorted(set(wanted), key=model_order) == wanted
    llama = ["model.embed_tokens"]
    for i in range(11):
        llama += [f"model.layers.{i}.self_attn.{x}_proj" for x in "qkvo"]
        llama += [f"model.layers.{i}.mlp.{x}_proj" for x in ("gate", "up", "down")]
    llama.append("lm_head")
    assert sorted(set(llama), key=model_order) == llama


PLAIN = st.text("ab.1_", max_size=6)


@given(keys=st.lists(PLAIN, max_size=5), names=st.lists(st.text("ab.1_", max_size=9), max_size=5))
def test_plain_patterns_match_as_peft_matches(keys, names):
    keys = list(dict.fromkeys(keys))
    found = match_patterns(keys, names, where="config")
    for name in names:
        own = get_pattern_key(keys, name)
        assert [*found[name], name][0] == own


def test_regex_patterns_match_as_peft_matches():
    keys = ["a|b", "l.[0-3]", "q", r".*\d", "(?i)Q", "z$", "^x"]
    names = ["m.a", "b.q", "l.2", "l.9", "w.Q", "z", "y.x", "x", "m.b.c", ""]
    keys.remove("(?i)Q")  # a global flag inside a group is an error to re, and so to peft
    found = match_patterns(keys, names, where="config")
    assert {n: [*found[n], n][0] for n in names} == {n: get_pattern_key(keys, n) for n in names}
