"""bitsandbytes: W is what the library makes of it; and what is said where no library is."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from subspace.errors import FormatError, MissingExtraError, ShapeError
from subspace.pretrained import open_pretrained

SIZES = {"vocab_size": 50, "num_hidden_layers": 1, "num_attention_heads": 4, "hidden_size": 64}
CONFIGS = {
    # 96 columns are one and a half blocks: there bitsandbytes' own CPU kernel takes wrong scales.
    "llama": transformers.LlamaConfig(**SIZES, num_key_value_heads=2, intermediate_size=96),
    "gpt2": transformers.GPT2Config(vocab_size=50, n_embd=64, n_layer=1, n_head=4, n_positions=8),
    "phi3": transformers.Phi3Config(
        **SIZES, num_key_value_heads=2, intermediate_size=96, pad_token_id=None
    ),
}
QUANTISERS = {
    "nf4": ({"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}, 0.12),
    "fp4": ({"bnb_4bit_quant_type": "fp4"}, 0.15),
    "int8": (None, 0.01),
}


@pytest.fixture(scope="module")
def bnb():
    return pytest.importorskip("bitsandbytes", reason="needs bitsandbytes").functional


def save(folder, tensors, config=None):
    folder.mkdir(exist_ok=True)
    save_file({n: t.contiguous() for n, t in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config or {}))
    return open_pretrained(folder)


def far(got, want):
    return float((got.double() - want.double()).norm() / want.double().norm())


# bitsandbytes


def blocks_times_absmax(stored, name):
    """The definition: the first of two numbers is a byte's high half, a block has one absmax."""
    state = next(t for n, t in stored.items() if n.startswith(f"{name}.quant_state"))
    said = json.loads(bytes(state.tolist()))
    absmax = stored[f"{name}.absmax"].numpy()
    if "nested_offset" in said:
        scales = stored[f"{name}.nested_absmax"].numpy().repeat(said["nested_blocksize"])
        inner = stored[f"{name}.nested_quant_map"].numpy()[absmax] * scales[: len(absmax)]
        absmax = inner + np.float32(said["nested_offset"])
    halves = np.stack([stored[name].numpy() >> 4, stored[name].numpy() & 15], 1).ravel()
    numbers = stored[f"{name}.quant_map"].numpy()[halves][: np.prod(said["shape"])]
    return (numbers * absmax.repeat(said["blocksize"])[: numbers.size]).reshape(said["shape"])


@pytest.fixture(scope="module")
def transformers_saved(tmp_path_factory):
    """What transformers itself writes when it loads with a quantiser and saves."""
    pytest.importorskip("bitsandbytes", reason="needs bitsandbytes")
    made = {}

    def make(family, kind):
        if (family, kind) not in made:
            folder = tmp_path_factory.mktemp(f"{family}-{kind}")
            torch.manual_seed(0)
            model = transformers.AutoModelForCausalLM.from_config(CONFIGS[family])
            model.save_pretrained(folder / "full")
            options, _ = QUANTISERS[kind]
            bits = {"load_in_8bit": True} if options is None else {"load_in_4bit": True, **options}
            quantised = transformers.AutoModelForCausalLM.from_pretrained(
                folder / "full",
                quantization_config=transformers.BitsAndBytesConfig(**bits),
                device_map="cpu",
                dtype=torch.float32,
            )
            quantised.save_pretrained(folder / "small")
            made[family, kind] = folder, quantised
        return made[family, kind]

    return make


@pytest.mark.parametrize("kind", QUANTISERS)
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_w_is_what_the_quantised_model_holds(family, kind, transformers_saved, bnb):
    folder, model = transformers_saved(family, kind)
    full, small = open_pretrained(folder / "full"), open_pretrained(folder / "small")
    stored = load_file(folder / "small" / "model.safetensors")
    assert set(small) == set(full)
    packed = 0
    for name in small:
        weight = small[name]
        assert weight.shape == full[name].shape == tuple(weight.W.shape)
        if weight.dtype == "float32":
            assert torch.equal(weight.W, full[name].W)
            continue
        packed += 1
        assert far(weight.W, full[name].W) < QUANTISERS[kind][1]
        parameter = model.get_submodule(name).weight
        if kind == "int8":
            want = bnb.int8_vectorwise_dequant(parameter.data, parameter.SCB)
        else:
            want = torch.from_numpy(blocks_times_absmax(stored, f"{name}.weight"))
            if weight.shape[1] % 64 == 0:
                own = bnb.dequantize_4bit(parameter.data, parameter.quant_state)
                assert torch.equal(weight.W, own)
        assert torch.equal(weight.W, want), name
    assert packed > 3


