"""LoRA of experts' parameters as peft writes it is read with the update that it merges, to 1e-6."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

import subspace
from tests.support.experts import BOTH, EXPERTS, Model, tiny_gpt_oss, tiny_mixtral
from tests.support.peft_adapters import PREFIX, assert_same_update, edited, made, written

pytestmark = pytest.mark.filterwarnings("ignore:::peft", "ignore:::transformers")


def merged(wrapped, parameters, *, transposed=False):
    """Merge as peft merges, in float64; one (d_out, d_in) delta of the map an expert."""
    wrapped.double()
    model = wrapped.base_model.model
    held = {name: dict(model.named_parameters())[_stored(model, name)] for name in parameters}
    before = {name: parameter.detach().clone() for name, parameter in held.items()}
    wrapped.merge_adapter()
    deltas = {}
    for name in parameters:
        delta = (dict(model.named_parameters())[_stored(model, name)] - before[name]).detach()
        for expert, each in enumerate(delta):
            deltas[f"{name}.{expert}"] = each.T if transposed else each
    return deltas


def _stored(model, name):
    """Find a parameter behind the wrappers that peft put around its module."""
    module, _, parameter = name.rpartition(".")
    (found,) = (
        n
        for n, _ in model.named_parameters()
        if n.replace(".base_layer", "") == f"{module}.{parameter}"
    )
    return found


@pytest.mark.parametrize(
    ("model", "transposed"), [(tiny_mixtral, False), (tiny_gpt_oss, True)], ids=["mixtral", "oss"]
)
@pytest.mark.parametrize("targets", [BOTH, BOTH[:1], BOTH[1:], ["gate_up_proj", "down_proj"]])
def test_experts(model, transposed, targets, tmp_path):
    wrapped = made(model(), target_modules=["q_proj"], target_parameters=targets, use_rslora=True)
    adapter = subspace.load(written(wrapped, tmp_path), strict=True)
    names = [f"{EXPERTS}.{target.rpartition('.')[2]}" for target in targets]
    wanted = merged(wrapped, names, transposed=transposed)
    experts = adapter.select("*experts*")
    assert_same_update(experts, wanted)
    assert len(adapter) == 3 * len(targets) + 1
    assert {info.kind for info in experts.updates.values()} == {"expert"}
    assert {info.rank for info in adapter.updates.values()} == {3}
    assert adapter.set_aside == ()
    assert any("is taken from its version" in note for note in adapter.notes) == (len(targets) == 1)


def test_ranks_and_alphas_by_pattern(tmp_path):
    wrapped = made(
        tiny_mixtral(), target_modules=["q_proj"], target_parameters=BOTH,
        rank_pattern={"experts.down_proj": 2}, alpha_pattern={"experts.gate_up_proj": 5},
    )  # fmt: skip
    adapter = subspace.load(written(wrapped, tmp_path), strict=True)
    wanted = merged(wrapped, [f"{EXPERTS}.gate_up_proj", f"{EXPERTS}.down_proj"])
    assert_same_update(adapter.select("*experts*"), wanted)
    assert adapter[f"{EXPERTS}.down_proj.0"].scale == 7 / 2
    assert adapter[f"{EXPERTS}.gate_up_proj.0"].scale == 5 / 3


def test_a_matrix_is_a_layer(tmp_path):
    """A parameter of two dimensions is one expert, and a weight is its module's."""
    wrapped = made(tiny_mixtral(), target_modules=["q_proj"], target_parameters=["gate.weight"])
    adapter = subspace.load(written(wrapped, tmp_path), strict=True)
    gate = adapter["model.layers.0.mlp.gate"]
    wrapped.double()
    layer = wrapped.base_model.model.model.layers[0].mlp.gate
    before = layer.base_layer.weight.detach().clone()
    wrapped.merge_adapter()
    torch.testing.assert_close(gate.delta(), layer.base_layer.weight.detach() - before)


@pytest.mark.parametrize(
    ("version", "flipped"), [("0.17.1", None), ("0.19.0", True), ("0.19.1.dev0@f00", False)]
)
def test_which_side_a_is_on_is_by_the_version(version, flipped, tmp_path):
    wrapped = made(tiny_mixtral(), target_modules=["q_proj"], target_parameters=BOTH[:1])
    folder = edited(written(wrapped, tmp_path), peft_version=version)
    adapter = subspace.load(folder, strict=True)
    if flipped is None:
        assert len(adapter) == 1
        assert len(adapter.set_aside) == 2
        assert all("not stored by PEFT before 0.19.1" in t.reason_text for t in adapter.set_aside)
        return
    wanted = merged(wrapped, [f"{EXPERTS}.gate_up_proj"], transposed=flipped)
    assert_same_update(adapter.select("*experts*"), wanted)


