"""What loralib writes is read with the update that loralib itself merges, to 1e-6.

loralib's Conv2d merges where the kernel is square, which is the one convolution whose `view` works.
"""

from __future__ import annotations

import re
from typing import Any

import loralib
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

import subspace
from tests.support.peft_adapters import assert_same_update

ALPHA = 7


class Model(torch.nn.Module):
    def __init__(self, **layers: torch.nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)


def made(**layers: torch.nn.Module) -> Any:
    model = Model(**layers).double()
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator).double()
    return model


def merged(model: Any) -> dict[str, torch.Tensor]:
    """Merge as loralib merges on `eval`; (d_out, stored d_in) for each layer."""
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.eval()
    after = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.train()
    deltas = {
        name.removesuffix(".weight").removesuffix(".conv"): (after[name] - before[name])
        for name in after
        if name.endswith("weight") and (after[name] != before[name]).any()
    }
    assert deltas
    return deltas


def kinds() -> Any:
    return made(
        wte=loralib.Embedding(11, 6, r=2, lora_alpha=ALPHA),
        fc=loralib.Linear(6, 10, r=3, lora_alpha=ALPHA),
        out=loralib.Linear(10, 5, r=1, lora_alpha=ALPHA, fan_in_fan_out=True),
    )


def assert_kinds(adapter: Any, model: Any) -> None:
    deltas = merged(model)
    deltas["wte"], deltas["out"] = deltas["wte"].T, deltas["out"].T
    assert_same_update(adapter, deltas)


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_linear_embedding_and_transposed(tmp_path, suffix):
    model = kinds()
    path = tmp_path / f"lora.{suffix}"
    state = loralib.lora_state_dict(model)
    save_file(state, path) if suffix == "safetensors" else torch.save(state, path)
    adapter = subspace.load(path, alpha=ALPHA, strict=True)
    assert_kinds(adapter, model)
    assert [update.scale for update in adapter.values()] == [3.5, 7 / 3, 7]
    assert (adapter.format, str(adapter.method), adapter.notes) == ("loralib", "LoRA", ())


