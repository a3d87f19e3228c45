"""AdaLoRA as peft trains, cuts and writes it is read with the update that peft merges, to 1e-6."""

from __future__ import annotations

import json
import warnings

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

import subspace
from tests.support.peft_adapters import (
    PREFIX,
    assert_same_update,
    edited,
    merged_deltas,
    two_linears,
    written,
)

pytestmark = pytest.mark.filterwarnings("ignore:::peft", "ignore:::transformers")


def made(model, seed=0, **config):
    config = {"init_r": 4, "target_r": 1, "lora_alpha": 7, "total_step": 10} | config
    config = {"target_modules": ["0", "2"], "tinit": 1, "tfinal": 2} | config
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = peft.get_peft_model(model, peft.AdaLoraConfig(**config))
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator))
    return wrapped


def cut(wrapped, steps=range(1, 11)):
    """Let peft choose the ranks to keep, as a training run does."""
    generator = torch.Generator().manual_seed(5)
    for step in steps:
        x = torch.randn(8, wrapped.base_model.model[0].base_layer.in_features, generator=generator)
        wrapped.zero_grad()
        wrapped.base_model.model(x).square().sum().backward()
        wrapped.base_model.update_and_allocate(step)
    return wrapped


def loaded(folder, model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return peft.PeftModel.from_pretrained(model, str(folder))


def test_before_any_cut(tmp_path):
    wrapped = made(two_linears())
    adapter = subspace.load(written(wrapped, tmp_path), strict=True)
    assert_same_update(adapter, merged_deltas(wrapped))
    assert (adapter.format, str(adapter.method)) == ("PEFT AdaLoRA", "AdaLoRA")
    assert adapter["0"].scale == 7 / (4 + 1e-5)
    assert (adapter.set_aside, adapter.notes) == ((), ())


def test_cut_ranks_keep_the_scale_of_the_rank_at_the_start(tmp_path):
    wrapped = cut(made(two_linears()))
    folder = written(wrapped, tmp_path)
    patterns = json.loads((folder / "adapter_config.json").read_text())["rank_pattern"]
    ranks = {name.partition(".lora_E")[0]: sum(mask) for name, mask in patterns.items()}
    assert sum(ranks.values()) == 2
    adapter = subspace.load(folder, strict=True)
    again = merged_deltas(loaded(folder, two_linears()))
    kept = {name: delta for name, delta in again.items() if ranks[name]}
    assert_same_update(adapter, kept)
    assert_same_update(
        adapter, {name: d for name, d in merged_deltas(wrapped).items() if ranks[name]}
    )
    assert {name: u.rank for name, u in adapter.items()} == {n: r for n, r in ranks.items() if r}
    assert {u.scale for u in adapter.values()} == {7 / (4 + 1e-5)}


def test_a_module_without_any_rank_is_set_aside(tmp_path):
    wrapped = made(two_linears())
    wrapped.peft_config["default"].rank_pattern = {
        "0.lora_E.default": [True, False, True, False], "2.lora_E.default": [False] * 4
    }  # fmt: skip
    for layer in (0, 2):
        mask = wrapped.peft_config["default"].rank_pattern[f"{layer}.lora_E.default"]
        wrapped.base_model.model[layer].lora_E.default.data[~torch.tensor(mask)] = 0
    adapter = subspace.load(written(wrapped, tmp_path), strict=True)
    assert_same_update(adapter, {"0": merged_deltas(wrapped)["0"]})
    assert adapter.updates["0"].rank == 2
    assert {t.reason_text for t in adapter.set_aside} == {
        "AdaLoRA left this module no rank: no update"
    }
    assert adapter.notes == ("2: AdaLoRA left no rank",)


def test_an_alpha_that_is_not_positive_is_the_rank(tmp_path):
    wrapped = made(two_linears(), lora_alpha=0)
    adapter = subspace.load(written(wrapped, tmp_path))
    assert_same_update(adapter, merged_deltas(wrapped))


def test_what_lora_alone_uses_is_not_used(tmp_path):
    wrapped = made(two_linears(), use_rslora=True, alpha_pattern={"0": 99})
    adapter = subspace.load(written(wrapped, tmp_path))
    assert_same_update(adapter, merged_deltas(wrapped))
    assert "AdaLoRA does not use them" in adapter.notes[-1]


def test_a_divisor_that_an_older_file_stores(tmp_path):
    wrapped = made(two_linears())
    folder = written(wrapped, tmp_path)
    rewrite(
        folder, lambda t: t.update({f"{PREFIX}{n}.ranknum": torch.full((1,), 3.0) for n in "02"})
    )
    for layer in (0, 2):
        wrapped.base_model.model[layer].ranknum.default.data.fill_(3.0)
    assert_same_update(subspace.load(folder, strict=True), merged_deltas(wrapped))


def test_a_live_state_dict_in_a_torch_file(tmp_path):
    wrapped = made(two_linears())
    folder = written(wrapped, tmp_path)
    live = {n: t for n, t in wrapped.state_dict().items() if "lora_" in n or "ranknum" in n}
    (folder / "adapter_model.safetensors").unlink()
    torch.save(live, folder / "adapter_model.bin")
    assert_same_update(subspace.load(folder, strict=True), merged_deltas(wrapped))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype, tmp_path):
    """The divisor is a number here, where peft rounds it to the tensors' dtype."""
    wrapped = made(two_linears(), init_r=4).to(dtype)
    adapter = subspace.load(written(wrapped, tmp_path))
    assert_same_update(adapter, merged_deltas(wrapped))


def rewrite(folder, change):
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    path.unlink()
    save_file(tensors, path)
    return folder


@pytest.fixture
def folder(tmp_path):
    return written(made(two_linears()), tmp_path)


def refused(folder, words):
    with pytest.raises(subspace.SubspaceError, match=words) as raised:
        subspace.load(folder)
    assert str(folder) in str(raised.value)


def test_no_config(folder):
    (folder / "adapter_config.json").unlink()
    refused(folder, "has no adapter_config.json beside it, which holds lora_alpha")


@pytest.mark.parametrize("slot", ["lora_A", "lora_B", "lora_E"])
def test_a_missing_partner(folder, slot):
    refused(
        rewrite(folder, lambda tensors: tensors.pop(f"{PREFIX}0.{slot}")),
        f"has no partner: module '0' lacks {slot}",
    )


@pytest.mark.parametrize(
    ("slot", "shape", "words"),
    [
        ("lora_E", (3, 1), "do not multiply"),
        ("lora_E", (4,), "a shape that no factor has"),
        ("lora_B", (10, 3), "do not multiply"),
        ("ranknum", (2,), "should hold one number"),
        ("ranknum", (), r"holds -?\d.*, no rank"),
    ],
)
def test_shapes_that_do_not_fit(folder, slot, shape, words):
    values = torch.full(shape, -1.0)
    refused(rewrite(folder, lambda t: t.update({f"{PREFIX}0.{slot}": values})), words)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"init_r": 5}, "has rank 4; the config has init_r = 5 and no rank_pattern for it"),
        ({"init_r": 0}, "is not a rank"),
        ({"lora_alpha": None}, "has no lora_alpha"),
        ({"rank_pattern": [1]}, "is no mapping"),
        ({"rank_pattern": {"0.lora_E": [1, 0]}}, "is no list of true and false"),
        ({"rank_pattern": {"0.lora_E": [True] * 5}}, "lists 5 ranks"),
        ({"rank_pattern": {"0.lora_E": [True] * 3}, "init_r": 3}, "rank_pattern of 3"),
    ],
)
def test_a_config_that_does_not_fit(folder, fields, words):
    refused(edited(folder, **fields), words)
