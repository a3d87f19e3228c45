"""What cloneofsimo/lora writes is read with the update that its `collapse_lora` adds.

Its package is not installable here, so files are built by the layout of `lora_diffusion/lora.py`:
`save_safeloras_with_embeds`, `convert_loras_to_safeloras` and `save_lora_weight`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

import subspace
from subspace.adapters.load import explain
from subspace.errors import FormatError

# In the order in which the writer walks a model: d_out, d_in, kernel, rank.
UNET = [(7, 5, (), 1), (6, 4, (3, 3), 2), (8, 8, (1, 1), 3)] + [(9, 4, (), 2)] * 9
TEXT = [(5, 5, (), 1)] * 3


def pairs(layers: Any, seed: int = 0, dtype: torch.dtype = torch.float32) -> Any:
    """Return (up, down) of each layer, as `extract_lora_as_tensor` does."""
    generator = torch.Generator().manual_seed(seed)
    return [
        (
            torch.randn(d_out, r, *(1 for _ in kernel), generator=generator).to(dtype),
            torch.randn(r, d_in, *kernel, generator=generator).to(dtype),
        )
        for d_out, d_in, kernel, r in layers
    ]


def written(path: Any, models: dict[str, Any], embeds: Any = (), *, metadata: bool = True) -> None:
    """`save_safeloras_with_embeds`."""
    tensors, told = {}, {}
    for model, found in models.items():
        told[model] = json.dumps(["GEGLU", "CrossAttention"])
        for n, (up, down) in enumerate(found):
            told[f"{model}:{n}:rank"] = str(down.shape[0])
            tensors[f"{model}:{n}:up"], tensors[f"{model}:{n}:down"] = up, down
    for token in embeds:
        told[token], tensors[token] = "<embed>", torch.ones(5)
    save_file(tensors, path, told if metadata else None)


def collapsed(up: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
    """What `collapse_lora` adds to a weight, in float64: its own products of flattened factors."""
    return up.double().flatten(1) @ down.double().flatten(1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_file_of_two_models_and_words(tmp_path, dtype):
    models = {"unet": pairs(UNET, dtype=dtype), "text_encoder": pairs(TEXT, 1, dtype)}
    written(tmp_path / "x.safetensors", models, ["<s1>", "<s2>"])
    adapter = subspace.load(tmp_path / "x.safetensors", strict=True)
    assert list(adapter) == [f"text_encoder.{n}" for n in range(3)] + [
        f"unet.{n}" for n in range(12)
    ]
    for model, found in models.items():
        for n, (up, down) in enumerate(found):
            update, info = adapter[f"{model}.{n}"], adapter.updates[f"{model}.{n}"]
            assert (info.rank, info.scale) == (down.shape[0], 1.0)
            assert info.kernel == tuple(down.shape[2:])
            assert torch.equal(update.delta(), collapsed(up, down))
    assert {tensor.name for tensor in adapter.set_aside} == {"<s1>", "<s2>"}
    assert adapter.metadata["targets"] == {
        "unet": ["CrossAttention", "GEGLU"],
        "text_encoder": ["CrossAttention", "GEGLU"],
    }
    (note,) = adapter.notes
    assert "unet: 12 layers of CrossAttention, GEGLU" in note
    assert "of a numbered pair" in explain(tmp_path / "x.safetensors")["cloneofsimo/lora"]


def test_without_metadata_a_word_is_not_understood(tmp_path):
    written(tmp_path / "x.safetensors", {"unet": pairs(UNET)}, ["<s1>"], metadata=False)
    adapter = subspace.load(tmp_path / "x.safetensors")
    assert len(adapter) == 12
    assert [(tensor.name, tensor.known) for tensor in adapter.set_aside] == [("<s1>", False)]


@pytest.mark.parametrize("told", ["7", "many", ""])
def test_a_rank_that_is_not_the_tensors_is_noted(tmp_path, told):
    """`convert_loras_to_safeloras` takes it from its caller, and loading takes the tensors'."""
    found = pairs(TEXT)
    tensors = {
        f"unet:{n}:{way}": t
        for n, p in enumerate(found)
        for way, t in zip(("up", "down"), p, strict=True)
    }
    save_file(tensors, tmp_path / "x.safetensors", {"unet:1:rank": told, "unet": "["})
    adapter = subspace.load(tmp_path / "x.safetensors")
    assert adapter.updates["unet.1"].rank == 1
    assert f"unet.1 ({told}, stored 1)" in adapter.notes[-1]
    assert adapter.metadata["targets"] == {}