@pytest.mark.parametrize("entry", ["state_dict", "model_state_dict", "model", "module"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
def test_a_state_dict_inside_a_training_checkpoint(tmp_path, entry, prefix):
    model = kinds()
    state = {prefix + name: tensor for name, tensor in loralib.lora_state_dict(model).items()}
    optimizer = torch.optim.Adam(p for p in model.parameters() if p.requires_grad)
    checkpoint = {entry: state, "epoch": 3, "optimizer": optimizer.state_dict(), "note": "x"}
    torch.save(checkpoint, tmp_path / "last.ckpt")
    adapter = subspace.load(tmp_path / "last.ckpt", alpha=ALPHA, strict=True)
    assert_kinds(adapter, model)


def test_a_checkpoint_with_two_state_dicts_is_refused(tmp_path):
    state = {"fc.lora_A": torch.ones(2, 3), "fc.lora_B": torch.ones(4, 2)}
    torch.save({"model": state, "state_dict": state}, tmp_path / "x.pt")
    with pytest.raises(subspace.SubspaceError, match="weights at state_dict and at model; save"):
        subspace.load(tmp_path / "x.pt", alpha=1)
    torch.save({"model": {"fc": state}}, tmp_path / "x.pt")
    with pytest.raises(subspace.SubspaceError, match="entry 'fc' is a dict, not a tensor"):
        subspace.load(tmp_path / "x.pt", alpha=1)


@pytest.mark.parametrize(
    "enable", [[True, False, True], [True, True, True], [False, True], [True, False, False, False]]
)
@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("transposed", [False, True])
def test_a_merged_linear_is_one_update_for_each_enabled_block(tmp_path, enable, whole, transposed):
    size = 4
    layer = loralib.MergedLinear(
        6,
        size * len(enable),
        r=2,
        lora_alpha=ALPHA,
        enable_lora=enable,
        fan_in_fan_out=transposed,
    )
    model = made(c_attn=layer)
    torch.save(model.state_dict() if whole else loralib.lora_state_dict(model), tmp_path / "x.pt")
    adapter = subspace.load(tmp_path / "x.pt", alpha=ALPHA, strict=True)
    delta = merged(model)["c_attn"]
    delta = delta.T if transposed else delta
    blocks = [block for block, on in zip(delta.split(size), enable, strict=True) if on]
    names = [f"c_attn.{n}" for n in range(len(blocks))] if len(blocks) > 1 else ["c_attn"]
    assert_same_update(adapter, dict(zip(names, blocks, strict=True)))
    assert {update.scale for update in adapter.values()} == {ALPHA / 2}
    told = len(blocks) > 1 or whole
    assert [note.split(" which ")[0] for note in adapter.notes] == (
        [] if not told else [adapter.notes[0].split(" which ")[0]]
    )
    assert ("which rows of the base's weight" in "".join(adapter.notes)) == told


@given(
    rank=st.integers(1, 3), kernel=st.sampled_from([1, 2, 3]), out=st.integers(1, 5),
    groups=st.sampled_from([1, 2]),
)  # fmt: skip
def test_a_convolution_of_any_kernel(tmp_path_factory, rank, kernel, out, groups):
    layer = loralib.Conv2d(
        4, out * groups, kernel, r=rank, lora_alpha=ALPHA, groups=groups if kernel == 2 else 1
    )
    model = made(conv1=layer)
    path = tmp_path_factory.mktemp("conv") / "x.safetensors"
    save_file(model.state_dict(), path)
    adapter = subspace.load(path, alpha=ALPHA, strict=True)
    assert_same_update(adapter, {k: v.flatten(1) for k, v in merged(model).items()})
    assert adapter["conv1"].scale == ALPHA / rank
    assert adapter.updates["conv1"].kind == "conv2d"
    assert "whole model's state dict" in adapter.set_aside[0].reason_text


def test_a_convolution_that_is_no_product_is_refused(tmp_path):
    model = made(conv1=loralib.Conv2d(4, 4, 3, r=2, groups=2))
    torch.save(model.state_dict(), tmp_path / "x.pt")
    with pytest.raises(subspace.SubspaceError, match="in groups, of whose factors"):
        subspace.load(tmp_path / "x.pt", alpha=ALPHA)


def test_a_convolution_without_its_weight_has_no_scale(tmp_path):
    model = made(conv1=loralib.Conv2d(4, 5, 3, r=2))
    torch.save(loralib.lora_state_dict(model), tmp_path / "x.pt")
    with pytest.raises(
        subspace.SubspaceError, match="by its name a convolution, whose ker"
    ) as error:
        subspace.load(tmp_path / "x.pt", alpha=ALPHA)
    pattern = re.search('pattern="(.*?)"', str(error.value))[1]
    assert set(subspace.load(tmp_path / "x.pt", pattern=pattern, alpha=ALPHA)) == {"conv1"}


@pytest.mark.parametrize("bias", ["all", "lora_only"])
def test_biases_are_set_aside(tmp_path, bias):
    model = made(fc=loralib.Linear(6, 10, r=3, lora_alpha=ALPHA))
    torch.save(loralib.lora_state_dict(model, bias=bias), tmp_path / "x.pt")
    adapter = subspace.load(tmp_path / "x.pt", alpha=ALPHA, strict=True)
    assert [(t.name, t.reason_text.split(",")[0]) for t in adapter.set_aside] == [
        ("fc.bias", "a bias")
    ]


def test_without_alpha_it_is_asked_for(tmp_path):
    torch.save(loralib.lora_state_dict(kinds()), tmp_path / "x.pt")
    with pytest.raises(subspace.SubspaceError, match=r"no alpha.*load\(…, alpha=16\) or --alpha"):
        subspace.load(tmp_path / "x.pt")
    for alpha in (float("nan"), float("inf"), "16", True):
        with pytest.raises(subspace.SubspaceError, match=r"alpha = .* is not a number"):
            subspace.load(tmp_path / "x.pt", alpha=alpha)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(tmp_path, dtype):
    state = {name: t.to(dtype) for name, t in loralib.lora_state_dict(kinds()).items()}
    torch.save(state, tmp_path / "x.pt")
    update = subspace.load(tmp_path / "x.pt", alpha=ALPHA)["fc"]
    wanted = ALPHA / 3 * (state["fc.lora_B"].double() @ state["fc.lora_A"].double())
    assert torch.equal(update.delta(), wanted)
    assert update.A.dtype == dtype


A, B = "fc.lora_A", "fc.lora_B"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({B: None}, r"'fc.lora_A' has no partner: module 'fc' lacks lora_B"),
        ({B: torch.ones(10, 2)}, r"'fc.lora_A' \(3, 6\) and 'fc.lora_B' \(10, 2\) have different"),
        ({B: torch.ones(10, 4)}, "have different ranks, 3 and 4"),
        ({B: torch.ones(10)}, "has a shape that no factor has"),
        ({A: torch.ones(3, 6, dtype=torch.int64)}, "holds int64"),
        ({A: torch.ones(5000, 1), B: torch.ones(5000, 1)}, "5000 blocks, more than 1024"),
        ({"fc.weight": torch.ones(9, 6)}, r"not the factors of a weight \(9, 6\), which is beside"),
        ({"fc.conv.weight": torch.ones(9, 6, 3, 3)}, r"not the factors of a weight \(9, 6, 3, 3\)"),
        ({"module.fc.lora_A": torch.ones(3, 6)}, "are the same factor of module 'fc'"),
    ],
)
def test_factors_that_do_not_fit(tmp_path, change, message):
    model = made(fc=loralib.Linear(6, 10, r=3))
    state = {k: v for k, v in (loralib.lora_state_dict(model) | change).items() if v is not None}
    save_file(state, tmp_path / "x.safetensors")
    with pytest.raises(subspace.SubspaceError, match=message):
        subspace.load(tmp_path / "x.safetensors", alpha=ALPHA)


def test_what_is_no_factor_is_told(tmp_path):
    model = made(fc=loralib.Linear(6, 10, r=3))
    state = loralib.lora_state_dict(model) | {"norm.weight": torch.ones(3)}
    save_file(state, tmp_path / "x.safetensors")
    with pytest.raises(subspace.SubspaceError, match=r"1 tensors are not understood: norm\.weight"):
        subspace.load(tmp_path / "x.safetensors", alpha=ALPHA, strict=True)