def test_a_conv1d_is_stored_the_way_round_of_a_linear(transformers_saved):
    folder, _ = transformers_saved("gpt2", "nf4")
    name = "transformer.h.0.attn.c_attn"
    weight = open_pretrained(folder / "small").get(f"base_model.model.{name}", (192, 64))
    assert not weight.stored_transposed
    assert open_pretrained(folder / "full")[name].stored_transposed
    with pytest.raises(ShapeError, match="the update is 64 x 100, W is 192 x 64"):
        open_pretrained(folder / "small").get(name, (64, 100))


@pytest.mark.parametrize("kind", QUANTISERS)
def test_the_projections_of_a_fused_weight(kind, transformers_saved):
    folder, _ = transformers_saved("phi3", kind)
    small = open_pretrained(folder / "small")
    at = "base_model.model.model.layers.0"
    whole = small[f"{at}.self_attn.qkv_proj"].W
    parts = [small[f"{at}.self_attn.{p}_proj"] for p in "qkv"]
    assert [w.shape for w in parts] == [(64, 64), (32, 64), (32, 64)]
    assert torch.equal(torch.cat([w.W for w in parts]), whole)
    assert torch.equal(small[f"{at}.mlp.up_proj"].W, small[f"{at}.mlp.gate_up_proj"].W[96:])


def four_bit(bnb, W, name="q.weight", **options):
    packed, state = bnb.quantize_4bit(W, **options)
    return {name: packed} | {f"{name}.{n}": t for n, t in state.as_dict(packed=True).items()}, state


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize(
    ("shape", "size"), [((32, 64), 64), ((24, 64), 128), ((5, 6), 64), ((7, 96), 64), ((9, 70), 32)]
)
def test_blocks_run_on_from_row_to_row(shape, size, kind, nested, dtype, bnb, tmp_path):
    W = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    options = {"blocksize": size, "quant_type": kind, "compress_statistics": nested}
    tensors, _ = four_bit(bnb, W, **options)
    got = save(tmp_path / "q", tensors)["q"]
    assert (got.shape, got.W.dtype) == (shape, dtype)
    want = torch.from_numpy(blocks_times_absmax(tensors, "q.weight"))
    assert torch.equal(got.W, want.to(dtype))
    assert far(got.W, W) < 0.2


def test_a_number_of_entries_that_is_odd(bnb, tmp_path):
    with torch.compiler.set_stance("force_eager"):  # its fallback compiles, which takes long
        tensors, _ = four_bit(bnb, torch.randn(7, 33), blocksize=64, quant_type="nf4")
        want = torch.from_numpy(blocks_times_absmax(tensors, "q.weight"))
        assert torch.equal(save(tmp_path / "q", tensors)["q"].W, want)


def change(tensors, name, value):
    return {n: t for n, t in (tensors | {name: value}).items() if t is not None}


