"""Any tensors under the names of writers of image models are read in full or refused in a line."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

import subspace
from subspace.adapters.factors import hadamard, kronecker
from subspace.adapters.formats import diffusers, kohya
from subspace.errors import FormatError, SubspaceError

KOHYA = ("lora_down.weight", "lora_up.weight", "lora_mid.weight", "alpha", "dora_scale", "diff")
NAMES = {
    "kohya": [f"m.{slot}" for slot in KOHYA],
    "loha": [f"m.{slot}" for slot in (*hadamard.SLOTS, "alpha")],
    "lokr": [f"m.{slot}" for slot in (*kronecker.SLOTS, "alpha")],
    "diffusers": [f"unet.m{end}" for end in diffusers._SLOTS] + ["unet.m.processor_lora.up.weight"],
    "xlabs": [
        f"double_blocks.{n}.processor.{layer}.{side}.weight"
        for n, layer in (("0", "qkv_lora1"), ("0", "proj_lora2"), ("m", "qkv_lora1"))
        for side in ("down", "up")
    ],
    "cloneofsimo": ["unet:0:up", "unet:0:down", "unet:1:up", "unet:1:down", "<s>", "unet:00:up"],
}
SIZES = st.lists(st.sampled_from([1, 2, 2, 3, 4]), max_size=4)
DTYPES = st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.float64])
METADATA = st.sampled_from(
    [
        {},
        {"lora_adapter_metadata": '{"unet.lora_alpha": 4, "unet.r": 2}'},
        {"lora_adapter_metadata": '{"unet.lora_alpha": 4, "unet.use_rslora": true}'},
        {"unet": "[1]", "unet:0:rank": "x", "<s>": "<embed>"},
        {"ss_network_args": "[]", "ss_sd_model_name": "\x1b[31m"},
    ]
)


@pytest.mark.parametrize("writer", NAMES)
@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_tensors_are_read_in_full_or_refused_in_a_line(tmp_path, writer, data):
    shapes = data.draw(st.dictionaries(st.sampled_from(NAMES[writer]), SIZES, min_size=1))
    dtype = data.draw(DTYPES)
    path = tmp_path / "x.safetensors"
    tensors = {name: torch.ones(shape).to(dtype) for name, shape in shapes.items()}
    save_file(tensors, path, data.draw(METADATA))
    try:
        adapter = subspace.load(path)
    except SubspaceError as error:
        refusal = str(error)
        adapter = None
    if adapter is None:
        assert "\n" not in refusal
        assert "x.safetensors" in refusal
        return
    for name, update in adapter.items():  # what headers promised is what is made
        info = adapter.updates[name]
        assert (update.shape, update.rank) == (info.shape, info.rank)
        assert update.delta().isfinite().all()
    asides = {tensor.name for tensor in adapter.set_aside}
    assert asides <= set(shapes)
    if not len(adapter):
        assert asides == set(shapes)


@pytest.mark.parametrize("name", [*kohya._SLOTS, *(end.lstrip("._") for end in diffusers._SLOTS)])
@pytest.mark.parametrize("prefix", ["", "."])
def test_a_name_that_is_only_an_ending(tmp_path, name, prefix):
    save_file({f"{prefix}{name}": torch.ones(2, 2)}, tmp_path / "x.safetensors")
    with pytest.raises(SubspaceError) as caught:
        subspace.load(tmp_path / "x.safetensors", strict=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("writer", NAMES)
def test_a_long_name_is_refused(tmp_path, writer):
    long = "m" * 600
    names = [
        f"{name.replace('m', long, 1) if 'm' in name else long + name}" for name in NAMES[writer]
    ]
    save_file({name: torch.ones(2, 2) for name in names[:2]}, tmp_path / "x.safetensors")
    with pytest.raises(FormatError) as caught:
        subspace.load(tmp_path / "x.safetensors")
    assert len(str(caught.value)) < 2000
