"""GGUF adapters are read with the update that llama.cpp applies.

llama.cpp's converter is no package: the files are written by its own `gguf` package, key by key as
``convert_lora_to_gguf.py`` does, and the update is ``llm_graph_context::build_lora_mm``'s.
"""

from __future__ import annotations

import json
import sys
import warnings
from typing import TYPE_CHECKING

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

import subspace
from subspace.adapters.formats.gguf import _HUGGING_FACE, _MAPPED, _OUTSIDE, _module
from subspace.errors import FormatError, NonFiniteError
from tests.support.peft_adapters import assert_same_update, made, two_linears, written
from tests.support.verbs import HEAVY, modules_after, run, run_cli

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore:::peft", "ignore:::transformers")

ALPHA = 7.0
Q, V, DOWN = "blk.0.attn_q.weight", "blk.11.attn_v.weight", "blk.2.ffn_down.weight"
SHAPES = {Q: (10, 6, 3), V: (4, 6, 2), DOWN: (6, 20, 5), "output.weight": (11, 6, 1)}


def factors(shapes=SHAPES, dtype=np.float32) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    out = {}
    for name, (*experts, d_out, d_in, rank) in shapes.items():
        out[f"{name}.lora_a"] = rng.standard_normal((*experts, rank, d_in)).astype(dtype)
        out[f"{name}.lora_b"] = rng.standard_normal((*experts, d_out, rank)).astype(dtype)
    return out


def converted(
    path: Path, tensors, *, alpha=ALPHA, architecture="llama", kind="adapter", adapter="lora"
) -> Path:
    """Write as the converter does; a pair (array, type) is of a type that numpy has not."""
    writer = gguf.GGUFWriter(path, architecture)
    if kind:
        writer.add_type(kind)
    writer.add_string(gguf.Keys.Adapter.TYPE, adapter)
    if alpha is not None:
        writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
    writer.add_base_model_count(1)
    writer.add_base_model_name(0, "Someone's Model")
    writer.add_array("adapter.alora.invocation_tokens", [1, 2, 3])
    writer.add_array("general.tags", ["a", "bc"])
    for name, tensor in tensors.items():
        array, raw = tensor if isinstance(tensor, tuple) else (tensor, None)
        writer.add_tensor(name, array, raw_dtype=raw)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def applied(tensors, alpha=ALPHA) -> dict[str, torch.Tensor]:
    """As the graph does it: b (a x), times alpha / (columns of b), or times 1 if alpha is 0."""
    out = {}
    for name in {key.rpartition(".")[0] for key in tensors}:
        a, b = (torch.tensor(tensors[f"{name}.lora_{x}"]).double() for x in "ab")
        x = torch.eye(a.shape[-1], dtype=torch.float64)
        out[name] = (alpha / b.shape[-1] if alpha else 1.0) * (b @ (a @ x))
    return out


def named(deltas, architecture="llama"):
    return {_module(name, architecture): delta for name, delta in deltas.items()}


def test_what_the_writer_writes_is_read(tmp_path):
    tensors = factors()
    adapter = subspace.load(converted(tmp_path / "run-lora.gguf", tensors), strict=True)
    assert_same_update(adapter, named(applied(tensors)))
    assert list(adapter) == [
        "model.layers.0.self_attn.q_proj",
        "model.layers.2.mlp.down_proj",
        "model.layers.11.self_attn.v_proj",
        "lm_head",
    ]
    assert adapter["lm_head"].scale == 7
    assert (adapter.format, str(adapter.method)) == ("GGUF (llama.cpp)", "LoRA")
    assert adapter.base_model == "Someone's Model"
    assert any("rsLoRA's or an alpha_pattern's is not stored" in note for note in adapter.notes)
    assert any(
        note.startswith("model.layers.0.self_attn.q_proj: the rows of q and k")
        for note in adapter.notes
    )


def test_a_folder_with_one_file_is_enough(tmp_path):
    tensors = factors()
    converted(tmp_path / "run-f32-lora.gguf", tensors)
    assert_same_update(subspace.load(tmp_path), named(applied(tensors)))


@given(rank=st.integers(1, 9), alpha=st.floats(0, 100, width=32))
def test_the_scale_is_llama_cpps(tmp_path_factory, rank, alpha):
    tensors = factors({V: (4, 6, rank)})
    path = converted(tmp_path_factory.mktemp("gguf") / "x.gguf", tensors, alpha=alpha)
    adapter = subspace.load(path)
    assert_same_update(adapter, named(applied(tensors, alpha)))
    assert ("the scale is 1, as in llama.cpp" in "".join(adapter.notes)) == (alpha == 0)


