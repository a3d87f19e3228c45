"""XLabs' files are read with the update that diffusers makes of them.

x-flux is no package, so the files are built here by the names of its processors' state dict, and
what diffusers converts them to is the reference.
"""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

import subspace
from subspace.errors import FormatError

conversion = pytest.importorskip("diffusers.loaders.lora_conversion_utils")
R, D = 3, 6
LAYERS = {
    "double_blocks.{}.processor.qkv_lora1": (3 * D, 5),
    "double_blocks.{}.processor.qkv_lora2": (3 * D, 5),
    "double_blocks.{}.processor.proj_lora1": (7, D),
    "double_blocks.{}.processor.proj_lora2": (8, D),
    "single_blocks.{}.processor.qkv_lora": (3 * D, 5),
    "single_blocks.{}.processor.proj_lora": (7, 9),
}


def trained(prefix="", layers=tuple(LAYERS)):
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for layer in layers:
        d_out, d_in = LAYERS[layer]
        for n in (0, 11):
            name = prefix + layer.format(n)
            tensors[f"{name}.down.weight"] = torch.randn(R, d_in, generator=generator)
            tensors[f"{name}.up.weight"] = torch.randn(d_out, R, generator=generator)
    return tensors


@pytest.mark.parametrize("prefix", ["", "diffusion_model."])
def test_as_diffusers_converts_it(tmp_path, prefix):
    tensors = trained(prefix)
    save_file(tensors, tmp_path / "x.safetensors")
    adapter = subspace.load(tmp_path / "x.safetensors", strict=True)
    theirs = conversion._convert_xlabs_flux_lora_to_diffusers(dict(tensors))
    names = {name.rpartition(".lora_")[0] for name in theirs}
    assert set(adapter) == names
    assert len(adapter) == 2 * (3 + 3 + 1 + 1 + 3 + 1)
    for name, update in adapter.items():
        assert torch.equal(update.A, theirs[f"{name}.lora_A.weight"])
        assert torch.equal(update.B, theirs[f"{name}.lora_B.weight"])
        assert update.scale == 1
    assert adapter.format == "XLabs (Flux)"
    assert "no alpha is stored" in adapter.notes[0]
    given = subspace.load(tmp_path / "x.safetensors", alpha=6)
    assert {update.scale for update in given.values()} == {2.0}
    assert given.notes == ()


@pytest.mark.parametrize("layer", LAYERS)
def test_each_kind_of_layer_alone_is_known(tmp_path, layer):
    save_file(trained(layers=(layer,)), tmp_path / "x.safetensors")
    adapter = subspace.load(tmp_path / "x.safetensors", strict=True)
    assert adapter.format == "XLabs (Flux)"
    again = subspace.save(adapter, tmp_path / "d.safetensors", "diffusers").path
    assert set(subspace.load(again)) == set(adapter)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"double_blocks.0.processor.qkv_lora1.up.weight": None}, "has no partner: .* lacks up"),
        ({"double_blocks.0.processor.qkv_lora1.up.weight": (18, 4)}, "different ranks, 3 and 4"),
        ({"double_blocks.0.processor.qkv_lora1.up.weight": (17, 3)}, "17 rows are no q, k and v"),
        ({"double_blocks.0.processor.qkv_lora1.up.weight": (18,)}, "a shape that no factor has"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, change, why):
    tensors = trained()
    for name, shape in change.items():
        del tensors[name]
        if shape:
            tensors[name] = torch.ones(shape)
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(FormatError, match=why):
        subspace.load(tmp_path / "x.safetensors")


def test_what_is_of_no_processor_is_not_understood(tmp_path):
    tensors = trained() | {"double_blocks.0.processor.ip_adapter.weight": torch.ones(2, 2)}
    save_file(tensors, tmp_path / "x.safetensors")
    adapter = subspace.load(tmp_path / "x.safetensors")
    assert [t.name for t in adapter.set_aside if not t.known] == [
        "double_blocks.0.processor.ip_adapter.weight"
    ]
