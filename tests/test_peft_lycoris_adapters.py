"""LoHa and LoKr as peft writes them are read with the update that peft merges, to 1e-6."""

from __future__ import annotations

import warnings

import peft
import pytest
import torch
from peft.tuners.lycoris_utils import LycorisLayer
from safetensors.torch import load_file, save_file

import subspace
from subspace.adapters.load import explain
from tests.support.peft_adapters import (
    PREFIX,
    assert_same_update,
    edited,
    merged_deltas,
    tiny_bert,
    two_linears,
    written,
)

pytestmark = pytest.mark.filterwarnings("ignore:::peft", "ignore:::transformers")


def convolutions():
    torch.manual_seed(1)
    return torch.nn.Sequential(
        torch.nn.Conv2d(6, 10, (3, 2)), torch.nn.Conv2d(10, 4, 1), torch.nn.Conv1d(4, 9, 3)
    )


def made(kind, model, adapter="default", seed=0, **config):
    config = {"r": 2, "alpha": 7} | config
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = peft.get_peft_model(model, kind(**config), adapter_name=adapter)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in wrapped.named_parameters():
        if "hada_" in name or "lokr_" in name:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator))
    return wrapped


def held(kind, model, tmp_path, **config):
    wrapped = made(kind, model, **config)
    adapter = subspace.load(written(wrapped, tmp_path / "run"), strict=True)
    assert_same_update(adapter, merged_deltas(wrapped, LycorisLayer))
    assert adapter.set_aside == ()
    return adapter


def test_loha(tmp_path):
    adapter = held(peft.LoHaConfig, two_linears(), tmp_path, target_modules=["0", "2"])
    assert (adapter.format, str(adapter.method)) == ("PEFT LoHa and LoKr", "LoHa")
    assert {name: info.rank for name, info in adapter.updates.items()} == {"0": 4, "2": 4}
    assert adapter["0"].scale == 7 / 2
    assert adapter.updates["0"].dtype == "float32"
    (note,) = adapter.notes
    assert note.startswith("A and B are multiplied out of smaller factors")
    assert "adapter_model.safetensors (base_model.model.0.hada_w1_a" in adapter["0"].source


def test_loha_whose_rank_squared_is_beyond_the_layer(tmp_path):
    adapter = held(peft.LoHaConfig, two_linears(), tmp_path, target_modules=["0", "2"], r=5)
    assert {name: info.rank for name, info in adapter.updates.items()} == {"0": 6, "2": 4}


@pytest.mark.parametrize("effective", [True, False])
@pytest.mark.parametrize("kind", [peft.LoHaConfig, peft.LoKrConfig])
def test_convolutions(kind, effective, tmp_path):
    targets = ["0", "1", "2"]
    held(kind, convolutions(), tmp_path, target_modules=targets, use_effective_conv2d=effective)


@pytest.mark.parametrize("both", [True, False])
@pytest.mark.parametrize("r", [1, 2, 40])
def test_lokr(r, both, tmp_path):
    adapter = held(
        peft.LoKrConfig, tiny_bert(), tmp_path,
        target_modules=["query", "dense"], task_type=None, r=r, decompose_both=both,
    )  # fmt: skip
    assert str(adapter.method) == "LoKr"
    assert len(adapter) == 13
    assert adapter["bert.pooler.dense"].scale == 7 / r  # PEFT divides also where both are full


def test_a_full_conv1d_is_read_as_peft_applies_it(tmp_path):
    adapter = held(
        peft.LoKrConfig, convolutions(), tmp_path, target_modules=["2"], r=30, decompose_factor=2
    )
    assert adapter.notes[-1].startswith("2: of a Conv1d with a full lokr_w2 PEFT applies")


def test_a_full_conv1d_with_two_factors_before_it(tmp_path):
    model = torch.nn.Sequential(torch.nn.Conv1d(10, 9, 3))
    wrapped = made(
        peft.LoKrConfig, model, target_modules=["0"], r=2, decompose_both=True, decompose_factor=5
    )
    layer = wrapped.base_model.model[0]
    assert "default" in layer.lokr_w2
    assert "default" in layer.lokr_w1_a
    adapter = subspace.load(written(wrapped, tmp_path))
    assert_same_update(adapter, merged_deltas(wrapped, LycorisLayer))


