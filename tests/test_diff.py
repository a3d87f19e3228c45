"""Two full checkpoints: every number against numpy's SVD of the dense difference."""

import json
import math

import numpy as np
import pytest
import torch

import subspace
from subspace.errors import (
    ArgumentError,
    FormatError,
    NonFiniteError,
    ShapeError,
    UnknownModuleError,
)
from subspace.measures.diff import kept
from subspace.pretrained import open_pretrained
from tests.support.checkpoints import CHANGED, dense, low_rank, normal, pair, svd, write
from tests.support.memory import only_krylov
from tests.support.samples import R8

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("way", ["gram", "krylov"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_number_is_that_of_the_dense_difference(tmp_path, dtype, way, monkeypatch):
    if way == "krylov":
        only_krylov(monkeypatch)
    base, tuned = pair(tmp_path, dtype=dtype)
    result = subspace.diff(base, tuned, rank=3)
    assert list(result) == CHANGED
    assert result.equal == ("model.layers.0.down_proj",)
    for name, found in result.items():
        exact = dense(base, tuned, f"{name}.weight", turned=name == "model.embed_tokens")
        U, S, Vt = svd(exact)
        assert found.shape == exact.shape
        assert found.method == way
        assert found.delta_norm == pytest.approx(np.linalg.norm(exact), rel=1e-12)
        assert found.stable == pytest.approx((S**2).sum() / S[0] ** 2, rel=1e-5)
        assert found.energy == pytest.approx((S[:3] ** 2).sum() / (S**2).sum(), rel=1e-5)
        np.testing.assert_allclose(found.sigma, S[:3], rtol=2e-6)
        assert (np.abs(found.sigma - S[:3]) <= found.error + 1e-12 * S[0]).all()
        update = result.adapter[name]
        best = (U[:, :3] * S[:3]) @ Vt[:3]
        assert np.linalg.norm(update.delta().numpy() - best) < 1e-5 * S[0]
        assert update.beyond == pytest.approx(S[3], rel=1e-3)
        assert update.error < 1e-5 * S[0]
        assert update.level == found.level
        # The nearest of its rank: what it leaves is what numpy's own leaves.
        left = np.linalg.norm(exact - update.delta().numpy())
        assert left == pytest.approx(math.sqrt((S[3:] ** 2).sum()), rel=1e-4)
    squares = sum(found.delta_norm**2 for found in result.values())
    assert result.delta_norm == pytest.approx(math.sqrt(squares))
    wanted = sum(found.energy * found.delta_norm**2 for found in result.values())
    assert result.kept == pytest.approx(wanted / squares)


def test_relative_and_unchanged(tmp_path):
    before = {"q.weight": torch.full((2, 4), 2.0), "k.weight": torch.zeros(2, 4)}
    after = {name: tensor.clone() for name, tensor in before.items()}
    after["q.weight"][0, 0] = 3.0
    after["k.weight"][0, 0] = 1.0
    result = subspace.diff(write(tmp_path / "a", before), write(tmp_path / "b", after))
    assert result["q"].relative == pytest.approx(1 / math.sqrt(32))
    assert result["q"].unchanged == 7 / 8
    assert math.isnan(result["k"].relative)
    assert result["k"].to_dict()["relative"] is None


@pytest.mark.parametrize("energy", [0.3, 0.9, 0.999, 1.0])
@pytest.mark.parametrize("way", ["gram", "krylov"])
def test_an_energy_chooses_each_modules_rank(tmp_path, energy, way, monkeypatch):
    if way == "krylov":
        only_krylov(monkeypatch)
        monkeypatch.setattr(kept, "_FIRST", 2)
        if energy > 0.99:
            pytest.skip("all of a matrix is the Gram's")
    base, tuned = pair(tmp_path, dtype=torch.float64)
    result = subspace.diff(base, tuned, energy=energy)
    assert (result.rank, result.energy) == (None, energy)
    for name, found in result.items():
        S = svd(dense(base, tuned, f"{name}.weight"))[1]
        shares = np.cumsum(S**2) / (S**2).sum()
        assert found.rank == int((shares < energy - 1e-12).sum()) + 1
        assert found.energy >= energy - 1e-9
        assert result.adapter[name].rank == found.rank


def test_only_directions_told_apart_from_zero_are_kept(tmp_path):
    W = normal(20, 30)
    after = W + low_rank(20, 30, 2)
    base = write(tmp_path / "a", {"q.weight": W}, dtype=torch.float64)
    tuned = write(tmp_path / "b", {"q.weight": after}, dtype=torch.float64)
    result = subspace.diff(base, tuned, rank=8)
    assert (result["q"].rank, result["q"].real, result["q"].more) == (2, 2, False)
    assert result.adapter["q"].rank == 2
    assert result["q"].energy == pytest.approx(1.0)


def test_without_factors_the_numbers_are_the_same(tmp_path):
    base, tuned = pair(tmp_path)
    quick, whole = (subspace.diff(base, tuned, rank=4, factors=f) for f in (False, True))
    assert quick.adapter is None
    for name, found in quick.items():
        np.testing.assert_allclose(found.sigma, whole[name].sigma, rtol=1e-9)
        assert (found.real, found.rank) == (whole[name].real, whole[name].rank)


@pytest.mark.parametrize("size", [1e-180, 1e-30, 1e30, 1e150])
def test_weights_of_odd_sizes(tmp_path, size):
    W, delta = normal(12, 16), low_rank(12, 16, 3)
    base = write(tmp_path / "a", {"q.weight": size * W}, dtype=torch.float64)
    tuned = write(tmp_path / "b", {"q.weight": size * (W + delta)}, dtype=torch.float64)
    found = (result := subspace.diff(base, tuned, rank=2))["q"]
    np.testing.assert_allclose(found.sigma / size, [1, 2 / 3], rtol=1e-9)
    assert found.delta_norm / size == pytest.approx(math.sqrt(14) / 3, rel=1e-9)
    assert found.relative == pytest.approx(float(delta.norm() / W.norm()), rel=1e-9)
    assert found.real == 3
    assert float((result.adapter["q"].delta() / size).norm()) == pytest.approx(math.sqrt(13) / 3)


def test_it_runs_where_it_is_asked_to(tmp_path, device):
    base, tuned = pair(tmp_path)
    here, there = (subspace.diff(base, tuned, rank=2, device=d) for d in ("cpu", device))
    for name, found in here.items():
        np.testing.assert_allclose(there[name].sigma, found.sigma, rtol=1e-6)
        assert there[name].real == found.real


# Which module is which


def test_equal_checkpoints(tmp_path):
    base, _ = pair(tmp_path)
    result = subspace.diff(base, base)
    assert (len(result), len(result.equal), len(result.adapter)) == (0, 4, 0)
    assert not any(tensor.changed for tensor in result.tensors)
    assert math.isnan(result.kept)
    assert result.to_dict()["kept"] is None
    assert len(result.to_frame()) == 0


def test_zeros_of_two_signs_are_equal(tmp_path):
    base = write(tmp_path / "a", {"q.weight": torch.zeros(3, 4)})
    tuned = write(tmp_path / "b", {"q.weight": -torch.zeros(3, 4)})
    assert subspace.diff(base, tuned).equal == ("q",)


def test_gpt2_stores_its_weights_turned(tmp_path):
    names = {"transformer.h.0.attn.c_attn": (12, 36), "transformer.h.0.attn.c_proj": (12, 12)}
    before = {f"{n}.weight": normal(*shape) for n, shape in names.items()}
    after = {n: W + low_rank(*W.shape, 2, seed=3) for n, W in before.items()}
    config = {"model_type": "gpt2", "_name_or_path": "openai/gpt2"}
    base = write(tmp_path / "a", before, config=config)
    tuned = write(tmp_path / "b", after, config=config)
    result = subspace.diff(base, tuned, rank=2)
    for name, shape in names.items():
        exact = dense(base, tuned, f"{name}.weight", turned=True)
        assert result[name].shape == shape[::-1] == exact.shape
        assert np.linalg.norm(result.adapter[name].delta().numpy() - exact) < 1e-5
    assert result.adapter.base_model == "openai/gpt2"
    assert result.adapter.layout.stored_transposed


def test_kinds_are_told(tmp_path):
    shapes = {"wte": (9, 6), "fc": (6, 9), "conv": (8, 3, 2, 2), "audio": (8, 3, 2)}
    before = {f"{name}.weight": normal(*shape) for name, shape in shapes.items()}
    after = {n: W + normal(*W.shape, seed=1) for n, W in before.items()}
    result = subspace.diff(write(tmp_path / "a", before), write(tmp_path / "b", after), rank=2)
    found = {name: (m.kind, m.shape) for name, m in result.items()}
    assert found == {
        "wte": ("embedding", (6, 9)),
        "fc": ("linear", (6, 9)),
        "conv": ("conv2d", (8, 12)),
        "audio": ("conv1d", (8, 6)),
    }
    assert result.adapter.updates["conv"].kernel == (2, 2)
    assert {n: i.kind for n, i in result.adapter.updates.items()} == {
        n: kind for n, (kind, _) in found.items()
    }


def test_a_head_that_only_the_tuned_model_stores(tmp_path):
    E = normal(30, 8)
    moved = E + low_rank(30, 8, 2)
    base = write(tmp_path / "a", {"model.embed_tokens.weight": E})
    tied = write(tmp_path / "b", {"model.embed_tokens.weight": moved, "lm_head.weight": moved})
    result = subspace.diff(base, tied, rank=2)
    assert list(result) == ["model.embed_tokens"]
    assert result.notes == ("lm_head is stored apart in b and is model.embed_tokens all the same",)
    own = {"model.embed_tokens.weight": E, "lm_head.weight": moved}
    result = subspace.diff(base, write(tmp_path / "c", own), rank=2)
    assert (list(result), result.equal) == (["lm_head"], ("model.embed_tokens",))
    assert result["lm_head"].shape == (30, 8)
    assert result.notes == ("lm_head is model.embed_tokens in a, and its own in c",)


def test_a_head_that_only_the_base_stores(tmp_path):
    E = normal(30, 8)
    base = write(tmp_path / "a", {"model.embed_tokens.weight": E, "lm_head.weight": E})
    tuned = write(tmp_path / "b", {"model.embed_tokens.weight": E + low_rank(30, 8, 2)})
    result = subspace.diff(base, tuned, rank=2)
    assert {name: m.shape for name, m in result.items()} == {
        "model.embed_tokens": (8, 30),
        "lm_head": (30, 8),
    }
    np.testing.assert_allclose(result["lm_head"].sigma, result["model.embed_tokens"].sigma)


@pytest.mark.parametrize("fused", ["base", "tuned"])
def test_projections_that_one_stores_as_one(tmp_path, fused):
    parts = {p: normal(6, 10, seed=n) for n, p in enumerate(("q_proj", "k_proj", "v_proj"))}
    moved = {p: W + low_rank(6, 10, 2, seed=7) for p, W in parts.items()}
    config = {
        "model_type": "phi3",
        "hidden_size": 10,
        "num_attention_heads": 2,
        "head_dim": 3,
    }

    def apart(tensors):
        return {f"layers.0.attn.{p}.weight": W for p, W in tensors.items()}

    def joined(tensors):
        return {"layers.0.attn.qkv_proj.weight": torch.cat(list(tensors.values()))}

    one, other = (joined, apart) if fused == "base" else (apart, joined)
    base = write(tmp_path / "a", one(parts), config=config)
    tuned = write(tmp_path / "b", other(moved), config=config)
    result = subspace.diff(base, tuned, rank=4)
    assert (result.only_base, result.only_tuned, result.notes) == ((), (), ())
    if fused == "base":
        assert {name: m.shape for name, m in result.items()} == {"layers.0.attn.qkv_proj": (18, 10)}
    else:
        assert {m.shape for m in result.values()} == {(6, 10)}
        assert len(result) == 3
        for p, W in parts.items():
            found = result.adapter[f"layers.0.attn.{p}"].delta()
            np.testing.assert_allclose(found, moved[p] - W, atol=1e-6)


def test_fused_parts_of_two_dtypes_are_compared_apart(tmp_path):
    """They cannot be put together to the fused one, but it can be taken apart."""
    parts = {p: normal(6, 10, seed=n) for n, p in enumerate(("q_proj", "k_proj", "v_proj"))}
    config = {"model_type": "phi3", "hidden_size": 10, "num_attention_heads": 2, "head_dim": 3}
    whole = torch.cat(list(parts.values())).float()
    base = write(tmp_path / "a", {"attn.qkv_proj.weight": whole}, config=config)
    apart = {f"attn.{p}.weight": (2 * W).float() for p, W in parts.items()}
    apart["attn.k_proj.weight"] = apart["attn.k_proj.weight"].bfloat16()
    tuned = write(tmp_path / "b", apart, dtype=None, config=config)
    result = subspace.diff(base, tuned)
    assert set(result) == {f"attn.{p}" for p in parts}
    assert (result.only_base, result.only_tuned, result.notes) == ((), (), ())


def test_prefixes_are_no_difference(tmp_path):
    before = {"encoder.layer.0.query.weight": normal(6, 8), "encoder.norm.bias": normal(6)}
    after = {f"bert.{n}": t + normal(*t.shape, seed=1) for n, t in before.items()}
    after["classifier.weight"] = normal(3, 6)
    after["classifier.bias"] = normal(3)
    result = subspace.diff(write(tmp_path / "a", before), write(tmp_path / "b", after))
    assert list(result) == ["encoder.layer.0.query"]
    assert result.only_base == ()
    assert result.only_tuned == ("classifier", "classifier.bias")
    (tensor,) = result.tensors
    assert (tensor.tensor, tensor.changed) == ("encoder.norm.bias", True)


def test_modules_that_only_one_has(tmp_path):
    before = {"a.weight": normal(4, 5), "old.weight": normal(4, 5), "old.bias": normal(4)}
    after = {"a.weight": normal(4, 5, seed=1), "new.weight": normal(4, 5)}
    result = subspace.diff(write(tmp_path / "a", before), write(tmp_path / "b", after))
    assert (result.only_base, result.only_tuned) == (("old", "old.bias"), ("new",))


def test_other_tensors_are_counted_named_and_measured(tmp_path):
    before = {
        "q.weight": normal(4, 5),
        "norm.weight": torch.tensor([3.0, 4.0]),
        "experts": torch.ones(2, 3, 4),
        "logit_scale": torch.tensor(2.0),
        "zero": torch.zeros(3),
        "labels": torch.ones(2),
    }
    after = {name: tensor.clone() for name, tensor in before.items()}
    after["norm.weight"][0] = 3.5
    after["experts"][0, 0, 0] = 2.0
    after["zero"][0] = 1.0
    after["labels"] = torch.ones(3)
    result = subspace.diff(write(tmp_path / "a", before), write(tmp_path / "b", after))
    found = {t.tensor: (t.changed, t.relative) for t in result.tensors}
    assert found["norm.weight"] == (True, pytest.approx(0.1))
    assert found["experts"] == (True, pytest.approx(1 / math.sqrt(24)))
    assert found["logit_scale"] == (False, 0.0)
    assert [found[name][0] for name in ("zero", "labels")] == [True, True]
    assert np.isnan([found[name][1] for name in ("zero", "labels")]).all()
    assert [(t.tensor, t.shape) for t in result.tensors if t.tensor == "labels"] == [
        ("labels", (3,))
    ]


def test_a_pattern_chooses_modules_and_tensors(tmp_path):
    base, tuned = pair(tmp_path)
    result = subspace.diff(base, tuned, modules="*.q_proj")
    assert list(result) == ["model.layers.0.q_proj"]
    assert result.equal == result.only_base == result.only_tuned == ()
    assert [t.tensor for t in result.tensors] == ["model.layers.0.q_proj.bias"]


def test_shards_and_torch_files(tmp_path):
    base, tuned = pair(tmp_path)
    from safetensors.torch import load_file, save_file

    tensors = load_file(tuned / "model.safetensors")
    place = tmp_path / "sharded"
    place.mkdir()
    weight_map = {}
    for n, name in enumerate(tensors):
        save_file({name: tensors[name]}, place / f"model-{n}.safetensors")
        weight_map[name] = f"model-{n}.safetensors"
    index = {"metadata": {}, "weight_map": weight_map}
    (place / "model.safetensors.index.json").write_text(json.dumps(index))
    torch.save(tensors, tmp_path / "tuned.bin")
    whole = subspace.diff(base, tuned, rank=2)
    for other in (place, tmp_path / "tuned.bin"):
        again = subspace.diff(open_pretrained(base), other, rank=2)
        for name, found in whole.items():
            np.testing.assert_array_equal(again[name].sigma, found.sigma)


def test_what_packed_numbers_round_away_is_not_known(tmp_path):
    W = normal(8, 8).float()
    base = write(tmp_path / "a", {"q.weight": W, "q.bias": torch.ones(8)}, dtype=None)
    packed = {
        "q.weight": W.to(torch.float8_e4m3fn),
        "q.weight_scale": torch.tensor(0.5),
        "q.bias": torch.ones(8),
    }
    tuned = write(tmp_path / "b", packed, dtype=None)
    result = subspace.diff(base, tuned, rank=2)
    found = result["q"]
    assert (found.real, found.more, found.tuned_dtype) == (None, False, "float8_e4m3fn")
    assert np.isnan([found.level, found.rounding]).all()
    assert "stored as float8_e4m3fn: what that rounds away" in found.note
    assert found.to_dict()["level"] is None
    assert result.adapter["q"].level == 0
    assert result.only_tuned == ()
    assert [t.tensor for t in result.tensors] == ["q.bias"]


# What cannot be


def test_two_shapes_are_named_with_both_files(tmp_path):
    base = write(tmp_path / "a", {"wte.weight": normal(30, 8), "q.weight": normal(4, 8)})
    tuned = write(tmp_path / "b", {"wte.weight": normal(32, 8), "q.weight": normal(4, 8, seed=1)})
    with pytest.raises(ShapeError, match=r"'wte' is 8 x 30 in the base \(.*a/model.safetensors"):
        subspace.diff(base, tuned)
    with pytest.raises(ShapeError, match=r"8 x 32 in the tuned checkpoint \(.*b/model.safe.*--mod"):
        subspace.diff(base, tuned)
    assert list(subspace.diff(base, tuned, modules="q")) == ["q"]


def test_nothing_in_common_and_nothing_that_matches(tmp_path):
    base = write(tmp_path / "a", {"q.weight": normal(4, 8)})
    tuned = write(tmp_path / "b", {"other.weight": normal(4, 8)})
    with pytest.raises(UnknownModuleError, match="share no module: the one has q, the other other"):
        subspace.diff(base, tuned)
    with pytest.raises(UnknownModuleError, match=r"no module of base 'a' matches '\*.k'; it has q"):
        subspace.diff(base, tuned, modules="*.k")


@pytest.mark.parametrize("which", ["base", "tuned"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_weight_that_is_not_finite(tmp_path, which, bad):
    W = normal(4, 8)
    spoilt = W.clone()
    spoilt[1, 2] = bad
    before, after = (spoilt, W) if which == "base" else (W, spoilt)
    base = write(tmp_path / "base", {"q.weight": before})
    tuned = write(tmp_path / "tuned", {"q.weight": after})
    with pytest.raises(NonFiniteError, match=rf"W of module 'q'.*{which}/model.safetensors"):
        subspace.diff(base, tuned)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"rank": 0}, "rank is 0"),
        ({"energy": 0.0}, "energy is 0"),
        ({"energy": 1.5}, "energy is 1.5"),
        ({"energy": math.nan}, "energy is nan"),
        ({"rank": 3, "energy": 0.5}, "one of them decides"),
        ({"device": "nowhere"}, "device 'nowhere'"),
    ],
)
def test_arguments(tmp_path, words, said):
    base, tuned = pair(tmp_path)
    with pytest.raises(ArgumentError, match=said):
        subspace.diff(base, tuned, **words)