def said(tensors, **changes):
    name = "q.weight.quant_state.bitsandbytes__nf4"
    state = json.loads(bytes(tensors[name].tolist())) | changes
    text = json.dumps({k: v for k, v in state.items() if v is not None})
    return change(tensors, name, torch.tensor(list(text.encode()), dtype=torch.uint8))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"shape": [32, 66]}, "32 x 66 in blocks of 64, two numbers a uint8; stored is uint8"),
        ({"shape": [2**40, 2**40]}, "two numbers a uint8"),
        ({"shape": [2048]}, r"shape \[2048\] is not that of a matrix"),
        ({"shape": [-32, -64]}, "is not that of a matrix"),
        ({"shape": [True, 2048]}, "is not that of a matrix"),
        ({"shape": "x"}, "is not that of a matrix"),
        ({"blocksize": 32}, "takes 64 absmax of uint8, and has 32 of uint8"),
        ({"blocksize": 0}, "not understood"),
        ({"blocksize": -64}, "not understood"),
        ({"blocksize": 2**62}, "not understood"),
        ({"blocksize": "64"}, "not understood"),
        ({"quant_type": "fp4"}, "not understood"),
        ({"dtype": "int8"}, "not understood"),
        ({"dtype": "load"}, "not understood"),
        ({"extra": 1}, "not understood"),
        ({"nested_blocksize": None}, "not understood"),
        ({"nested_blocksize": 0}, "not understood"),
        ({"nested_dtype": "float16"}, "not understood"),
        ({"nested_offset": float("nan")}, "not understood"),
        ({"nested_offset": "1"}, "not understood"),
        ({"nested_offset": 10**400}, "bitsandbytes cannot dequantise it"),
    ],
)
def test_a_quant_state_that_does_not_add_up_is_refused(changes, match, bnb, tmp_path):
    tensors, _ = four_bit(bnb, torch.ones(32, 64), quant_type="nf4", compress_statistics=True)
    base = save(tmp_path / "q", said(tensors, **changes))
    with pytest.raises(FormatError, match=match) as e:
        base["q"].W  # noqa: B018
    assert "\n" not in str(e.value)
    assert "model.safetensors: 'q.weight'" in str(e.value)


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("", torch.ones(1024, 1), "two numbers a uint8; stored is float32"),
        ("", torch.ones(1023, 1, dtype=torch.uint8), r"stored is uint8 of shape \(1023, 1\)"),
        (".absmax", torch.ones(31, dtype=torch.uint8), "takes 32 absmax of uint8, and has 31"),
        (".absmax", torch.ones(32), "takes 32 absmax of uint8, and has 32 of float32"),
        (".absmax", None, "takes 32 absmax of uint8, and has none"),
        (".nested_absmax", torch.ones(2), "takes 1 nested_absmax of float32, and has 2"),
        (".nested_absmax", None, "not understood"),
        (
            ".nested_quant_map",
            torch.ones(255),
            "takes 256 nested_quant_map of float32, and has 255",
        ),
        (".nested_quant_map", None, "takes 256 nested_quant_map"),
        (".quant_map", torch.ones(15), "takes 16 quant_map of float32, and has 15"),
        (".quant_map", torch.ones(16).half(), "has 16 of float16"),
        (".quant_map", torch.linspace(-1, 1, 16), "its quant_map is not that of nf4"),
        (".quant_map", torch.full((16,), torch.nan), "its quant_map is not that of nf4"),
        (".quant_state.bitsandbytes__nf4", None, "with 0 tensors quant_state"),
        (".quant_state.bitsandbytes__fp4", torch.ones(3), "with 2 tensors quant_state"),
        (".quant_state.bitsandbytes__nf4", torch.ones(3), "is not the few bytes of JSON"),
        (
            ".quant_state.bitsandbytes__nf4",
            torch.full((5000,), 32, dtype=torch.uint8),
            "is not the few bytes of JSON",
        ),
        (".quant_state.bitsandbytes__nf4", torch.full((4,), 255, dtype=torch.uint8), "valid JSON"),
    ],
)
def test_tensors_that_do_not_fit_a_quant_state_are_refused(name, value, match, bnb, tmp_path):
    tensors, _ = four_bit(bnb, torch.ones(32, 64), quant_type="nf4", compress_statistics=True)
    base = save(tmp_path / "q", change(tensors, f"q.weight{name}", value))
    with pytest.raises(FormatError, match=match) as e:
        base["q"].W  # noqa: B018
    assert "\n" not in str(e.value)


