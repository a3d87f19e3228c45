"""Megatron-Bridge's and NeMo's state dicts are read with the update that they merge.

Neither installs without CUDA's toolkits, so the files are built here by the documented rule:
`LoRAMerge.merge`, ``alpha / dim * linear_out @ linear_in``.
"""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

import subspace
from tests.support.peft_adapters import assert_same_update

ALPHA = 7
QKV, FC1, EXPERT = (
    "decoder.layers.0.self_attention.linear_qkv",
    "decoder.layers.11.mlp.linear_fc1",
    "decoder.layers.2.mlp.experts.local_experts.3.linear_fc2",
)
SHAPES = {QKV: (24, 10, 3), FC1: (40, 10, 2), EXPERT: (10, 20, 5)}


def state(shapes=SHAPES, kind="adapter", prefix="", dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    out = {}
    for path, (d_out, d_in, dim) in shapes.items():
        name = f"{prefix}{path}.{kind}"
        out[f"{name}.linear_in.weight"] = torch.randn(dim, d_in, generator=generator).to(dtype)
        out[f"{name}.linear_out.weight"] = torch.randn(d_out, dim, generator=generator).to(dtype)
    return out


def merged(tensors, alpha=ALPHA):
    out = {}
    for name, linear_in in tensors.items():
        if name.endswith(".linear_in.weight"):
            linear_out = tensors[name.replace("linear_in", "linear_out")]
            path = name.split(".adapter", 1)[0].replace("module.", "")
            out[path] = alpha / len(linear_in) * (linear_out.double() @ linear_in.double())
    return out


@pytest.mark.parametrize("prefix", ["", "module.", "module.module."])
@pytest.mark.parametrize("entry", [None, "state_dict", "model"])
def test_a_gathered_state_dict(tmp_path, prefix, entry):
    tensors = state(prefix=prefix)
    torch.save({entry: tensors, "iteration": 3} if entry else tensors, tmp_path / "x.pt")
    adapter = subspace.load(tmp_path / "x.pt", alpha=ALPHA, strict=True)
    assert_same_update(adapter, merged(tensors))
    assert (adapter.format, str(adapter.method)) == ("Megatron / NeMo", "LoRA")
    assert {name: u.scale for name, u in adapter.items()} == {QKV: 7 / 3, FC1: 3.5, EXPERT: 1.4}
    (note,) = adapter.notes
    assert note.startswith(f"{QKV}, {FC1}: rows in Megatron's order")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(tmp_path, dtype):
    tensors = state(dtype=dtype)
    save_file(tensors, tmp_path / "x.safetensors")
    assert_same_update(subspace.load(tmp_path, alpha=ALPHA), merged(tensors))


def test_canonical_lora_has_an_update_for_each_part(tmp_path):
    parts = {part: state({QKV: (8, 10, 3)}, f"adapter.adapter_{part}") for part in "qkv"}
    save_file(
        {k: v for part in parts.values() for k, v in part.items()}, tmp_path / "x.safetensors"
    )
    adapter = subspace.load(tmp_path, alpha=ALPHA, strict=True)
    assert_same_update(adapter, {f"{QKV}.{p}": merged(held)[QKV] for p, held in parts.items()})
    assert adapter.notes == ()


def test_one_of_several_adapters_is_chosen(tmp_path):
    one, two = state(kind="adapters.0"), state({QKV: (24, 10, 2)}, "adapters.1")
    save_file(one | two, tmp_path / "x.safetensors")
    adapter = subspace.load(tmp_path, alpha=ALPHA, adapter_name="1", strict=True)
    assert_same_update(adapter, merged(two))
    assert {t.reason_text for t in adapter.set_aside} == {"of another adapter than '1'"}
    with pytest.raises(subspace.SubspaceError, match=r"2 adapters \(0, 1\); choose with load"):
        subspace.load(tmp_path, alpha=ALPHA)
    with pytest.raises(KeyError, match="no adapter '5'; its tensors have those of 0, 1"):
        subspace.load(tmp_path, alpha=ALPHA, adapter_name="5")
    save_file(one, tmp_path / "x.safetensors")
    assert_same_update(subspace.load(tmp_path, alpha=ALPHA), merged(one))


def test_dora_has_its_low_rank_part(tmp_path):
    tensors = state() | {f"{QKV}.adapter.weight_magnitude": torch.ones(24)}
    tensors[f"{QKV}.to_wrap.weight"] = torch.ones(24, 10)
    save_file(tensors, tmp_path / "x.safetensors")
    adapter = subspace.load(tmp_path, alpha=ALPHA)
    assert str(adapter.method) == "DoRA (BA part)"
    assert {t.name: t.known for t in adapter.set_aside} == {
        f"{QKV}.adapter.weight_magnitude": True,
        f"{QKV}.to_wrap.weight": False,
    }


def test_a_shard_is_refused_with_the_way_out(tmp_path):
    tensors = state()
    tensors[f"{QKV}.adapter.linear_in.weight"] = torch.ones(1, 10)
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(subspace.SubspaceError, match="1 and 3: shards of tensor parallelism"):
        subspace.load(tmp_path, alpha=ALPHA)


@pytest.mark.parametrize(
    ("change", "alpha", "message"),
    [
        ({}, None, "a Megatron state dict stores no alpha"),
        ({f"{QKV}.adapter.linear_out.weight": None}, ALPHA, "lacks linear_out"),
        ({f"{QKV}.adapter.layer_norm.weight": torch.ones(10)}, ALPHA, "normalises its input"),
        ({f"{QKV}.adapter.linear_in.weight": torch.ones(10)}, ALPHA, "a shape that no factor has"),
    ],
)
def test_what_does_not_fit(tmp_path, change, alpha, message):
    tensors = {k: v for k, v in (state() | change).items() if v is not None}
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(subspace.SubspaceError, match=message):
        subspace.load(tmp_path, alpha=alpha)