def test_an_adapter_is_no_checkpoint(tmp_path):
    base, _ = pair(tmp_path)
    with pytest.raises(FormatError, match="an adapter, not a base model"):
        subspace.diff(base, f"{R8}/adapter_model.safetensors")


# As an adapter


def test_full_fine_tuning_is_compared_with_lora(tmp_path):
    """A LoRA that was merged comes back: the same subspaces, the same norm, its own rank."""
    W = normal(40, 60)
    B, A = normal(40, 4, seed=1, size=1), normal(4, 60, seed=2, size=0.02)
    lora = subspace.Adapter.from_updates(
        {"layers.0.q": subspace.LowRankUpdate("layers.0.q", A.float(), B.float(), 2.0)}, name="lora"
    )
    merged = W.float().double() + lora["layers.0.q"].delta()
    for dtype, close in ((torch.float64, 1e-9), (torch.float32, 1e-5), (torch.bfloat16, 0.02)):
        place = tmp_path / str(dtype)
        base = write(place / "base", {"layers.0.q.weight": W.float()})
        tuned = write(place / "tuned", {"layers.0.q.weight": merged}, dtype=dtype)
        result = subspace.diff(base, tuned, rank=8)
        assert result["layers.0.q"].real == 4
        assert result["layers.0.q"].delta_norm == pytest.approx(
            float(lora["layers.0.q"].delta().norm()), rel=close
        )
        for side in ("in", "out"):
            found = subspace.similarity(lora, result.adapter, side=side)["layers.0.q"]
            assert found.phi[3, 3] == pytest.approx(1.0, abs=close)
            assert np.isnan(found.phi[:, 4:]).all()  # what is rounding has no directions
            assert found.agreeing == 4
        near = subspace.interference([lora, result.adapter])
        assert near.pairs[0].cosine == pytest.approx(1.0, abs=close)