@pytest.mark.parametrize("kind", [peft.LoHaConfig, peft.LoKrConfig])
def test_patterns_and_saved_heads(kind, tmp_path):
    wrapped = made(
        kind, tiny_bert(), target_modules=["query"], task_type="SEQ_CLS", modules_to_save=None,
        rank_pattern={"layer.1.attention.self.query": 3},
        alpha_pattern={"layer.[02].attention.*query": 5},
    )  # fmt: skip
    adapter = subspace.load(written(wrapped, tmp_path), strict=True)
    assert_same_update(adapter, merged_deltas(wrapped, LycorisLayer))
    assert [u.scale for u in adapter.updates.values()] == [5 / 2, 7 / 3, 5 / 2]
    assert {t.reason_text for t in adapter.set_aside} == {
        "a full copy of the module (modules_to_save)"
    }


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", [peft.LoHaConfig, peft.LoKrConfig])
def test_half_precision(kind, dtype, tmp_path):
    wrapped = made(kind, two_linears(), target_modules=["0", "2"]).to(dtype)
    adapter = subspace.load(written(wrapped, tmp_path))
    assert_same_update(adapter, merged_deltas(wrapped, LycorisLayer))
    assert adapter.updates["0"].dtype == str(dtype).removeprefix("torch.")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_rank_is_counted_against_the_rounding_of_what_is_stored(dtype, tmp_path):
    """A LoHa of rank 1 whose second rank is all rounding; float64 products have lost no more."""
    wrapped = made(
        peft.LoHaConfig, torch.nn.Sequential(torch.nn.Linear(40, 50)), target_modules="0"
    )
    layer = wrapped.base_model.model[0]
    for n in "12":
        left, right = (getattr(layer, f"hada_w{n}_{side}").default.data for side in "ab")
        left[:, 1] = left[:, 0] / 3  # not a number that half precision holds
        right[1] = right[0] * 3
    folder = written(wrapped.to(dtype), tmp_path)
    adapter = subspace.load(folder)
    spectrum = subspace.spectrum(adapter["0"])
    assert spectrum.rank == 1
    assert spectrum.S[1] < spectrum.level


def test_a_live_state_dict_and_a_torch_file(tmp_path):
    wrapped = made(peft.LoHaConfig, two_linears(), target_modules=["0", "2"])
    folder = written(wrapped, tmp_path)
    live = {name: t for name, t in wrapped.state_dict().items() if "hada_" in name}
    (folder / "adapter_model.safetensors").unlink()
    torch.save(live, folder / "adapter_model.bin")
    adapter = subspace.load(folder, strict=True)
    assert_same_update(adapter, merged_deltas(wrapped, LycorisLayer))


def test_one_of_several_adapters(tmp_path):
    wrapped = made(peft.LoHaConfig, two_linears(), target_modules=["0"])
    folder = written(wrapped, tmp_path)
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    both = {f"{name}.{which}": t.clone() for name, t in tensors.items() for which in ("one", "two")}
    path.unlink()
    save_file(both, path)
    with pytest.raises(subspace.SubspaceError, match=r"holds 2 adapters .* adapter_name='one'"):
        subspace.load(folder)
    with pytest.raises(subspace.SubspaceError, match="no adapter 'three'"):
        subspace.load(folder, adapter_name="three")
    adapter = subspace.load(folder, adapter_name="two", strict=True)
    assert_same_update(adapter, merged_deltas(wrapped, LycorisLayer))
    assert {t.reason_text for t in adapter.set_aside} == {"of another adapter, 'one'"}


def test_why_it_is_taken_for_what_it_is(tmp_path):
    folder = written(made(peft.LoKrConfig, two_linears(), target_modules=["0"]), tmp_path)
    assert next(iter(explain(folder).items())) == (
        "PEFT LoHa and LoKr", f"{folder / 'adapter_config.json'} has peft_type LOKR"
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    wrapped = made(peft.LoHaConfig, two_linears(), target_modules=["0", "2"])
    return written(wrapped, tmp_path)


def stored(folder, change):
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    path.unlink()
    save_file(tensors, path)
    return folder


def refused(folder, words):
    with pytest.raises(subspace.SubspaceError, match=words) as raised:
        subspace.load(folder)
    assert str(folder) in str(raised.value)


def test_no_config(folder):
    (folder / "adapter_config.json").unlink()
    refused(folder, "has no adapter_config.json beside it, which holds alpha")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"alpha": None}, "has no alpha, so the scale is unknown"),
        ({"alpha": "eight"}, "alpha = 'eight' is not a number"),
        ({"rank_pattern": {"0": 0}}, "is not a rank"),
    ],
)
def test_a_config_that_makes_no_sense(folder, fields, words):
    refused(edited(folder, **fields), words)


def test_a_rank_that_the_config_does_not_have_is_noted(folder):
    adapter = subspace.load(edited(folder, r=9))
    assert adapter["0"].scale == 7 / 2
    assert adapter.notes[-1].endswith("0 (9, stored 2) and 2 (9, stored 2)") or (
        "0 (9, stored 2), 2 (9, stored 2)" in adapter.notes[-1]
    )


def test_no_rank_for_two_full_matrices(tmp_path):
    wrapped = made(peft.LoKrConfig, two_linears(), target_modules=["0"], r=30)
    folder = written(wrapped, tmp_path)
    refused(edited(folder, r=None), "has no r, which the scale of module '0' needs")


def test_a_missing_partner(folder):
    refused(
        stored(folder, lambda tensors: tensors.pop(f"{PREFIX}0.hada_w2_b")),
        "has no partner: module '0' lacks hada_w2_b",
    )


def test_what_is_not_understood_is_said(folder):
    stored(folder, lambda tensors: tensors.update({f"{PREFIX}0.hada_w9": torch.ones(2)}))
    (tensor,) = subspace.load(folder).set_aside
    assert (tensor.reason_text, tensor.known) == ("not understood", False)
    with pytest.raises(subspace.SubspaceError, match="1 tensors are not understood"):
        subspace.load(folder, strict=True)
