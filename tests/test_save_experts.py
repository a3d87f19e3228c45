"""Experts that PEFT trained are written so that PEFT applies the same updates, bit for bit."""

from __future__ import annotations

import json
import warnings
from copy import deepcopy

import peft
import pytest
import torch
from safetensors.torch import load_file

import subspace
from subspace.errors import FormatError
from tests.support.experts import BOTH, EXPERTS, Model, tiny_gpt_oss, tiny_mixtral
from tests.support.peft_adapters import edited, made, written

pytestmark = pytest.mark.filterwarnings("ignore:::peft", "ignore:::transformers")


def weights(model):
    """Every parameter of a model, by the name that it has without peft's wrappers."""
    return {n.replace(".base_layer", ""): p.detach() for n, p in model.named_parameters()}


def loaded(base, folder):
    """What peft makes of a base with what was written, in float64."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # missing and unexpected keys
        warnings.filterwarnings("ignore", message="Model with `tie_word_embeddings")
        wrapped = peft.PeftModel.from_pretrained(deepcopy(base), str(folder))
    return weights(wrapped.double().merge_and_unload())


def tensors(folder):
    return load_file(folder / "adapter_model.safetensors")


@pytest.mark.parametrize("model", [tiny_mixtral, tiny_gpt_oss], ids=["mixtral", "oss"])
@pytest.mark.parametrize("targets", [BOTH, BOTH[:1], BOTH[1:], ["gate_up_proj", "down_proj"]])
def test_the_same_bits_and_the_same_merge(model, targets, tmp_path):
    base = model()
    wrapped = made(
        deepcopy(base), target_modules=["q_proj"], target_parameters=targets, use_rslora=True,
        rank_pattern={"experts.down_proj": 2}, alpha_pattern={"experts.gate_up_proj": 5},
    )  # fmt: skip
    source = written(wrapped, tmp_path / "run")
    subspace.save(subspace.load(source), tmp_path / "out")
    one, other = tensors(source), tensors(tmp_path / "out")
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    wanted, found = loaded(base, source), loaded(base, tmp_path / "out")
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)
    again = subspace.load(tmp_path / "out", strict=True)
    assert list(again) == list(subspace.load(source))


def test_a_file_of_another_release_gets_the_layout_of_today(tmp_path):
    base = tiny_mixtral()
    wrapped = made(deepcopy(base), target_modules=["q_proj"], target_parameters=BOTH[:1])
    source = edited(written(wrapped, tmp_path / "run"), peft_version="0.19.0")  # A is on the output
    adapter = subspace.load(source)
    subspace.save(adapter, tmp_path / "out")
    again = subspace.load(tmp_path / "out")
    assert json.loads((tmp_path / "out/adapter_config.json").read_text())["peft_version"] > "0.19.0"
    for name, update in adapter.items():
        assert torch.equal(again[name].A, update.A)
        assert torch.equal(again[name].B, update.B)


def test_some_experts_or_one_of_two_parameters(tmp_path):
    base = tiny_mixtral()
    wrapped = made(deepcopy(base), target_modules=["q_proj"], target_parameters=BOTH)
    adapter = subspace.load(written(wrapped, tmp_path / "run"))
    whole, before = loaded(base, tmp_path / "run"), weights(deepcopy(base).double())
    # The wrapper of down_proj is around that of gate_up_proj, and alone it is the only one.
    for chosen, inside in ((f"{EXPERTS}.gate_up_proj.*", "gate_up"), ("*.down_proj.1", "down")):
        out = subspace.save(adapter.select(chosen), tmp_path / inside)
        found = loaded(base, tmp_path / inside)
        for name, W in before.items():
            wanted = W.clone()
            if inside == "gate_up" and name.endswith("gate_up_proj"):
                wanted = whole[name]
            if inside == "down" and name.endswith("experts.down_proj"):
                wanted[1] = whole[name][1]
            torch.testing.assert_close(found[name], wanted, rtol=1e-12, atol=1e-12)
        left = any("zeros for the experts that were left out" in note for note in out.notes)
        assert left == (inside == "down")


def test_resized_experts_share_the_largest_rank(tmp_path):
    base = tiny_mixtral()
    wrapped = made(deepcopy(base), target_modules=["q_proj"], target_parameters=BOTH, r=4)
    adapter = subspace.load(written(wrapped, tmp_path / "run"))
    smaller = subspace.resize(adapter, rank=2, budget="all").adapter
    assert len({info.rank for info in smaller.updates.values()}) > 1
    out = subspace.save(smaller, tmp_path / "out")
    assert any("filled up with zeros" in note for note in out.notes)
    found, before = loaded(base, tmp_path / "out"), weights(deepcopy(base).double())
    for name, update in smaller.items():
        path, _, number = name.rpartition(".")
        if number.isdecimal():
            delta = (found[path] - before[path])[int(number)]
        else:
            delta = found[f"{name}.weight"] - before[f"{name}.weight"]
        torch.testing.assert_close(delta, update.delta(), rtol=1e-6, atol=1e-6)


def test_a_parameter_of_one_matrix(tmp_path):
    base = tiny_mixtral()
    wrapped = made(deepcopy(base), target_modules=[], target_parameters=["gate.weight"])
    subspace.save(subspace.load(written(wrapped, tmp_path / "run")), tmp_path / "out")
    wanted, found = loaded(base, tmp_path / "run"), loaded(base, tmp_path / "out")
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)


def test_what_cannot_be_told_is_not_written_again(tmp_path):
    model = Model(one=(2, 6, 8), two=(2, 6, 8))
    wrapped = made(model, target_modules=["lin"], target_parameters=["experts.one", "experts.two"])
    source = subspace.load(written(wrapped, tmp_path / "run"))
    with pytest.raises(FormatError, match="has target_parameters, with which"):
        subspace.save(source, tmp_path / "out", updates_only=True)
