"""What MLX-LM's own layers write is read with the update that their own `fuse` adds."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import subspace
from subspace.measures.diff.adapted import adapted_weight

# It exists for Linux on x86 and for macOS alone.
mx = pytest.importorskip("mlx.core")
pytest.importorskip("mlx_lm", exc_type=ImportError)

import numpy as np  # noqa: E402
from mlx import nn  # noqa: E402
from mlx.utils import tree_flatten  # noqa: E402
from mlx_lm.models.switch_layers import SwitchLinear  # noqa: E402
from mlx_lm.tuner.utils import linear_to_lora_layers, load_adapters  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore:::mlx_lm", "ignore:::transformers")
PATH = "layers.0.mlp"


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q_proj = nn.Linear(6, 10)
        self.embed = nn.Embedding(11, 7)
        self.experts = SwitchLinear(5, 8, 3)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = [Block()]


def trained(folder: Path, *, rank=3, scale=4.5, keys=None, dora=False, half=None) -> Any:
    """Write a folder as mlx-lm's `lora` command does, its factors random."""
    mx.random.seed(0)
    model = Model()
    mx.eval(model.parameters())
    parameters = {"rank": rank, "scale": scale, "dropout": 0.0}
    if keys:
        parameters["keys"] = keys
    model.freeze()
    linear_to_lora_layers(model, 1, parameters, use_dora=dora)
    for name, begun in tree_flatten(model.trainable_parameters()):
        value = begun if name.endswith(".m") else mx.random.normal(begun.shape)
        owner, _, leaf = name.rpartition(".")
        layer = dict(model.named_modules())[owner]
        layer[leaf] = value.astype(half) if half else value
    weights = dict(tree_flatten(model.trainable_parameters()))
    folder.mkdir(exist_ok=True)
    mx.save_safetensors(str(folder / "adapters.safetensors"), weights)
    config = {
        "fine_tune_type": "dora" if dora else "lora",
        "lora_parameters": parameters,
        "model": "someone/model",
        "num_layers": 1,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return model


def fused(model: Any) -> dict[str, torch.Tensor]:
    """Fuse as mlx-lm fuses, onto a base of zeros; (d_out, d_in) of the map for each module."""
    deltas = {}
    for name, layer in model.named_modules():
        if not hasattr(layer, "fuse"):
            continue
        (base,) = {"linear", "embedding"} & set(layer)
        layer[base].weight = mx.zeros_like(layer[base].weight)
        with mx.stream(mx.cpu):
            delta = torch.from_numpy(np.array(layer.fuse().weight, copy=True)).double()
        if delta.ndim == 3:
            deltas |= {f"{name}.{n}": one for n, one in enumerate(delta)}
        else:
            deltas[name] = delta.T if base == "embedding" else delta
    return deltas


def assert_same(adapter: Any, deltas: dict[str, torch.Tensor], rtol: float = 1e-6) -> None:
    assert set(adapter) == set(deltas)
    for name, update in adapter.items():
        wanted = deltas[name]
        assert update.shape == tuple(wanted.shape) == adapter.updates[name].shape
        assert wanted.norm() > 0
        assert (update.delta() - wanted).norm() <= rtol * wanted.norm(), name


def test_linear_embedding_and_experts(tmp_path):
    model = trained(tmp_path / "run")
    adapter = subspace.load(tmp_path / "run", strict=True)
    assert_same(adapter, fused(model))
    assert list(adapter) == [
        *(f"layers.0.{name}" for name in ("embed", "experts.0", "experts.1", "experts.2")),
        "layers.0.q_proj",
    ]
    assert (adapter.name, adapter.format, str(adapter.method)) == ("run", "MLX-LM", "LoRA")
    assert (adapter.set_aside, adapter.notes) == ((), ())
    assert adapter.base_model == "someone/model"
    assert adapter["layers.0.q_proj"].shape == (10, 6)
    assert adapter["layers.0.embed"].shape == (7, 11)
    assert adapter["layers.0.experts.1"].scale == 4.5


@given(rank=st.integers(1, 9), scale=st.floats(0.01, 100))
def test_the_scale_is_not_divided_by_the_rank(tmp_path_factory, rank, scale):
    folder = tmp_path_factory.mktemp("mlx") / "run"
    model = trained(folder, rank=rank, scale=scale)
    adapter = subspace.load(folder)
    assert_same(adapter, fused(model))
    assert {update.scale for update in adapter.values()} == {scale}


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_half_precision(tmp_path, half):
    model = trained(tmp_path / "run", half=getattr(mx, half))
    adapter = subspace.load(tmp_path / "run")
    assert {info.dtype for info in adapter.updates.values()} == {half}
    layer = dict(model.named_modules())["layers.0.q_proj"]
    a, b = (torch.from_numpy(np.array(layer[k].astype(mx.float32))) for k in ("lora_a", "lora_b"))
    wanted = 4.5 * (b.double().T @ a.double().T)
    assert torch.allclose(adapter["layers.0.q_proj"].delta(), wanted, rtol=1e-12)


def test_a_dora_has_its_low_rank_part_and_its_magnitude_aside(tmp_path):
    keys = ["q_proj", "embed"]
    model = trained(tmp_path / "run", keys=keys, dora=True)
    adapter = subspace.load(tmp_path / "run", strict=True)
    assert str(adapter.method) == "DoRA (BA part)"
    assert {t.name for t in adapter.set_aside} == {f"layers.0.{k}.m" for k in keys}
    for key in keys:
        layer = dict(model.named_modules())[f"layers.0.{key}"]
        base = layer.embedding if key == "embed" else layer.linear
        # With the magnitude that the adapted weight has, fusing adds the low-rank part alone.
        part = (layer.scale * layer.lora_a) @ layer.lora_b
        weight = base.weight + (part if key == "embed" else part.T)
        layer.m = mx.linalg.norm(weight, axis=1)
        delta = torch.from_numpy(np.array(layer.fuse().weight - base.weight)).double()
        delta = delta.T if key == "embed" else delta
        update = adapter[f"layers.0.{key}"]
        assert torch.allclose(update.delta(), delta, atol=3e-6)
        # With another one it is mlx-lm's fused weight that the magnitude makes of the base's.
        layer.m = mx.random.uniform(1, 3, layer.m.shape)
        m = torch.from_numpy(np.array(layer.m))
        m = m[None] if key == "embed" else m[:, None]
        fused_weight, W = (
            torch.from_numpy(np.array(x)) for x in (layer.fuse().weight, base.weight)
        )
        fused_weight, W = (x.T if key == "embed" else x for x in (fused_weight, W))
        assert update.magnitude.shape == m.shape
        found = adapted_weight(W, replace(update, magnitude=m))
        assert torch.allclose(found, fused_weight.double(), atol=3e-6)


def test_experts_whose_a_is_stacked_in_two_dimensions(tmp_path):
    """mlx-lm up to 0.28.0 writes (experts * r, d_in), which today's own `fuse` still reshapes."""
    model = trained(tmp_path, keys=["experts"])
    path = tmp_path / "adapters.safetensors"
    tensors = load_file(path)
    name = "layers.0.experts.lora_a"
    tensors[name] = tensors[name].reshape(-1, 5)
    path.unlink()
    save_file(tensors, path)
    assert_same(subspace.load(tmp_path), fused(model))


def test_experts_are_written_for_mlx_again(tmp_path):
    """mlx-lm's own loader takes them, whole, chosen or resized."""
    trained(tmp_path / "run", rank=4)
    adapter = subspace.load(tmp_path / "run")
    chosen = adapter.select("*.[eq]*[02_]*")
    assert set(chosen) < set(adapter)
    smaller = subspace.resize(adapter, rank=2).adapter
    for n, each in enumerate((adapter, chosen, smaller)):
        out = subspace.save(each, tmp_path / str(n), "mlx")
        theirs = fused(load_adapters(Model(), str(out.path)))
        for name, delta in theirs.items():
            wanted = each[name].delta() if name in each else torch.zeros_like(delta)
            assert (delta - wanted).norm() <= 1e-6 * wanted.norm(), name
        assert set(each) <= set(theirs)
        assert any("zeros for the experts" in note for note in out.notes) == (each is chosen)
    one, other = (load_file(tmp_path / place / "adapters.safetensors") for place in ("run", "0"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_without_a_config_the_scale_is_the_writers_own(tmp_path):
    model = trained(tmp_path, scale=20.0)
    (tmp_path / "adapter_config.json").unlink()
    adapter = subspace.load(tmp_path / "adapters.safetensors")
    assert_same(adapter, fused(model))
    (note,) = adapter.notes
    assert note.startswith("no scale is stored; 20 is MLX-LM's own (10 in some earlier releases)")


def test_without_a_config_an_alpha_can_be_given(tmp_path):
    model = trained(tmp_path, rank=3, scale=4.5)
    (tmp_path / "adapter_config.json").unlink()
    adapter = subspace.load(tmp_path / "adapters.safetensors", alpha=3 * 4.5)
    assert_same(adapter, fused(model))
    assert adapter.notes == (
        "no scale is stored: it is alpha / r with the alpha 13.5 that was given",
    )


def test_checkpoints_of_one_folder_have_names_of_their_own(tmp_path):
    trained(tmp_path / "run")
    last = tmp_path / "run" / "adapters.safetensors"
    early = tmp_path / "run" / "0000100_adapters.safetensors"
    early.write_bytes(last.read_bytes())
    assert subspace.load(early).name == "run/0000100_adapters"
    assert subspace.load(last).name == subspace.load(last.parent).name == "run"
    assert subspace.load(last.parent).weights == last
    assert subspace.load(early)["layers.0.q_proj"].scale == 4.5


def changed(folder: Path, **fields: Any) -> Path:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    return folder


@pytest.mark.parametrize(
    ("fields", "scale", "note"),
    [
        ({"fine_tune_type": "lora"}, 10, None),
        ({"use_dora": False}, 10, r"mlx-lm 0.13 to 0.18; up to 0.14.1 it trained with 10 \* 6 / r"),
        ({}, 20, r"mlx-lm before 0.13, which trained with 10 \* 6 / r"),
    ],
)
def test_an_alpha_counts_as_in_the_release_that_wrote_it(tmp_path, fields, scale, note):
    """0.12.1 and 0.14.1: `self.scale = scale * (alpha / r)`; 0.14.2 on: `self.scale = scale`."""
    model = trained(tmp_path, scale=float(scale))
    parameters = {"rank": 3, "alpha": 6, "scale": 10.0, "dropout": 0.0}
    config = {"lora_parameters": parameters, "model": "someone/model", **fields}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    adapter = subspace.load(tmp_path)
    assert_same(adapter, fused(model))
    assert len(adapter.notes) == (note is not None)
    assert re.search(note or "", "".join(adapter.notes))


@pytest.mark.parametrize("scale", ["20", True, float("nan"), [1]])
def test_a_scale_that_is_no_number(tmp_path, scale):
    trained(tmp_path)
    changed(tmp_path, lora_parameters={"scale": scale})
    with pytest.raises(
        subspace.SubspaceError, match=r"lora_parameters\.scale = .* is not a number"
    ):
        subspace.load(tmp_path)


def test_an_alpha_that_is_given_and_not_used_is_told(tmp_path):
    trained(tmp_path)
    given, own = subspace.load(tmp_path, alpha=3), subspace.load(tmp_path)
    assert given.notes == ("alpha = 3 was given and is not used: MLX-LM stores its own scale",)
    assert given["layers.0.q_proj"].scale == own["layers.0.q_proj"].scale


def test_a_full_fine_tune_is_refused(tmp_path):
    trained(tmp_path)
    changed(tmp_path, fine_tune_type="full")
    with pytest.raises(subspace.SubspaceError, match="fine_tune_type 'full' is no low-rank update"):
        subspace.load(tmp_path)


A, B = "layers.0.q_proj.lora_a", "layers.0.q_proj.lora_b"
E, F = "layers.0.experts.lora_a", "layers.0.experts.lora_b"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({B: None}, "'layers.0.q_proj.lora_a' has no partner: module .* lacks lora_b"),
        ({B: torch.ones(4, 10)}, "have different ranks, 3 and 4"),
        ({B: torch.ones(3)}, "has a shape that no factor has"),
        ({B: torch.ones(2, 3, 10)}, "are not factors of the same experts and rank"),
        ({E: torch.ones(4, 3, 5)}, "are not factors of the same experts and rank"),
        ({E: torch.ones(10, 5)}, "are not the two factors of one layer"),
        ({E: torch.ones(70_000, 1, 1), F: torch.ones(70_000, 1, 1)}, "more than 65536"),
        ({A: torch.ones(6, 3, dtype=torch.int32)}, "holds int32; factors of float64"),
    ],
)
def test_factors_that_do_not_fit(tmp_path, change, message):
    trained(tmp_path)
    path = tmp_path / "adapters.safetensors"
    tensors = {k: v for k, v in (load_file(path) | change).items() if v is not None}
    path.unlink()
    save_file(tensors, path)
    with pytest.raises(subspace.SubspaceError, match=message):
        subspace.load(tmp_path)


def test_a_tensor_that_is_not_understood_is_told(tmp_path):
    trained(tmp_path)
    path = tmp_path / "adapters.safetensors"
    tensors = load_file(path) | {"layers.0.norm.weight": torch.ones(4), "x.m": torch.ones(2)}
    path.unlink()
    save_file(tensors, path)
    adapter = subspace.load(tmp_path)
    assert [t.name for t in adapter.set_aside if not t.known] == ["layers.0.norm.weight", "x.m"]
    with pytest.raises(subspace.SubspaceError, match="2 tensors are not understood"):
        subspace.load(tmp_path, strict=True)