@pytest.mark.parametrize(
    ("name", "model"), [("x.pt", "unet"), ("x.text_encoder.pt", "text_encoder")]
)
def test_a_torch_list(tmp_path, name, model):
    """`save_lora_weight`: parameters in float16 on the CPU, up before down."""
    found = pairs(UNET)
    flat = [torch.nn.Parameter(tensor).to(torch.float16) for both in found for tensor in both]
    torch.save(flat, tmp_path / name)
    adapter = subspace.load(tmp_path / name, strict=True)
    assert set(adapter) == {f"{model}.{n}" for n in range(12)}
    for n, (up, down) in enumerate(found):
        assert torch.equal(adapter[f"{model}.{n}"].delta(), collapsed(up.half(), down.half()))
    assert explain(tmp_path / name)["cloneofsimo/lora"] == "a list of 24 tensors"


def test_a_list_of_something_else_is_refused(tmp_path):
    torch.save([torch.ones(2, 2), "word"], tmp_path / "x.pt")
    with pytest.raises(FormatError, match="entry '1' is a str, not a tensor"):
        subspace.load(tmp_path / "x.pt")
    torch.save([torch.ones(2, 2)] * 3, tmp_path / "x.pt")
    with pytest.raises(FormatError, match="no LoRA factors"):
        subspace.load(tmp_path / "x.pt")
    torch.save([torch.ones(2, 2), torch.ones(3, 2)], tmp_path / "x.pt")
    with pytest.raises(FormatError, match="different ranks"):
        subspace.load(tmp_path / "x.pt")


def test_the_same_file_as_a_list_and_as_safetensors(tmp_path):
    found = pairs(UNET, dtype=torch.float16)
    torch.save([tensor for both in found for tensor in both], tmp_path / "x.pt")
    written(tmp_path / "x.safetensors", {"unet": found})
    one, two = (subspace.load(tmp_path / f"x{end}") for end in (".pt", ".safetensors"))
    assert list(one) == list(two)
    assert all(torch.equal(one[name].delta(), two[name].delta()) for name in one)


def test_inspect_needs_no_torch(tmp_path):
    written(tmp_path / "x.safetensors", {"unet": pairs(UNET)})
    code = (
        f"import sys, subspace\nsubspace.load({str(tmp_path / 'x.safetensors')!r})\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


BAD: list[tuple[str, torch.Tensor | None, str]] = [
    ("unet:0:up", None, r"'unet:0:down' has no partner.* lacks up"),
    ("unet:0:down", None, "lacks down"),
    ("unet:0:up", torch.ones(7, 4), "different ranks, 1 and 4"),
    ("unet:0:up", torch.ones(7), "a shape that no factor has"),
    ("unet:1:up", torch.ones(6, 2, 3, 3), "the kernel of the second"),
    ("unet:00:up", torch.ones(7, 1), "are the same factor"),
    (
        "a.lora_A.weight",
        torch.ones(7, 1),
        "holds tensors of cloneofsimo/lora and of PEFT",
    ),
]


@pytest.mark.parametrize(("name", "value", "why"), BAD)
def test_what_does_not_fit_is_refused_in_one_line(tmp_path, name, value, why):
    tensors = {
        f"unet:{n}:{way}": tensor
        for n, both in enumerate(pairs(UNET))
        for way, tensor in zip(("up", "down"), both, strict=True)
    }
    if value is None:
        del tensors[name]
    else:
        tensors[name] = value
    save_file(tensors, tmp_path / "bad.safetensors")
    with pytest.raises(FormatError, match=why) as caught:
        subspace.load(tmp_path / "bad.safetensors")
    assert "\n" not in str(caught.value)


def test_missing_numbers_are_noted(tmp_path):
    (up, down), *_ = pairs(TEXT)
    tensors = {"unet:0:up": up, "unet:0:down": down}
    tensors |= {"unet:2:up": up.clone(), "unet:2:down": down.clone()}
    save_file(tensors, tmp_path / "x.safetensors")
    assert "numbers are missing" in subspace.load(tmp_path / "x.safetensors").notes[-1]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(told=st.text(max_size=20))
def test_any_metadata_is_read(tmp_path, told):
    tensors = {"unet:0:up": torch.ones(3, 1), "unet:0:down": torch.ones(1, 2)}
    save_file(tensors, tmp_path / "x.safetensors", {"unet": told, "unet:0:rank": told})
    assert subspace.load(tmp_path / "x.safetensors")["unet.0"].shape == (3, 2)