def test_without_alpha_the_scale_is_one(tmp_path):
    tensors = factors()
    adapter = subspace.load(converted(tmp_path / "x.gguf", tensors, alpha=None))
    assert_same_update(adapter, named(applied(tensors, 0)))
    assert adapter.notes[0].startswith("no adapter.lora.alpha is stored: the scale is 1")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_half_precision(tmp_path, dtype):
    tensors = {name: torch.tensor(array).to(dtype) for name, array in factors().items()}
    kinds = {
        torch.float16: gguf.GGMLQuantizationType.F16,
        torch.bfloat16: gguf.GGMLQuantizationType.BF16,
        torch.float64: gguf.GGMLQuantizationType.F64,
    }
    raw = {
        name: t.view(torch.uint8).numpy() if dtype == torch.bfloat16 else t.numpy()
        for name, t in tensors.items()
    }
    path = converted(tmp_path / "x.gguf", {name: (t, kinds[dtype]) for name, t in raw.items()})
    adapter = subspace.load(path)
    assert {update.A.dtype for update in adapter.values()} == {dtype}
    assert_same_update(adapter, named(applied({n: t.double().numpy() for n, t in tensors.items()})))


def test_token_embeddings_are_stored_transposed(tmp_path):
    tensors = factors({"token_embd.weight": (6, 11, 3)})
    stored = {name: t.T.copy() if name.endswith("_a") else t for name, t in tensors.items()}
    adapter = subspace.load(converted(tmp_path / "x.gguf", stored))
    # llm_graph_context::build_inp_embd: b times the rows of a that the tokens pick.
    assert_same_update(adapter, {"model.embed_tokens": applied(tensors)["token_embd.weight"]})
    assert adapter.updates["model.embed_tokens"].kind == "embedding"


@pytest.mark.parametrize("shared", [False, True])
def test_experts_are_stacked(tmp_path, shared):
    name = "blk.1.ffn_up_exps.weight"
    tensors = factors({name: (4, 8, 6, 3)})
    if shared:
        tensors[f"{name}.lora_a"] = tensors[f"{name}.lora_a"][:1]
    adapter = subspace.load(converted(tmp_path / "x.gguf", tensors))
    deltas = applied(tensors)[name]
    assert_same_update(adapter, {f"blk.1.ffn_up_exps.{n}": one for n, one in enumerate(deltas)})
    assert {info.kind for info in adapter.updates.values()} == {"expert"}


def test_modules_have_the_names_of_gguf_s_own_map():
    for architecture in _MAPPED:
        own = gguf.get_tensor_name_map(gguf.MODEL_ARCH[architecture.upper()], 4)
        inside = [f"model.layers.3.{name}" for name in _HUGGING_FACE.values()]
        for module in (*inside, *_OUTSIDE.values()):
            assert _module(f"{own.get_name(module)}.weight", architecture) == module


def test_another_architecture_keeps_its_names(tmp_path):
    tensors = factors()
    adapter = subspace.load(converted(tmp_path / "x.gguf", tensors, architecture="falcon"))
    assert_same_update(adapter, named(applied(tensors), "falcon"))
    assert "blk.11.attn_v" in adapter
    assert "modules have their GGUF names: those of 'falcon'" in "".join(adapter.notes)
    assert "rotary" not in "".join(adapter.notes)


