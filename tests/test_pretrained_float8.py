"""float8 bases: W is the stored number times its scale."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from subspace.errors import FormatError
from subspace.pretrained import open_pretrained

BLOCKS = {"quantization_config": {"quant_method": "fp8", "weight_block_size": [4, 3]}}


def save(folder, tensors, config=None):
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config or {}))
    return open_pretrained(folder)


def quantised(rows, columns, grid, *, block, dtype=torch.float8_e4m3fn, seed=0):
    """W, its float8 and scales of the shape `grid`, spread over eight powers of ten."""
    g = torch.Generator().manual_seed(seed)
    W = torch.randn(rows, columns, generator=g)
    scales = torch.logspace(-4, 4, int(np.prod(grid, dtype=int))).reshape(grid)
    column = scales.reshape(-1, 1) if len(grid) < 2 else scales
    spread = np.kron(column.numpy(), np.ones(block))
    q = W.to(dtype)
    return q, scales, q.double().numpy() * spread[:rows, :columns]


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
@pytest.mark.parametrize("ending", ["weight_scale_inv", "weight_scale"])
@pytest.mark.parametrize(
    ("grid", "block", "config"),
    [
        ((), (8, 9), None),
        ((1,), (8, 9), None),
        ((8,), (1, 9), None),
        ((8, 1), (1, 9), None),
        ((2, 3), (4, 3), None),
        ((2, 3), (4, 3), BLOCKS),
    ],
)
def test_w_is_number_times_scale(grid, block, config, ending, dtype, tmp_path):
    q, scales, want = quantised(8, 9, grid, block=block, dtype=dtype)
    weight = save(tmp_path, {"m.q.weight": q, f"m.q.{ending}": scales}, config)["m.q"]
    assert weight.shape == (8, 9)
    assert weight.dtype == str(dtype).removeprefix("torch.")
    assert weight.W.dtype == torch.float32
    np.testing.assert_allclose(weight.W.double().numpy(), want, rtol=1e-6)


def test_a_last_block_that_is_not_full(tmp_path):
    q, scales, want = quantised(10, 8, (3, 3), block=(4, 3))
    base = save(tmp_path, {"q.weight": q, "q.weight_scale_inv": scales}, BLOCKS)
    np.testing.assert_allclose(base["q"].W.double().numpy(), want, rtol=1e-6)
    np.testing.assert_allclose(base.get("q", (8, 10)).W.double().numpy(), want.T, rtol=1e-6)


def test_scales_that_are_powers_of_two(tmp_path):
    q = torch.ones(2, 4).to(torch.float8_e4m3fn)
    scales = torch.tensor([[0.5, 2.0], [8.0, 0.25]])
    e8m0 = scales.to(torch.float8_e8m0fnu)
    base = save(tmp_path, {"q.weight": q, "q.weight_scale_inv": e8m0})
    assert torch.equal(base["q"].W, scales.repeat_interleave(2, 1))


def test_rounding_to_float8_is_all_that_is_lost(tmp_path):
    W = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
    scales = W.abs().amax(1, keepdim=True) / 448
    q = (W / scales).to(torch.float8_e4m3fn)
    got = save(tmp_path, {"q.weight": q, "q.weight_scale": scales})["q"].W
    assert (got - W).abs().max() <= W.abs().max() * 2**-4


def test_a_plain_cast_has_no_scale(tmp_path):
    q = torch.randn(3, 2).to(torch.float8_e4m3fn)
    assert torch.equal(save(tmp_path, {"q.weight": q})["q"].W, q.float())


def test_a_float8_block_of_a_fused_projection(tmp_path):
    q, scales, want = quantised(8, 9, (8, 1), block=(1, 9))
    tensors = {"mlp.gate_up_proj.weight": q, "mlp.gate_up_proj.weight_scale": scales}
    got = save(tmp_path, tensors)["mlp.up_proj"].W
    np.testing.assert_allclose(got.double().numpy(), want[4:], rtol=1e-6)


@pytest.mark.parametrize(
    ("extra", "config", "match"),
    [
        ({}, BLOCKS, r"float8 without 'q\.weight_scale_inv', of a model that config"),
        ({"q.scale_weight": torch.ones(1)}, None, r"beside 'q\.scale_weight'"),
        ({"q.weight_scale": torch.ones(3, 3)}, None, r"\(3, 3\) do not cover .* \(8, 9\)"),
        ({"q.weight_scale": torch.ones(3, 3)}, BLOCKS, r"weight_block_size \[4, 3\]"),
        ({"q.weight_scale": torch.ones(9)}, None, "do not cover"),
        ({"q.weight_scale": torch.ones(0, 3)}, None, "do not cover"),
        ({"q.weight_scale": torch.ones(2, 3, dtype=torch.uint8)}, None, "uint8, which is not read"),
    ],
)
def test_scales_that_do_not_fit_are_refused(extra, config, match, tmp_path):
    q = torch.ones(8, 9).to(torch.float8_e4m3fn)
    base = save(tmp_path, {"q.weight": q, **extra}, config)
    with pytest.raises(FormatError, match=match) as e:
        base["q"]
    assert "\n" not in str(e.value)


def test_a_float8_convolution_has_one_scale_or_none(tmp_path):
    q = torch.ones(2, 3, 4).to(torch.float8_e4m3fn)
    base = save(tmp_path, {"q.weight": q, "q.weight_scale": torch.tensor(3.0)})
    assert torch.equal(base["q"].W, torch.full((2, 12), 3.0))
    base = save(tmp_path, {"q.weight": q, "q.weight_scale": torch.ones(2)})
    with pytest.raises(FormatError, match="do not cover"):
        base["q"]


@pytest.mark.parametrize("block", [None, [4], [0, 3], ["4", 3], "x"])
def test_a_block_size_that_makes_no_sense_is_not_used(block, tmp_path):
    q, scales, want = quantised(8, 9, (2, 3), block=(4, 3))
    config = {"quantization_config": {"weight_block_size": block}}
    base = save(tmp_path, {"q.weight": q, "q.weight_scale_inv": scales}, config)
    np.testing.assert_allclose(base["q"].W.double().numpy(), want, rtol=1e-6)
