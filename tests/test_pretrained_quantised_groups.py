"""GPTQ, AWQ and compressed-tensors: W is what the library that wrote the file makes of it.

The files of GPTQ and AWQ are packed here by the formats' definitions. The reader was held once
against files that gptqmodel 7.6 and AutoAWQ 0.2.9 wrote, and W was theirs, bit by bit.
"""

import json
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from subspace.errors import FormatError, MissingExtraError
from subspace.pretrained import open_pretrained

pytest.importorskip("compressed_tensors", reason="needs compressed-tensors")


def save(folder, tensors, config=None):
    folder.mkdir(exist_ok=True)
    save_file({n: t.contiguous() for n, t in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config or {}))
    return open_pretrained(folder)


def change(tensors, name, value):
    return {n: t for n, t in (tensors | {name: value}).items() if t is not None}


def packed(values, bits, axis):
    """Pack unsigned integers along an axis into int32, the first one lowest."""
    moved = np.moveaxis(values.astype(np.uint32), axis, -1)
    each = 32 // bits
    words = moved.reshape(*moved.shape[:-1], -1, each) << (bits * np.arange(each, dtype=np.uint32))
    return torch.from_numpy(np.moveaxis(words.sum(-1).astype(np.uint32).view(np.int32), -1, axis))


def grouped(d_out, d_in, groups, bits, *, index=None, seed=0):
    """Return q, zero, float16 scales (transposed, as GPTQ and AWQ hold them), and W."""
    rng = np.random.default_rng(seed)
    q = rng.integers(0, 2**bits, (d_in, d_out))
    zero = rng.integers(0, 2**bits, (groups, d_out))
    scale = rng.uniform(0.01, 0.1, (groups, d_out)).astype(np.float16)
    index = np.arange(d_in) // (d_in // groups) if index is None else index
    W = ((q - zero[index]) * scale[index]).astype(np.float16)
    return q, zero, scale, torch.from_numpy(W.T.copy())


def as_gptq(q, zero, scale, index, bits, *, minus_one):
    zeros = packed(zero, bits, 1)
    ones = sum(1 << at for at in range(0, 32, bits))
    return {
        "q.qweight": packed(q, bits, 0),
        "q.qzeros": zeros - ones if minus_one else zeros,  # of whole words, as gptqmodel
        "q.scales": torch.from_numpy(scale),
        "q.g_idx": torch.from_numpy(index.astype(np.int32)),
    }


def gptq_config(**more):
    return {"quantization_config": {"quant_method": "gptq", "bits": 4} | more}


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("layout", ["gptq", "gptq_v2", None])
@pytest.mark.parametrize("ordered", [True, False])
def test_gptq(ordered, layout, bits, tmp_path):
    index = np.arange(128) // 32
    if not ordered:  # desc_act
        np.random.default_rng(1).shuffle(index)
    q, zero, scale, W = grouped(96, 128, 4, bits, index=index)
    tensors = as_gptq(q, zero, scale, index, bits, minus_one=layout != "gptq_v2")
    base = save(tmp_path / "q", tensors, gptq_config(checkpoint_format=layout))
    weight = base.get("base_model.model.q", (96, 128))
    assert weight.W.dtype == torch.float16
    assert torch.equal(weight.W, W)


