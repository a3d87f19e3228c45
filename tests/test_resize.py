"""The truncation is that of a dense float64 SVD, and its errors are those of Eckart and Young."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import peft
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import subspace
from subspace.adapters import Adapter, LowRankUpdate, Method
from subspace.errors import AnalysisError, ArgumentError, NonFiniteError, UnknownModuleError
from tests.support.documents import held
from tests.support.memory import adapter as in_memory
from tests.support.memory import factors, gaussian
from tests.support.peft_adapters import made, merged_deltas, tiny_bert, written
from tests.support.samples import R64

pytestmark = pytest.mark.filterwarnings("ignore:::peft", "ignore:::transformers")


def naive(update):
    """Singular values of the dense update, and the update itself."""
    dense = update.delta().numpy()
    return np.linalg.svd(dense, compute_uv=False), dense


shapes = st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(1, 9))


def many(list_of_shapes, dtype=torch.float32, size=1.0):
    return in_memory(
        *(
            replace(u, B=u.B * size ** (n + 1))
            for n, u in enumerate(
                gaussian(*shape, dtype=dtype, seed=n) for n, shape in enumerate(list_of_shapes)
            )
        )
    )


@given(st.lists(shapes, min_size=1, max_size=4), st.integers(1, 9))
def test_a_rank_is_the_best_of_that_rank(list_of_shapes, rank):
    source = many(list_of_shapes)
    result = subspace.resize(source, rank=rank)
    for name, update in source.items():
        S, dense = naive(update)
        m = result[name]
        assert (m.before, m.shape) == (update.rank, update.shape)
        assert m.after == min(rank, update.rank, *update.shape)
        lost = np.linalg.norm(S[m.after :]) / np.linalg.norm(S)
        assert m.error == pytest.approx(lost, abs=1e-9)
        assert m.energy == pytest.approx(1 - lost**2, abs=1e-9)
        assert m.norm == pytest.approx(np.linalg.norm(dense), rel=1e-9)
        ours = result.adapter[name].delta().numpy()
        assert np.linalg.norm(ours - dense) / np.linalg.norm(dense) == pytest.approx(lost, abs=3e-7)
        assert result.adapter.updates[name].rank == m.after == result.adapter[name].rank


@given(st.lists(shapes, min_size=1, max_size=4), st.floats(0.01, 1.0))
def test_an_energy_takes_the_fewest_directions_that_have_it(list_of_shapes, energy):
    source = many(list_of_shapes)
    for name, m in subspace.resize(source, energy=energy).items():
        squares = naive(source[name])[0] ** 2
        share = np.cumsum(squares) / squares.sum()
        assert share[m.after - 1] >= energy - 1e-12
        if m.after > 1:
            assert share[m.after - 2] < energy + 1e-12
        assert m.energy == pytest.approx(share[m.after - 1], abs=1e-9)


@given(st.lists(shapes, min_size=1, max_size=4), st.floats(0.0, 0.999))
def test_an_error_takes_the_fewest_directions_that_stay_below_it(list_of_shapes, error):
    source = many(list_of_shapes)
    for name, m in subspace.resize(source, error=error).items():
        S = naive(source[name])[0]
        left = [np.linalg.norm(S[k:]) / np.linalg.norm(S) for k in range(len(S) + 1)]
        assert left[m.after] <= error + 1e-9
        assert left[m.after - 1] >= error - 1e-9
        assert m.error <= error + 1e-12


@given(
    st.lists(shapes, min_size=1, max_size=4),
    st.one_of(
        st.tuples(st.just("rank"), st.integers(1, 9)),
        st.tuples(st.just("energy"), st.floats(0.05, 1.0)),
        st.tuples(st.just("error"), st.floats(0.0, 0.95)),
    ),
)
def test_one_budget_for_all_keeps_the_largest_of_all(list_of_shapes, asked):
    source = many(list_of_shapes, size=0.3)
    name, value = asked
    result = subspace.resize(source, budget="all", **{name: value})
    values = {module: naive(update)[0] for module, update in source.items()}
    real = np.sort(np.concatenate([S[1e-8 * S[0] < S] for S in values.values()]))[::-1]
    total = sum(m.after for m in result.values())
    squares = np.cumsum(real**2) / np.sum(real**2)
    if name == "rank":
        assert total == min(value * len(source), len(real))
    elif name == "energy":
        assert squares[total - 1] >= value - 1e-9
        assert total == 1 or squares[total - 2] <= value + 1e-9
    else:
        assert 1 - squares[total - 1] <= value**2 + 1e-9
        assert total == 1 or 1 - squares[total - 2] >= value**2 - 1e-9
    kept = [s for module, S in values.items() for s in S[: result[module].after]]
    assert np.allclose(np.sort(kept)[::-1], real[:total], rtol=1e-6)
    dense = np.concatenate([update.delta().numpy().ravel() for update in source.values()])
    ours = [
        (result.adapter[m].delta() if m in result.adapter else 0 * source[m].delta())
        .numpy()
        .ravel()
        for m in source
    ]
    error = np.linalg.norm(np.concatenate(ours) - dense) / np.linalg.norm(dense)
    assert result.error == pytest.approx(error, abs=1e-6)
    assert result.energy == pytest.approx(1 - error**2, abs=1e-6)
    assert set(result.adapter) == {module for module, m in result.items() if m.after}


@pytest.mark.parametrize("scale", [2.0, -0.7])
def test_factors_are_balanced_and_alpha_stays(scale):
    source = in_memory(replace(gaussian(9, 14, 6), scale=scale))
    result = subspace.resize(source, rank=3, dtype="float64")
    update = result.adapter["q"]
    assert update.scale == pytest.approx(scale * 6 / 3)
    S = naive(source["q"])[0][:3]
    left, right = update.B.T @ update.B, update.A @ update.A.T
    assert torch.allclose(left, right, atol=1e-12)
    wanted = torch.diag(torch.from_numpy(S)) / abs(update.scale)
    assert torch.allclose(left, wanted, atol=1e-12)
    assert result.adapter["q"].A.dtype == torch.float64
    default = subspace.resize(source, rank=3).adapter["q"]
    assert default.A.dtype == default.B.dtype == torch.float32


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("budget", ["module", "all"])
def test_peft_loads_a_resized_adapter_and_applies_it(tmp_path, rslora, budget):
    """One lora_alpha, as before, and ranks by a pattern; merged, it is the best of its rank."""
    wrapped = made(tiny_bert(), target_modules=["query", "dense"], r=6, use_rslora=rslora)
    source = subspace.load(written(wrapped, tmp_path / "run"))
    result = subspace.resize(source, error=0.4, budget=budget)
    out = subspace.save(result.adapter, tmp_path / "out").path
    config = json.loads((out / "adapter_config.json").read_text())
    assert (config["lora_alpha"], config["alpha_pattern"]) == (7, {})
    assert config["use_rslora"] is rslora
    assert config["rank_pattern"]
    again = subspace.load(out, strict=True)
    theirs = merged_deltas(peft.PeftModel.from_pretrained(tiny_bert(), out))
    kept = {name for name, m in result.items() if m.after}
    assert set(theirs) == set(again) == kept
    for name in kept:
        S, dense = naive(source[name])
        wanted = np.linalg.norm(S[result[name].after :])
        for ours in (again[name].delta(), theirs[name]):
            lost = np.linalg.norm(ours.numpy() - dense)
            assert lost == pytest.approx(wanted, abs=1e-6 * np.linalg.norm(dense))


@pytest.mark.parametrize("patterns", [False, True], ids=["one rank", "patterns"])
@pytest.mark.parametrize(
    ("rslora", "dora"), [(False, False), (True, False), (False, True), (True, True)]
)
def test_every_alpha_stays_whatever_the_method(tmp_path, rslora, dora, patterns):
    """rsLoRA divides by sqrt(r), with DoRA too, whose name hides it in what `inspect` shows."""
    table = {"rank_pattern": {"key": 4}, "alpha_pattern": {"value": 12}} if patterns else {}
    options = {"r": 8, "lora_alpha": 16, "use_rslora": rslora, "use_dora": dora, **table}
    targets = ["query", "key", "value"]
    wrapped = made(tiny_bert(), target_modules=targets, **options)
    source = subspace.load(written(wrapped, tmp_path / "run"))
    assert source.method == Method.of_lora(rslora=rslora, dora=dora)
    result = subspace.resize(source, rank=2)
    assert any("DoRA" in note for note in result.notes) is dora
    out = subspace.save(result.adapter, tmp_path / "out").path
    config = json.loads((out / "adapter_config.json").read_text())
    alphas = dict.fromkeys(source, 16) | {
        module: 12 for module in source if patterns and module.endswith("value")
    }
    assert {m: config["alpha_pattern"].get(m, config["lora_alpha"]) for m in source} == alphas
    assert (config["r"], config["rank_pattern"]) == (2, {})
    divisor = math.sqrt(2) if rslora else 2
    again = subspace.load(out, strict=True)
    for module, info in again.updates.items():
        assert info.scale == pytest.approx(alphas[module] / divisor)
        S, dense = naive(source[module])
        lost = np.linalg.norm(again[module].delta().numpy() - dense)
        assert lost == pytest.approx(np.linalg.norm(S[2:]), abs=1e-6 * np.linalg.norm(dense))


def test_all_directions_lose_nothing_but_rounding():
    source = in_memory(factors(40, 30, 8, cond=3))
    result = subspace.resize(source, rank=8, dtype="float64")
    assert (result["q"].after, result["q"].error, result["q"].energy) == (8, 0.0, 1.0)
    assert torch.allclose(result.adapter["q"].delta(), source["q"].delta(), atol=1e-13)
    again = subspace.resize(result.adapter, error=0.0)
    assert again["q"].after == 8


def test_a_direction_that_is_stored_twice_is_kept_once():
    u = gaussian(20, 30, 3)
    twice = LowRankUpdate("q", torch.cat([u.A, u.A]), torch.cat([u.B, u.B], 1), 1.0)
    assert subspace.resize(in_memory(twice), energy=1.0)["q"].after == 3


@pytest.mark.parametrize("size", [1e-30, 1e-12, 1e12, 1e30])
def test_tiny_and_huge_updates(size):
    u = gaussian(8, 9, 4, dtype=torch.float64)
    source = in_memory(replace(u, B=u.B * size))
    result = subspace.resize(source, rank=2, dtype="float64")
    S, dense = naive(source["q"])
    assert result["q"].error == pytest.approx(np.linalg.norm(S[2:]) / np.linalg.norm(S))
    lost = result.adapter["q"].delta().numpy() / size - dense / size
    assert np.linalg.norm(lost) == pytest.approx(np.linalg.norm(S[2:]) / size)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_in_and_out(dtype):
    u = gaussian(30, 20, 5, dtype=getattr(torch, dtype))
    result = subspace.resize(in_memory(u), rank=5, dtype=dtype)
    assert result.adapter.updates["q"].dtype == dtype
    dense = u.delta()
    assert (result.adapter["q"].delta() - dense).norm() <= 0.02 * dense.norm()
    with pytest.raises(ArgumentError, match="its new factors are beyond float16"):
        subspace.resize(in_memory(replace(u, B=u.B.float() * 1e20)), rank=2, dtype="float16")


def test_an_update_that_is_zero_is_left_out():
    zero = gaussian(5, 6, 2)
    zero = replace(zero, B=torch.zeros_like(zero.B))
    source = in_memory(gaussian(5, 6, 2, seed=1), zero)
    result = subspace.resize(source, rank=1)
    gone = result["layer.1.q"]
    assert (gone.after, gone.norm, gone.parameters_after) == (0, 0.0, 0)
    assert math.isnan(gone.error)
    assert math.isnan(gone.energy)
    assert list(result.adapter) == ["layer.0.q"]
    assert result.notes == ("left out, since nothing of them is kept: layer.1.q",)
    assert result.adapter.partial
    held(result.to_dict())
    assert result.to_frame()["error"].isna().tolist() == [False, True]
    with pytest.raises(AnalysisError, match="nothing would be left of it, every update is 0"):
        subspace.resize(in_memory(zero), rank=1)


def test_kernels_and_kinds_stay():
    source = in_memory(gaussian(8, 4 * 9, 5))
    info = replace(source.updates["q"], kind="conv2d", kernel=(3, 3))
    source = replace(source, updates=MappingProxyType({"q": info}))
    found = subspace.resize(source, rank=2).adapter.updates["q"]
    assert (found.kind, found.kernel, found.rank) == ("conv2d", (3, 3), 2)


def test_delta_w_is_never_formed(monkeypatch):
    def refuse(*_args, **_options):
        raise AssertionError("dense")

    source = in_memory(gaussian(200_000, 150_000, 4))
    monkeypatch.setattr(LowRankUpdate, "delta", refuse)
    assert subspace.resize(source, rank=2).adapter["q"].shape == (200_000, 150_000)


def test_heads_stay_with_a_resized_adapter(tmp_path):
    source = subspace.load(R64)
    result = subspace.resize(source, rank=4)
    again = subspace.load(subspace.save(result.adapter, tmp_path / "r4").path)
    assert [t.name for t in again.set_aside] == [t.name for t in source.set_aside]
    assert all(torch.equal(again.tensor(t.name), source.tensor(t.name)) for t in again.set_aside)
    assert not again.initial


def test_only_the_modules_that_are_asked_for():
    source = in_memory(*(gaussian(5, 6, 3, seed=n) for n in range(3)))
    result = subspace.resize(source, rank=1, modules="*.[01].*")
    assert list(result) == list(result.adapter) == ["layer.0.q", "layer.1.q"]
    with pytest.raises(UnknownModuleError, match="no module of adapter 'adapter' matches"):
        subspace.resize(source, rank=1, modules="nothing")
    with pytest.raises(UnknownModuleError, match=r"'layer.2.q' is not in the adapter"):
        result["layer.2.q"]


def test_the_result_says_all_of_it():
    source = in_memory(gaussian(5, 6, 3), gaussian(7, 6, 3, seed=1))
    done = []
    result = subspace.resize(source, rank=2, progress=done.append)
    assert sum(done) == 2
    plain = held(result.to_dict())
    assert "factors" not in plain
    assert (plain["asked"], plain["value"], plain["budget"]) == ("rank", 2, "module")
    assert plain["parameters_before"] == 3 * 11 + 3 * 13 == result.parameters_before
    assert plain["parameters_after"] == 2 * 11 + 2 * 13 == result.parameters_after
    assert repr(result).startswith("Resize('adapter', rank=2, budget='module', 2 modules, error 0.")
    assert "<td>layer.0.q</td><td>3</td><td>2</td>" in result._repr_html_()
    frame = result.to_frame()
    assert list(frame.columns) == [
        "module", "d_out", "d_in", "before", "after", "energy", "error", "norm",
        "parameters_before", "parameters_after",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({}, "give one of rank, energy and error$"),
        ({"rank": 2, "error": 0.1}, "give one of rank, energy and error, not rank and error"),
        ({"rank": 0}, "rank is 0; it is a whole number from 1"),
        ({"rank": 1.5}, "rank is 1.5; it is a whole number from 1"),
        ({"rank": True}, "rank is True"),
        ({"rank": math.inf}, "rank is inf"),
        ({"energy": 0.0}, "energy is 0.0; it is above 0 and at most 1"),
        ({"energy": 99.0}, "energy is 99.0; it is above 0 and at most 1"),
        ({"energy": math.nan}, "energy is nan"),
        ({"error": 1.0}, "error is 1.0; it is at least 0 and below 1"),
        ({"error": -0.1}, "error is -0.1"),
        ({"rank": 1, "budget": "layer"}, "budget is 'layer'; it is 'module' or 'all'"),
        ({"rank": 1, "dtype": "int8"}, "dtype is 'int8'; it is one of float32, float64"),
        ({"rank": 1, "device": "nowhere"}, "device 'nowhere' cannot be used"),
    ],
)
def test_what_makes_no_sense_is_said(asked, why):
    with pytest.raises(ArgumentError, match=why):
        subspace.resize(in_memory(gaussian(5, 6, 3)), **asked)


def test_what_is_not_finite_is_named():
    u = gaussian(5, 6, 3)
    u.A[0, 0] = math.nan
    with pytest.raises(NonFiniteError, match="1 of 18 entries of A in module 'q'"):
        subspace.resize(in_memory(u), rank=1)


def test_a_resized_adapter_is_like_itself():
    """Its leading directions are those of the whole: phi = 1."""
    source = in_memory(factors(50, 40, 8, cond=2))
    smaller = subspace.resize(source, rank=3).adapter
    phi = subspace.similarity(source, smaller, side="in")["q"].phi
    assert phi[2, 2] == pytest.approx(1, abs=1e-10)
    assert isinstance(smaller, Adapter)