@pytest.mark.parametrize("heads", [(2, 2), (4, 2)])
def test_the_rows_of_llamas_q_and_k_keep_the_norm_and_the_right_side(tmp_path, heads):
    """What the note says, with the reordering of convert_hf_to_gguf.py's LlamaModel.permute."""
    tensors = factors({Q: (16, 6, 3), "blk.0.attn_k.weight": (8, 6, 3)})
    before = subspace.load(converted(tmp_path / "hf.gguf", tensors, architecture="qwen2"))
    for name, count in zip((Q, "blk.0.attn_k.weight"), heads, strict=True):
        b = tensors[f"{name}.lora_b"]
        rows = b.reshape(count, 2, b.shape[0] // count // 2, b.shape[1]).swapaxes(1, 2)
        tensors[f"{name}.lora_b"] = np.ascontiguousarray(rows).reshape(b.shape)
    after = subspace.load(converted(tmp_path / "cpp.gguf", tensors))
    assert "rotary order" in "".join(after.notes)
    for module in before:
        one, other = before[module].delta(), after[module].delta()
        assert not torch.allclose(one, other)
        assert torch.allclose(one.T @ one, other.T @ other)
    # So what would take these rows for transformers' refuses, and the right side is compared.
    for side in ("out", "B"):
        with pytest.raises(
            FormatError, match=r"cannot compare side .* rotary order .*config\.json"
        ):
            subspace.similarity(before, after, side=side)
    with pytest.raises(FormatError, match="are in the rotary order of GGUF"):
        subspace.save(after, tmp_path / "peft")
    with pytest.raises(FormatError, match=r"cannot compare .model\.layers\.0\.self_attn"):
        subspace.interference([before, after])
    W = {f"{module}.weight": torch.ones(info.shape) for module, info in before.updates.items()}
    save_file(W, tmp_path / "base.safetensors")
    for measure in (subspace.amplification, lambda x, base: subspace.diff(base, x)):
        with pytest.raises(FormatError, match=r"rotary order of GGUF .*, and those of base"):
            measure(after, tmp_path / "base.safetensors")
    same = subspace.similarity(before, after, side="in")
    assert all(abs(module.phi[-1, -1] - 1) < 1e-12 for module in same.values())
    renamed, _ = subspace.align([after, before], {module: module + "x" for module in after})
    with pytest.raises(FormatError, match="are in the rotary order of GGUF"):
        subspace.save(renamed, tmp_path / "peft")
    # With the base's config.json beside they are put back.
    config = {"model_type": "llama", "num_attention_heads": heads[0]}
    config["num_key_value_heads"] = None if heads[0] == heads[1] else heads[1]
    (tmp_path / "config.json").write_text(json.dumps(config))
    back = subspace.load(tmp_path / "cpp.gguf")
    assert "rotary" not in "".join(back.notes)
    for module in before:
        assert torch.equal(back[module].delta(), before[module].delta())
    subspace.save(back, tmp_path / "peft")
    (tmp_path / "config.json").write_text(json.dumps({"text_config": config | {"head_dim": 8}}))
    with pytest.raises(
        FormatError, match=r"config\.json beside tells; it is not of this adapter's"
    ):
        subspace.load(tmp_path / "cpp.gguf")
    (tmp_path / "config.json").write_text(json.dumps({"of": "something else"}))
    assert "rotary order" in "".join(subspace.load(tmp_path / "cpp.gguf").notes)


def test_a_config_beside_it_is_not_its_own(tmp_path):
    """The converter writes into the folder that it reads."""
    folder = written(made(two_linears(), target_modules=["0"], use_rslora=True), tmp_path)
    tensors = factors()
    adapter = subspace.load(converted(folder / "x-F32-LoRA.gguf", tensors), strict=True)
    assert_same_update(adapter, named(applied(tensors)))
    assert "adapter_config.json says use_rslora, but the scale here" in adapter.notes[0]
    assert subspace.load(folder).format == "PEFT"


def test_norms_are_set_aside(tmp_path):
    tensors = factors() | {
        "blk.0.attn_norm.weight": np.ones(6, np.float32),
        "blk.0.attn_q.bias": np.ones(6, np.float32),
    }
    adapter = subspace.load(converted(tmp_path / "x.gguf", tensors))
    assert [(t.name, t.known) for t in adapter.set_aside] == [
        ("blk.0.attn_norm.weight", True),
        ("blk.0.attn_q.bias", False),
    ]


def test_quantised_factors_are_what_llama_cpp_computes_with(tmp_path):
    """With --outtype q8_0 what has whole blocks is quantised, and the rest is float16."""
    rng = np.random.default_rng(0)
    kind = gguf.GGMLQuantizationType.Q8_0
    a, b = rng.standard_normal((16, 64)).astype(np.float32), rng.standard_normal((48, 16))
    a[8:] *= 1e-3  # within what q8_0 rounds away
    stored = gguf.quantize(a, kind)
    tensors = {f"{V}.lora_a": (stored, kind), f"{V}.lora_b": b.astype(np.float16)}
    adapter = subspace.load(converted(tmp_path / "x.gguf", tensors))
    (update,) = adapter.values()
    wanted = ALPHA / 16 * b.astype(np.float16).astype(float) @ gguf.dequantize(stored, kind)
    assert np.allclose(update.delta().numpy(), wanted, rtol=1e-12, atol=1e-12)
    assert adapter.updates[update.name].dtype == "q8_0/float16"
    assert any("are quantised (q8_0)" in note for note in adapter.notes)
    # Directions that quantising may have made are no finding.
    assert subspace.spectrum(update).rank == 8
    out = tmp_path / "peft"
    done = run("convert", tmp_path / "x.gguf", out, "--to", "peft")
    assert done.stdout.splitlines()[0].endswith("float32/float16")  # what is written
    assert torch.equal(subspace.load(out)[update.name].delta(), update.delta())


def test_a_stack_of_experts_is_dequantised_once_for_all_of_them(tmp_path, monkeypatch):
    rng, kind = np.random.default_rng(0), gguf.GGMLQuantizationType.Q4_0
    a, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((5, 32, 64), (5, 9, 32)))
    stack = "blk.0.ffn_up_exps.weight"
    stored = {f"{stack}.lora_a": a, f"{stack}.lora_b": b}
    stored = {name: (gguf.quantize(factor, kind), kind) for name, factor in stored.items()}
    wanted = [gguf.dequantize(array, kind) for array, _ in stored.values()]
    adapter = subspace.load(converted(tmp_path / "x.gguf", stored))
    calls, honest = [], gguf.dequantize
    monkeypatch.setattr(gguf, "dequantize", lambda *given: calls.append(1) or honest(*given))
    for n in range(5):
        update = adapter[f"blk.0.ffn_up_exps.{n}"]
        assert np.array_equal(update.A.numpy(), wanted[0][n])
        assert np.array_equal(update.B.numpy(), wanted[1][n])
    assert len(calls) == 2