def test_awq(tmp_path):
    q, zero, scale, W = grouped(96, 128, 4, 4)
    order = [0, 2, 4, 6, 1, 3, 5, 7]

    def interleaved(values):
        return values.reshape(len(values), -1, 8)[:, :, order].reshape(values.shape)

    tensors = {
        "q.qweight": packed(interleaved(q), 4, 1),
        "q.qzeros": packed(interleaved(zero), 4, 1),
        "q.scales": torch.from_numpy(scale),
    }
    config = {"quantization_config": {"quant_method": "awq", "bits": 4, "version": "GEMM"}}
    weight = save(tmp_path / "q", tensors, config)["q"]
    assert weight.shape == (96, 128)
    assert torch.equal(weight.W, W)
    del tensors["q.qzeros"]  # zero_point: false
    symmetric = ((q - 8) * scale[np.arange(128) // 32]).astype(np.float16).T.copy()
    assert torch.equal(save(tmp_path / "s", tensors, config)["q"].W, torch.from_numpy(symmetric))
    for said, match in (
        ({"version": "gemv"}, "AWQ of 4 bits in the layout 'gemv' is not read"),
        ({"bits": 8}, "AWQ of 8 bits"),
        ({"quant_method": "gptq"}, "looks like AWQ, of which config.json .* 'gptq'"),
    ):
        changed = {"quantization_config": config["quantization_config"] | said}
        with pytest.raises(FormatError, match=match):
            save(tmp_path / "q", tensors, changed)["q"]
    tensors["q.scales"] = tensors["q.scales"][:3]
    with pytest.raises(FormatError, match=r"do not fit .* qweight \(128, 12\), scales \(3, 96\)"):
        save(tmp_path / "q", tensors, config)["q"]


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("g_idx", torch.full((128,), 4, dtype=torch.int32), "g_idx names group 4"),
        ("g_idx", torch.full((128,), -1, dtype=torch.int32), "g_idx names group -1"),
        ("g_idx", torch.zeros(120, dtype=torch.int32), "do not fit one another"),
        ("g_idx", torch.zeros(128), "do not fit one another"),
        ("qweight", torch.zeros(12, 96, dtype=torch.int32), "do not fit one another"),  # 3 bits
        ("qweight", torch.zeros(16, 96), r"'q.qweight' is float32 .* of int32 is wanted"),
        ("qzeros", None, "'q.qzeros' is missing"),
        ("qzeros", torch.zeros(4, 11, dtype=torch.int32), "do not fit one another"),
        ("scales", torch.zeros(4, 95), "do not fit one another"),
        ("scales", torch.zeros(4, 96, dtype=torch.int32), r"'q.scales' is int32"),
    ],
)
def test_gptq_tensors_that_do_not_fit_are_refused(name, value, match, tmp_path):
    q, zero, scale, _ = grouped(96, 128, 4, 4)
    tensors = as_gptq(q, zero, scale, np.arange(128) // 32, 4, minus_one=True)
    base = save(tmp_path / "q", change(tensors, f"q.{name}", value), gptq_config())
    with pytest.raises(FormatError, match=match) as e:
        base["q"].W  # noqa: B018
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ({}, "looks like GPTQ, of which config.json beside it says quant_method None"),
        ({"quantization_config": {"quant_method": "auto-round"}}, "quant_method 'auto-round'"),
        (gptq_config(checkpoint_format="marlin"), "layout 'marlin' is not read"),
        (gptq_config(checkpoint_format=["gptq"]), r"layout \['gptq'\] is not read"),
    ],
)
def test_gptq_without_a_known_layout_is_refused(config, match, tmp_path):
    q, zero, scale, _ = grouped(96, 128, 4, 4)
    tensors = as_gptq(q, zero, scale, np.arange(128) // 32, 4, minus_one=True)
    with pytest.raises(FormatError, match=match):
        save(tmp_path / "q", tensors, config)["q"]


def test_a_fused_weight_of_packed_words(tmp_path):
    q, zero, scale, W = grouped(128, 64, 2, 4)
    tensors = as_gptq(q, zero, scale, np.arange(64) // 32, 4, minus_one=True)
    fused = {n.replace("q.", "mlp.gate_up_proj.", 1): t for n, t in tensors.items()}
    base = save(tmp_path / "q", fused, gptq_config())
    assert torch.equal(base["model.mlp.up_proj"].W, W[64:])
    apart = {
        f"m.{part}_proj.{n.removeprefix('q.')}": t.clone()
        for part in ("gate", "up")
        for n, t in tensors.items()
    }
    joined = save(tmp_path / "j", apart, gptq_config())["m.gate_up_proj"]
    assert torch.equal(joined.W, torch.cat([W, W]))


def compress(W, bits, group, *, symmetric, form="pack-quantized"):
    """What compressed-tensors itself makes of W, and of its own file."""
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    strategy = {"strategy": "group", "group_size": group} if group else {"strategy": "channel"}
    args = QuantizationArgs(num_bits=bits, type="int", symmetric=symmetric, **strategy)
    scheme = QuantizationScheme(targets=["Linear"], weights=args)
    parts = W.reshape(len(W), -1, group or W.shape[1])
    low, high = parts.amin(2), parts.amax(2)
    scale = torch.maximum(-low, high) / 2 ** (bits - 1) if symmetric else (high - low) / 2**bits
    state = {"weight": W, "weight_scale": scale}
    if not symmetric:
        zero = (
            (-low / scale - 2 ** (bits - 1)).round().clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        )
        state["weight_zero_point"] = zero.to(torch.int8)
    compressor = BaseCompressor.get_value_from_registry(form)
    small = compressor.compress(state, scheme)
    want = compressor.decompress(small, scheme)["weight"]
    return {f"q.{n}": t for n, t in small.items()}, want


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("group", [32, None])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pack_quantized(dtype, symmetric, group, bits, tmp_path):
    W = torch.randn(24, 64, generator=torch.Generator().manual_seed(0)).to(dtype)
    tensors, want = compress(W, bits, group, symmetric=symmetric)
    weight = save(tmp_path / "q", tensors)["q"]
    assert weight.shape == (24, 64)
    assert torch.equal(weight.W, want)
    assert (weight.W - W).double().norm() < 3 * 2.0**-bits * W.double().norm()


def test_pack_quantized_with_groups_out_of_order(tmp_path):
    W = torch.randn(24, 64, generator=torch.Generator().manual_seed(0))
    order = torch.randperm(64, generator=torch.Generator().manual_seed(1))
    tensors, want = compress(W, 4, 32, symmetric=True)
    index = torch.empty(64, dtype=torch.int32)
    index[order] = torch.arange(64, dtype=torch.int32) // 32
    helpers = pytest.importorskip("compressed_tensors.compressors.pack_quantized")
    q = helpers.unpack_from_int32(tensors["q.weight_packed"], 4, torch.Size((24, 64)))
    moved = torch.empty_like(q)
    moved[:, order] = q
    tensors |= {"q.weight_packed": helpers.pack_to_int32(moved, 4), "q.weight_g_idx": index}
    got = save(tmp_path / "q", tensors)["q"].W
    assert torch.equal(got[:, order], want)


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("weight_shape", torch.tensor([24, 80]), "do not fit one another"),
        ("weight_shape", torch.tensor([2**40, 64]), "do not fit one another"),
        ("weight_shape", torch.tensor([24, 2**60]), "do not fit one another"),
        ("weight_shape", torch.tensor([24, -64]), "is 24 x -64"),
        ("weight_shape", torch.tensor([24]), "does not hold two sizes"),
        ("weight_shape", None, "does not hold two sizes"),
        ("weight_packed", torch.ones(24, 8, dtype=torch.uint8), "is uint8 of shape"),  # nvfp4
        ("weight_packed", torch.ones(24, 6, dtype=torch.int32), "do not fit one another"),  # 3 bits
        ("weight_packed", torch.ones(2, 24, 8, dtype=torch.int32), r"int32 of shape \(2, 24, 8\)"),
        ("weight_scale", torch.ones(23, 2), "do not fit one another"),
        ("weight_scale", torch.ones(24, 3), "do not fit one another"),
        ("weight_scale", None, "'q.weight_scale' is missing"),
        ("weight_zero_point", torch.ones(2, 2, dtype=torch.int32), "do not fit one another"),
        ("weight_zero_point", torch.ones(3, 2, dtype=torch.int8), "is int8"),
        ("weight_g_idx", torch.ones(63, dtype=torch.int32), "do not fit one another"),
        ("weight_g_idx", torch.full((64,), 2, dtype=torch.int32), "g_idx names group 2"),
    ],
)
def test_words_that_do_not_fit_are_refused(name, value, match, tmp_path):
    tensors, _ = compress(torch.randn(24, 64), 4, 32, symmetric=True)
    base = save(tmp_path / "q", change(tensors, f"q.{name}", value))
    with pytest.raises(FormatError, match=match) as e:
        base["q"].W  # noqa: B018
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("group", [32, None])
def test_int_quantized(group, tmp_path):
    W = torch.randn(24, 64, generator=torch.Generator().manual_seed(0))
    tensors, want = compress(W, 8, group, symmetric=True, form="int-quantized")
    assert tensors["q.weight"].dtype == torch.int8
    config = {"quantization_config": {"quant_method": "compressed-tensors"}}
    assert torch.equal(save(tmp_path / "q", tensors, config)["q"].W, want)
    with pytest.raises(FormatError, match="int8, which is not read"):
        save(tmp_path / "q", tensors)["q"]
    shifted = tensors | {"q.weight_zero_point": torch.ones(24, 1, dtype=torch.int8)}
    with pytest.raises(FormatError, match="int8, which is not read"):
        save(tmp_path / "q", shifted, config)["q"]


def test_compressed_tensors_that_is_there_and_cannot_be_imported(monkeypatch, tmp_path):
    tensors, _ = compress(torch.randn(24, 64), 4, 32, symmetric=True)
    base = save(tmp_path / "q", tensors)
    monkeypatch.setitem(sys.modules, "compressed_tensors.compressors.pack_quantized", None)
    assert base["q"].shape == (24, 64)
    with pytest.raises(MissingExtraError, match=r"q.weight_packed'.*needs compressed-tensors >= "):
        base["q"].W  # noqa: B018