@pytest.mark.usefixtures("bnb")
@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("q.SCB", torch.ones(5), "with float32 of shape"),
        ("q.SCB", torch.ones(6).half(), "with float16"),
        ("q.weight", torch.ones(6, 8, dtype=torch.uint8), "found uint8"),
        ("q.weight", torch.ones(6, 2, 4, dtype=torch.int8), r"of shape \(6, 2, 4\)"),
        ("q.weight_format", torch.tensor(2, dtype=torch.uint8), "not that of plain rows"),
        ("q.weight_format", torch.tensor(0), "not that of plain rows"),
        ("q.SCB", None, "stored as int8, which is not read"),
    ],
)
def test_an_8_bit_weight_that_does_not_fit_is_refused(name, value, match, tmp_path):
    tensors = {"q.weight": torch.ones(6, 8, dtype=torch.int8), "q.SCB": torch.full((6,), 127.0)}
    assert torch.equal(save(tmp_path / "q", tensors)["q"].W, torch.ones(6, 8))
    with pytest.raises(FormatError, match=match):
        save(tmp_path / "q", change(tensors, name, value))["q"]


def test_nothing_is_fetched_or_printed_when_bitsandbytes_is_imported(tmp_path):
    """In a process of its own: on some CPUs its import would download a kernel, and warns."""
    pytest.importorskip("bitsandbytes")
    tensors = {"q.weight": torch.ones(6, 8, dtype=torch.int8), "q.SCB": torch.full((6,), 127.0)}
    save(tmp_path / "q", tensors)
    (tmp_path / "kernels.py").write_text("raise SystemExit('asked for a kernel')")
    script = (
        f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\n"
        "from subspace.pretrained import open_pretrained\n"
        f"weight = open_pretrained({str(tmp_path / 'q')!r})['q']\n"
        "assert 'bitsandbytes' not in sys.modules\nassert weight.W.shape == (6, 8)\n"
        "assert 'bitsandbytes' in sys.modules\nassert 'kernels' not in sys.modules\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"", b"")


def test_kernels_that_were_imported_before_are_left_alone(bnb, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "kernels", bnb)
    tensors = {"q.weight": torch.ones(6, 8, dtype=torch.int8), "q.SCB": torch.full((6,), 127.0)}
    assert save(tmp_path / "q", tensors)["q"].W.shape == (6, 8)
    assert sys.modules["kernels"] is bnb


# Without the library


@pytest.mark.parametrize(
    ("name", "scheme", "package"),
    [
        ("q.qweight", "GPTQ or AWQ", "compressed-tensors"),
        ("q.g_idx", "GPTQ", "compressed-tensors"),
        ("q.weight_packed", "compressed-tensors", "compressed-tensors"),
        ("q.weight.absmax", "4-bit bitsandbytes", "bitsandbytes"),
        ("q.weight.quant_state.bitsandbytes__nf4", "4-bit bitsandbytes", "bitsandbytes"),
        ("q.SCB", "8-bit bitsandbytes", "bitsandbytes"),
    ],
)
def test_without_the_library_the_reason_and_the_way_out(
    name, scheme, package, monkeypatch, tmp_path
):
    monkeypatch.setitem(sys.modules, package.replace("-", "_"), None)
    tensors = {"embed_tokens.weight": torch.ones(3, 2), name: torch.ones(4, dtype=torch.uint8)}
    match = rf"model\.safetensors: a quantised base \('{scheme}': tensor '{name}'\); .* install "
    with pytest.raises(MissingExtraError, match=f"{match}{package} .*full-precision") as e:
        save(tmp_path / "q", tensors)
    assert e.value.exit_code == 2
    assert "\n" not in str(e.value)
    with pytest.raises(MissingExtraError, match=r"a quantised base \('awq': tensor"):
        save(tmp_path / "q", tensors, {"quantization_config": {"quant_method": "awq"}})


def test_bitsandbytes_that_is_there_and_cannot_be_imported(bnb, monkeypatch, tmp_path):
    tensors, _ = four_bit(bnb, torch.randn(32, 64), quant_type="nf4")
    base = save(tmp_path / "q", tensors)
    monkeypatch.delattr(sys.modules["bitsandbytes"], "functional")
    monkeypatch.setitem(sys.modules, "bitsandbytes.functional", None)
    assert base["q"].shape == (32, 64)
    with pytest.raises(MissingExtraError, match=r"q.weight'.* needs bitsandbytes, which cannot"):
        base["q"].W  # noqa: B018