def test_a_damaged_scale_is_a_refusal_and_no_warning_of_numpys(tmp_path):
    kind = gguf.GGMLQuantizationType.Q4_0
    a = gguf.quantize(np.ones((3, 64), np.float32), kind)
    a[1, :18] = (0, 0x7C, *[0x88] * 16)  # infinity in float16, times zeros
    tensors = {f"{V}.lora_a": (a, kind), f"{V}.lora_b": np.ones((4, 3), np.float32)}
    (update,) = subspace.load(converted(tmp_path / "x.gguf", tensors)).values()
    with (
        warnings.catch_warnings(action="error"),
        pytest.raises(NonFiniteError, match=r"index \[1, 0\]"),
    ):
        subspace.spectrum(update)


def test_without_the_package_inspect_still_says_what_is_there(tmp_path, monkeypatch):
    kind = gguf.GGMLQuantizationType.Q8_0
    a = gguf.quantize(np.ones((3, 64), np.float32), kind)
    tensors = {f"{V}.lora_a": (a, kind), f"{V}.lora_b": np.ones((4, 3), np.float32)}
    path = converted(tmp_path / "x.gguf", tensors)
    monkeypatch.setitem(sys.modules, "gguf", None)
    adapter = subspace.load(path)
    (name,) = adapter
    with pytest.raises(subspace.SubspaceError, match=r"lora_a' is quantised \(q8_0\), and reading"):
        adapter[name]


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({f"{V}.lora_b": None}, r"attn_v.weight.lora_a' has no partner: .* lacks lora_b"),
        ({f"{V}.lora_b": ones(4, 5)}, "have different ranks, 2 and 5"),
        ({f"{V}.lora_b": ones(3, 4, 2)}, "are not the two factors of one tensor"),
        ({f"{V}.lora_b": ones(3, 4, 2), f"{V}.lora_a": ones(2, 2, 6)}, "not factors of the same"),
        ({f"{V}.lora_b": ones(4)}, "has a shape that no factor has"),
    ],
)
def test_factors_that_do_not_fit(tmp_path, change, message):
    tensors = {k: v for k, v in (factors() | change).items() if v is not None}
    with pytest.raises(subspace.SubspaceError, match=message):
        subspace.load(converted(tmp_path / "x.gguf", tensors))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"alpha": float("nan")}, "adapter.lora.alpha = 'nan' is not a number"),
        ({"adapter": "other"}, "adapter.type = 'other'; what is read: 'lora'"),
        ({"kind": "model"}, "general.type = 'model'; 'adapter' is wanted"),
        ({"kind": None}, "general.type = None; 'adapter' is wanted"),
    ],
)
def test_a_header_that_makes_no_sense(tmp_path, fields, message):
    with pytest.raises(subspace.SubspaceError, match=message):
        subspace.load(converted(tmp_path / "x.gguf", factors(), **fields))


def test_inspect_stays_light(tmp_path):
    path = converted(tmp_path / "x.gguf", factors())
    loaded = modules_after(run_cli("inspect", str(path)))
    assert "subspace.adapters.formats.gguf" in loaded
    assert not loaded & set(HEAVY)


def test_a_whole_model_is_no_adapter(tmp_path):
    path = converted(tmp_path / "x.gguf", {Q: ones(4, 4)}, kind="model")
    with pytest.raises(subspace.SubspaceError, match="no LoRA factors among its 1 tensors"):
        subspace.load(path)


def test_the_same_adapter_in_two_formats_is_the_same(tmp_path):
    tensors = factors({Q: (10, 6, 3), V: (4, 6, 2)})
    left = subspace.load(converted(tmp_path / "x.gguf", tensors, architecture="qwen2"))
    flat = {}
    for name, x in ((name, x) for name in (Q, V) for x in "ab"):
        module = _module(name, "qwen2")
        flat[f"{module}.lora_{x.upper()}"] = torch.tensor(tensors[f"{name}.lora_{x}"])
    save_file(flat, tmp_path / "x.safetensors")
    right = subspace.load(tmp_path / "x.safetensors", alpha=ALPHA)
    phi = subspace.similarity(left, right, side="out")
    assert set(phi.modules) == set(left)
    for module in phi.modules.values():
        assert abs(module.phi[-1, -1] - 1) < 1e-12