@pytest.mark.parametrize("width", [4, 8, 16])
def test_two_parameters_tell_the_side_by_their_shapes(width, tmp_path):
    """… whatever the version says: as 0.17 and 0.19.0 wrote a Mixtral, A is on the output side."""
    wrapped = made(tiny_mixtral(8, width), target_modules=["q_proj"], target_parameters=BOTH)
    folder = edited(written(wrapped, tmp_path), peft_version="0.17.1")
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    for layer in ("", "base_layer."):
        a, b = (f"{PREFIX}{EXPERTS}.{layer}lora_{side}.weight" for side in "AB")
        A = tensors[a].reshape(3, 3, -1)  # (E, r, in)
        B = tensors[b].reshape(len(tensors[b]), 3, 3)  # (out, r, E)
        tensors[a] = B.permute(2, 1, 0).reshape(9, -1).contiguous()
        tensors[b] = A.permute(2, 1, 0).reshape(-1, 9).contiguous()
    path.unlink()
    save_file(tensors, path)
    adapter = subspace.load(folder, strict=True)
    wanted = merged(wrapped, [f"{EXPERTS}.gate_up_proj", f"{EXPERTS}.down_proj"])
    assert_same_update(adapter.select("*experts*"), wanted)


def test_parameters_that_cannot_be_told_apart_are_set_aside(tmp_path):
    model = Model(one=(2, 6, 8), two=(2, 6, 8))
    wrapped = made(model, target_modules=["lin"], target_parameters=["experts.one", "experts.two"])
    adapter = subspace.load(written(wrapped, tmp_path), strict=True)
    assert list(adapter) == ["lin"]
    assert {t.reason_text for t in adapter.set_aside} == {
        "updates of parameters (one, two): which factors are of which parameter is not stored"
    }
    assert len(adapter.set_aside) == 4


def test_shapes_that_are_of_no_expert_tell_nothing(tmp_path):
    model = Model(gate_up_proj=(2, 6, 8), down_proj=(2, 6, 8))
    wrapped = made(model, target_modules=["lin"], target_parameters=BOTH)
    adapter = subspace.load(written(wrapped, tmp_path), strict=True)
    assert list(adapter) == ["lin"]
    assert all("of which parameter is not stored" in t.reason_text for t in adapter.set_aside)


def test_no_rank_tells_no_experts(tmp_path):
    wrapped = made(Model(one=(2, 6, 8)), target_modules=["lin"], target_parameters=["experts.one"])
    adapter = subspace.load(edited(written(wrapped, tmp_path), r=None))
    assert list(adapter) == ["lin"]
    assert "which tells the number of experts" in adapter.set_aside[0].reason_text


@pytest.fixture
def folder(tmp_path):
    wrapped = made(Model(one=(2, 6, 8)), target_modules=["lin"], target_parameters=["experts.one"])
    return written(wrapped, tmp_path)


@pytest.mark.parametrize(
    ("side", "shape", "words"),
    [
        ("A", (5, 8), "have different ranks, 5 and 6"),
        ("A", None, "has no partner: module 'experts' lacks A"),
        ("A", (6, 8, 1), "a shape that no factor has"),
    ],
)
def test_what_does_not_fit_is_named(folder, side, shape, words):
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    name = f"{PREFIX}experts.lora_{side}.weight"
    del tensors[name]
    if shape is not None:
        tensors[name] = torch.ones(shape)
    path.unlink()
    save_file(tensors, path)
    with pytest.raises(subspace.SubspaceError, match=words) as raised:
        subspace.load(folder)
    assert str(folder) in str(raised.value)


def test_two_factors_for_one_place(folder):
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    name = f"{PREFIX}experts.lora_A.weight"
    tensors[name.replace(".lora_A", "._orig_mod.lora_A")] = tensors[name].clone()
    path.unlink()
    save_file(tensors, path)
    with pytest.raises(subspace.SubspaceError, match="are the same factor of module 'experts'"):
        subspace.load(folder)


def test_no_whole_number_of_experts(folder):
    with pytest.raises(subspace.SubspaceError, match="no whole number of experts of rank 4"):
        subspace.load(edited(folder, r=4))


def test_more_experts_than_a_layer_has(folder):
    path = folder / "adapter_model.safetensors"
    tensors = {
        f"{PREFIX}experts.lora_A.weight": torch.ones(70_000, 1),
        f"{PREFIX}experts.lora_B.weight": torch.ones(1, 70_000),
    }
    path.unlink()
    save_file(tensors, path)
    with pytest.raises(subspace.SubspaceError, match="70000 experts, more than 65536"):
        subspace.load(edited(folder, r=1))


@pytest.mark.parametrize("parameters", [BOTH, BOTH[1:]])
def test_experts_without_their_config_are_refused_whatever_alpha(tmp_path, parameters):
    wrapped = made(tiny_mixtral(), target_modules=[], target_parameters=parameters)
    folder = written(wrapped, tmp_path)
    (folder / "adapter_config.json").unlink()
    with pytest.raises(subspace.SubspaceError, match="whose number only adapter_config"):
        subspace.load(folder / "adapter_model.safetensors", alpha=7)
