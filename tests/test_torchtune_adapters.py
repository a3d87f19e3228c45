"""torchtune's files are read with the update that torchtune merges.

torchtune pulls torchao and a dozen more, so the files are built here by its documented rule
(0.6.1): `get_adapter_state_dict`'s names, `get_merged_lora_ckpt`'s merge and `hf_to_tune`'s order
of rows.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

import subspace
from tests.support.peft_adapters import assert_same_update

if TYPE_CHECKING:
    from pathlib import Path

ALPHA = 7
HEADS, KV, WIDTH = 4, 2, 6  # heads, key's heads, width of one
SHAPES = {
    "layers.0.attn.q_proj": (HEADS * WIDTH, 10, 3),
    "layers.0.attn.k_proj": (KV * WIDTH, 10, 3),
    "layers.11.attn.v_proj": (KV * WIDTH, 10, 2),
    "layers.2.attn.output_proj": (10, HEADS * WIDTH, 3),
    "layers.2.mlp.w1": (20, 10, 5),
    "layers.2.mlp.w2": (10, 20, 1),
    "layers.2.mlp.w3": (20, 10, 5),
    "output": (30, 10, 3),
}
NAMES = {
    "layers.0.attn.q_proj": "model.layers.0.self_attn.q_proj",
    "layers.0.attn.k_proj": "model.layers.0.self_attn.k_proj",
    "layers.11.attn.v_proj": "model.layers.11.self_attn.v_proj",
    "layers.2.attn.output_proj": "model.layers.2.self_attn.o_proj",
    "layers.2.mlp.w1": "model.layers.2.mlp.gate_proj",
    "layers.2.mlp.w2": "model.layers.2.mlp.down_proj",
    "layers.2.mlp.w3": "model.layers.2.mlp.up_proj",
    "output": "lm_head",
}


def state(shapes=SHAPES, dtype=torch.float32) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    out = {}
    for path, (d_out, d_in, rank) in shapes.items():
        out[f"{path}.lora_a.weight"] = torch.randn(rank, d_in, generator=generator).to(dtype)
        out[f"{path}.lora_b.weight"] = torch.randn(d_out, rank, generator=generator).to(dtype)
    return out


def merged(tensors, alpha=ALPHA) -> dict[str, torch.Tensor]:
    out = {}
    for path in {name.rsplit(".", 2)[0] for name in tensors if "lora_a" in name}:
        a, b = (tensors[f"{path}.lora_{x}.weight"].double() for x in "ab")
        out[path] = (alpha / len(a)) * b @ a
    return out


def to_torchtune(rows: torch.Tensor, heads: int) -> torch.Tensor:
    """hf_to_tune: a head's two halves become pairs side by side."""
    head_dim = rows.shape[0] // heads
    return rows.view(heads, 2, head_dim // 2, -1).transpose(1, 2).reshape(rows.shape)


def written(folder: Path, tensors, *, config=None, base=None) -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    torch.save(tensors, folder / "adapter_model.pt")
    if config is not None:
        (folder / "adapter_config.json").write_text(json.dumps(config))
    if base is not None:
        (folder / "config.json").write_text(json.dumps(base))
    return folder / "adapter_model.pt"


CONFIG = {"r": 3, "lora_alpha": ALPHA, "target_modules": ["q_proj"], "peft_type": "LORA"}
LLAMA = {"model_type": "llama", "num_attention_heads": HEADS, "num_key_value_heads": KV}


@pytest.mark.parametrize("base", [{"model_type": "qwen2"}, None])
def test_names_and_scale(tmp_path, base):
    tensors = state()
    path = written(tmp_path / "run" / "epoch_0", tensors, config=CONFIG, base=base)
    adapter = subspace.load(path, strict=True)
    assert_same_update(adapter, {NAMES[path]: delta for path, delta in merged(tensors).items()})
    assert (adapter.name, adapter.format, str(adapter.method)) == (
        "run/epoch_0",
        "torchtune",
        "LoRA",
    )
    assert adapter["lm_head"].scale == ALPHA / 3
    unsure = [note for note in adapter.notes if "rotary order" in note]
    assert len(unsure) == (base is None)


@pytest.mark.parametrize("kind", ["llama", "mistral", "gemma", "gemma2"])
def test_the_rows_of_q_and_k_are_put_back(tmp_path, kind):
    tensors = state()
    deltas = merged(tensors)
    stored = dict(tensors)
    for path, heads in (("layers.0.attn.q_proj", HEADS), ("layers.0.attn.k_proj", KV)):
        name = f"{path}.lora_b.weight"
        stored[name] = to_torchtune(tensors[name], heads)
        assert not torch.equal(stored[name], tensors[name])
    path = written(tmp_path, stored, config=CONFIG, base=LLAMA | {"model_type": kind})
    adapter = subspace.load(path)
    assert_same_update(adapter, {NAMES[path]: delta for path, delta in deltas.items()})
    assert adapter.notes == ()
    # Without the heads, norms and the right side are what they were.
    (tmp_path / "config.json").unlink()
    unsure = subspace.load(path)
    assert "rotary order for Llama, Mistral and Gemma" in unsure.notes[0]
    for module in ("model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.k_proj"):
        one, other = adapter[module].delta(), unsure[module].delta()
        assert not torch.allclose(one, other)
        assert torch.allclose(one.T @ one, other.T @ other)
    with pytest.raises(subspace.SubspaceError, match=r"rotary order of torchtune, and PEFT is to"):
        subspace.save(unsure, tmp_path / "peft")
    subspace.save(adapter, tmp_path / "peft")


@given(alpha=st.floats(0.5, 64), rank=st.integers(1, 9))
def test_alpha_is_the_configs_or_given(tmp_path_factory, alpha, rank):
    tensors = state({"layers.0.mlp.w1": (20, 10, rank)})
    folder = tmp_path_factory.mktemp("tune")
    deltas = {"model.layers.0.mlp.gate_proj": merged(tensors, alpha)["layers.0.mlp.w1"]}
    path = written(folder, tensors)
    assert_same_update(subspace.load(path, alpha=alpha), deltas)
    with pytest.raises(subspace.SubspaceError, match="torchtune's file stores no alpha"):
        subspace.load(path)
    written(folder, tensors, config=CONFIG | {"lora_alpha": alpha})
    assert_same_update(subspace.load(path), deltas)
    assert_same_update(subspace.load(folder), deltas)  # of no other writer's name


def test_pefts_files_beside_it_are_pefts(tmp_path):
    tensors = state({"layers.0.mlp.w1": (20, 10, 3)})
    path = written(tmp_path, tensors, config=CONFIG)
    prefix = "base_model.model.model.layers.0.mlp.gate_proj"
    peft = {
        f"{prefix}.lora_{x.upper()}.weight": tensors[f"layers.0.mlp.w1.lora_{x}.weight"]
        for x in "ab"
    }
    save_file(peft, tmp_path / "adapter_model.safetensors")
    left, right = subspace.load(path), subspace.load(tmp_path)
    assert (left.format, right.format) == ("torchtune", "PEFT")
    assert torch.equal(
        left["model.layers.0.mlp.gate_proj"].delta(), right["model.layers.0.mlp.gate_proj"].delta()
    )


def test_dora_has_its_low_rank_part(tmp_path):
    tensors = state() | {"output.magnitude": torch.ones(30), "layers.9.magnitude": torch.ones(2)}
    adapter = subspace.load(written(tmp_path, tensors, config=CONFIG))
    assert str(adapter.method) == "DoRA (BA part)"
    assert {t.name: t.known for t in adapter.set_aside} == {
        "output.magnitude": True,
        "layers.9.magnitude": False,
    }
    assert torch.equal(adapter["lm_head"].magnitude, torch.ones(30, 1))


def test_a_magnitude_goes_with_its_rows(tmp_path):
    path = "layers.0.attn.q_proj"
    tensors, stored = state({path: SHAPES[path]}), {}
    m, name = torch.arange(HEADS * WIDTH).float(), f"{path}.lora_b.weight"
    stored = tensors | {
        name: to_torchtune(tensors[name], HEADS),
        f"{path}.magnitude": to_torchtune(m, HEADS),
    }
    adapter = subspace.load(written(tmp_path, stored, config=CONFIG, base=LLAMA))
    assert torch.equal(adapter[NAMES[path]].magnitude, m[:, None])
    assert torch.equal(adapter[NAMES[path]].B, tensors[name])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_half_precision_and_other_paths(tmp_path, dtype, suffix):
    tensors = state({"decoder.layers.0.attn.q_proj": (8, 10, 3)}, dtype)
    path = tmp_path / f"x.{suffix}"
    torch.save(tensors, path) if suffix == "pt" else save_file(tensors, path)
    adapter = subspace.load(path, alpha=ALPHA)
    assert_same_update(adapter, merged(tensors))
    assert adapter.notes == ()


Q = "layers.0.attn.q_proj"


@pytest.mark.parametrize(
    ("change", "base", "config", "message"),
    [
        ({f"{Q}.lora_b.weight": None}, None, CONFIG, "module .* lacks lora_b"),
        ({f"{Q}.lora_b.weight": torch.ones(24, 4)}, None, CONFIG, "different ranks, 3 and 4"),
        ({f"{Q}.lora_b.weight": torch.ones(24)}, None, CONFIG, "has a shape that no factor has"),
        ({}, LLAMA | {"num_attention_heads": 7}, CONFIG, "its rows are not those of 7 heads"),
        ({}, LLAMA | {"num_attention_heads": "4"}, CONFIG, "heads = '4' is not a number of heads"),
        ({}, None, CONFIG | {"lora_alpha": "7"}, "lora_alpha = '7' is not a number"),
        ({}, None, CONFIG | {"lora_alpha": True}, "lora_alpha = True is not a number"),
    ],
)
def test_what_does_not_fit(tmp_path, change, base, config, message):
    tensors = {k: v for k, v in (state() | change).items() if v is not None}
    with pytest.raises(subspace.SubspaceError, match=message):
        subspace.load(written(tmp_path, tensors, config=config, base=base))