def test_sides_that_speak_of_factors_are_refused(tmp_path):
    base, tuned = pair(tmp_path)
    adapter = subspace.diff(base, tuned, rank=2).adapter
    for side in ("A", "B"):
        with pytest.raises(
            ArgumentError, match=rf"side {side} says nothing of it; compare side in"
        ):
            subspace.similarity(adapter, adapter, side=side)
    assert subspace.rank([adapter])  # its spectrum has no factors to ask


def test_the_adapter_says_what_it_is(tmp_path):
    base, tuned = pair(tmp_path)
    result = subspace.diff(base, tuned, rank=2)
    adapter = result.adapter
    assert (adapter.name, str(adapter.method)) == (
        "tuned", "full fine-tuning, its leading directions",
    )  # fmt: skip
    assert adapter.base_model == "base"
    assert [(t.name, t.known) for t in adapter.set_aside] == [("model.norm.weight", True)]
    assert "the leading directions of tuned - base (rank 2)" in adapter.notes[0]
    assert "1 tensor that is no matrix changed too" in adapter.notes[1]
    by_energy = subspace.diff(base, tuned, energy=0.5).adapter
    assert "(50% of each energy)" in by_energy.notes[0]
    assert {u.A.dtype for u in adapter.values()} == {torch.float32}


def test_results_show_themselves(tmp_path):
    base, tuned = pair(tmp_path)
    result = subspace.diff(base, tuned, rank=2)
    assert repr(result) == "Diff(base='base', tuned='tuned', 3 modules changed)"
    html = result._repr_html_()
    assert html.count("<tr>") == 4
    assert "3 of 4 modules changed" in html
    frame = result.to_frame()
    assert list(frame.module) == CHANGED
    assert frame.sigma_1.tolist() == [m.sigma[0] for m in result.values()]
    with pytest.raises(UnknownModuleError, match="did not change, or is not in both"):
        result["model.layers.0.down_proj"]
