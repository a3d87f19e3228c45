"""Energy over W's whole singular index, against dense SVDs; what chance gives; verb and figure."""

import csv
import io
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import betaincc

from subspace import chance
from subspace.adapters import LowRankUpdate
from subspace.errors import ArgumentError, NonFiniteError, UnknownModuleError
from subspace.measures.placement.profile import estimate_seconds, profile
from subspace.plots.parts.colours import W_COLOUR
from subspace.plots.profile import profile_curve, profile_figure, spectrum
from tests.support import oracle
from tests.support.axes import assert_legible, words
from tests.support.folders import base, folder
from tests.support.memory import MemoryBase, adapter, dense, factors, gaussian
from tests.support.verbs import refused, run

SHAPES = [(60, 40), (40, 60), (50, 50)]
SIDES = ["in", "out"]


def of(update, W, **options):
    return profile(adapter(update, name="a"), MemoryBase({"q": W}), **options)["q"]


def normal(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_values(m, n, S, seed=1):
    """W (m, n) with these singular values, and its vectors."""
    rng = np.random.default_rng(seed)
    k = len(S)
    U, V = oracle.haar(rng, m, k), oracle.haar(rng, n, k)
    return torch.tensor(U * np.asarray(S) @ V.T), torch.tensor(U), torch.tensor(V)


def naive(update, W, side):
    """energy_k by its definition: a full SVD of W, a dense delta W."""
    A, B, s = dense(update)
    delta = s * (B @ A)
    U, _, Vh = np.linalg.svd(W.double().numpy(), full_matrices=True)
    rows = delta @ Vh.T if side == "in" else delta.T @ U
    return np.square(rows).sum(axis=0) / np.square(delta).sum()


# The measure


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("scale", [2.0, -0.5])
def test_energy_is_the_naive_one(side, shape, dtype, scale, device):
    W = normal(*shape).to(dtype)
    update = factors(*shape, 5, scale=scale, dtype=dtype, seed=2)
    got, want = of(update, W, side=side, device=device), naive(update, W, side)
    d, n = shape[1 if side == "in" else 0], min(shape)
    assert (got.d, got.resolved, got.side, got.rank) == (d, n, side, 5)
    # 1e-9: the smallest relative gaps of such a W leave 1e-10 to its Gram.
    assert_allclose(got.energy[:n], want[:n], atol=1e-9)
    assert_allclose(got.cumulative[:n], want.cumsum()[:n], atol=1e-9)
    assert got.energy[n:].sum() == pytest.approx(want[n:].sum(), abs=1e-9)
    assert got.energy.sum() == pytest.approx(1)
    assert_allclose(got.sigma, np.linalg.svd(W.double().numpy(), compute_uv=False), rtol=1e-9)
    p = np.square(np.linalg.svd(dense(update)[1] @ dense(update)[0], compute_uv=False)[:5])
    assert got.concentration == pytest.approx(np.sum((p / p.sum()) ** 2))


@given(
    seed=st.integers(0, 2**32 - 1),
    m=st.integers(1, 12),
    n=st.integers(1, 12),
    r=st.integers(1, 5),
    side=st.sampled_from(SIDES),
    size=st.sampled_from([1e-150, 1e-3, 1.0, 1e150]),
)
def test_energies_are_a_distribution_and_blind_to_scale(seed, m, n, r, side, size):
    W, update = normal(m, n, seed=seed), gaussian(m, n, r, seed=seed % 2**31)
    got = of(update, W, side=side)
    assert (got.energy >= 0).all()
    assert got.energy.sum() == pytest.approx(1)
    assert_allclose(got.energy.cumsum(), got.cumulative, atol=1e-12)
    assert (np.diff(got.cumulative) >= 0).all()
    assert (got.cumulative[-1], got.error[-1]) == (1.0, 0.0)
    assert 1 <= got.resolved <= min(m, n)
    assert (got.null_low <= got.null_high).all()
    assert 1 <= got.median_between[0] <= got.median_between[1] <= got.d
    other = of(replace(update, scale=-3.0), W * size, side=side)
    tolerance = np.where(np.isfinite(got.error), 2 * got.error + 1e-12, np.inf)
    assert (np.abs(other.cumulative - got.cumulative) <= tolerance).all()
    assert_allclose(other.sigma, size * got.sigma, rtol=1e-6)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("shape", SHAPES)
def test_planted_energy_is_found_where_it_was_put(side, shape):
    W, U, V = with_values(*shape, np.geomspace(1, 1e-3, min(shape)))
    where, sizes = [0, 7, 38], torch.tensor([1.0, 3.0, 2.0], dtype=torch.float64)
    update = LowRankUpdate("q", V[:, where].mT * sizes[:, None], U[:, where], 0.01)
    got = of(update, W, side=side)
    want = np.zeros(got.d)
    want[where] = np.array([1, 9, 4]) / 14
    assert_allclose(got.energy, want, atol=1e-8)
    assert got.median == 8 / got.d
    assert got.median_between == (8, 8)
    assert got.tenth.energy == pytest.approx(1 / 14)
    assert got.top.energy == pytest.approx(1 / 14)
    assert (got.top.k, got.tenth.k) == (3, min(shape) // 10)


@pytest.mark.parametrize("cond", [1e2, 1e4, 1e6, 1e9])
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("shape", [(80, 50), (50, 80), (60, 60)])
def test_the_error_bound_holds(cond, side, shape):
    """Against the vectors that W was made of, on spectra that the Gram squares below eps."""
    n = min(shape)
    W, U, V = with_values(*shape, np.geomspace(1, 1 / cond, n), seed=4)
    update = gaussian(*shape, 4, seed=5)
    A, B, s = dense(update)
    delta = s * B @ A
    rows = delta @ V.numpy() if side == "in" else delta.T @ U.numpy()
    exact = (np.square(rows).sum(axis=0) / np.square(delta).sum()).cumsum()
    got = of(update, W, side=side)
    known = np.isfinite(got.error[:n])
    # 1e-13: W itself was rounded when it was made, U and V are orthonormal to rounding.
    assert (np.abs(got.cumulative[:n] - exact)[known] <= got.error[:n][known] + 1e-13).all()
    # A tight bound, too: while sigma is well above the floor most cuts are known.
    floor = np.sqrt(max(shape) * np.finfo(float).eps)
    assert known[np.geomspace(1, 1 / cond, n)[:n] > 30 * floor].mean() > 0.9
    assert got.resolved == pytest.approx((np.geomspace(1, 1 / cond, n) > floor).sum(), abs=1)


@pytest.mark.parametrize("side", SIDES)
def test_flat_w_has_no_order(side):
    """All singular values equal: only the whole means something, and no basis is preferred."""
    got = of(gaussian(20, 20, 3), torch.eye(20, dtype=torch.float64), side=side)
    assert np.isinf(got.error[:-1]).all()
    assert_allclose(got.energy, 1 / 20)
    assert_allclose(got.cumulative, np.arange(1, 21) / 20)
    assert math.isnan(got.top.energy)
    assert math.isnan(got.top.p)
    assert math.isnan(got.median)
    assert got.median_between == (1, 20)
    assert "19 of 19 cuts lie in clusters" in got.note


def test_a_clusters_sum_is_known_and_spread_evenly():
    S = [9.0, 8.0, *[5.0] * 4, 2.0, 1.0]
    W, _, V = with_values(12, 8, S)
    update = LowRankUpdate("q", V[:, [2]].mT, normal(12, 1), 1.0)
    got = of(update, W)
    assert_allclose(got.energy, [0, 0, 0.25, 0.25, 0.25, 0.25, 0, 0], atol=1e-12)
    assert_array_equal(np.isinf(got.error), [False, False, True, True, True, False, False, False])
    assert got.median_between == (3, 6)


@pytest.mark.parametrize(("shape", "side"), [((10, 30), "in"), ((30, 10), "out")])
def test_the_null_space_is_one_lump(shape, side):
    W, U, V = with_values(*shape, np.linspace(3, 1, 10))
    rng = np.random.default_rng(2)
    near = V if side == "in" else U
    beyond = torch.tensor(rng.standard_normal((30, 1)))
    beyond -= near @ (near.mT @ beyond)
    direction = beyond / beyond.norm() + near[:, :1]  # half of the energy beyond W's range
    far = normal(10, 1)
    A, B = (direction.mT, far) if side == "in" else (far.mT, direction)
    got = of(LowRankUpdate("q", A, B, 1.0), W, side=side)
    assert (got.d, got.resolved) == (30, 10)
    assert got.cumulative[9] == pytest.approx(0.5)
    assert np.isinf(got.error[10:29]).all()
    assert_allclose(got.energy[10:], 0.5 / 20)
    assert "10 of 30 directions of W are told apart from zero; the others hold 0.5 " in got.note
    alone = LowRankUpdate("q", *((beyond.mT, far) if side == "in" else (far.mT, beyond)), 1.0)
    assert of(alone, W, side=side).median_between == (11, 30)


def test_a_rank_deficient_w_is_resolved_to_its_rank():
    W, _, _ = with_values(30, 20, np.linspace(2, 1, 6))
    for side in SIDES:
        got = of(gaussian(30, 20, 2), W, side=side)
        assert got.resolved == 6
        assert np.isfinite(got.error[:6]).all()
        assert np.isinf(got.error[6:-1]).all()


@pytest.mark.parametrize("side", SIDES)
def test_a_single_null_direction_holds_what_is_left(side):
    W, U, V = with_values(8, 8, [*range(8, 1, -1), 0.0])
    update = LowRankUpdate("q", V[:, -1:].mT + V[:, :1].mT, U[:, -1:] + U[:, :1], 1.0)
    got = of(update, W, side=side)
    assert got.resolved == 7
    assert_allclose(got.energy, [0.5, *[0] * 6, 0.5], atol=1e-12)


def test_what_has_no_energy_is_undefined_with_the_reason():
    update = gaussian(9, 7, 2)
    for got, why in (
        (of(replace(update, B=torch.zeros(9, 2)), normal(9, 7)), "untrained"),
        (of(update, torch.zeros(9, 7)), "W is exactly zero"),
    ):
        assert why in got.note
        assert np.isnan(got.energy).all()
        assert got.resolved == 0
        plain = json.loads(json.dumps(got.to_dict(), allow_nan=False))
        assert plain["cumulative"] == [None] * 7
        assert (plain["median"], plain["top"]["energy"]) == (None, None)


def test_infinite_errors_become_null():
    plain = of(gaussian(9, 9, 2), torch.eye(9)).to_dict()
    assert plain["error"] == [None] * 8 + [0.0]


def test_a_numerical_rank_is_noted():
    update = gaussian(9, 7, 2)
    B = torch.cat([update.B[:, :1], update.B[:, :1]], dim=1)
    got = of(replace(update, B=B), normal(9, 7))
    assert "the update has numerical rank 1 of 2" in got.note
    assert got.concentration == pytest.approx(1)


def test_errors():
    update, W = gaussian(6, 5, 2), normal(6, 5)
    with pytest.raises(ArgumentError, match="in or out"):
        of(update, W, side="A")
    with pytest.raises(UnknownModuleError, match="matches"):
        of(update, W, modules="*.v")
    for bad in (math.nan, math.inf):
        W[1, 1] = bad
        with pytest.raises(NonFiniteError, match=r"W of module 'q' holds .*q\.weight"):
            of(update, W)
    result = profile(adapter(update), MemoryBase({"q": normal(6, 5)}))
    assert ("q" in result, len(result), list(result)) == (True, 1, ["q"])
    assert repr(result) == "Profile('adapter', base='base', side='in', 1 modules)"
    with pytest.raises(UnknownModuleError, match="'v' has no profile"):
        result["v"]


def test_the_frame_has_a_row_an_index():
    frame = profile(adapter(gaussian(6, 9, 2)), MemoryBase({"q": normal(6, 9)})).to_frame()
    assert len(frame) == 9
    assert frame["sigma"].isna().sum() == 3
    assert frame["energy"].sum() == pytest.approx(1)


def test_the_estimate_grows_with_the_cube():
    """Its shape alone: no test times anything."""
    assert estimate_seconds([]) == 0
    assert estimate_seconds([(8, 4)]) > 0


# What chance gives


def simulate(d, k, p, draws=20_000, seed=0):
    """Energy in the first k axes of updates whose directions are Haar, their energies p."""
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(draws // 2000):
        Q = np.linalg.qr(rng.standard_normal((2000, d, len(p))))[0]
        out.append(np.square(Q[:, :k]).sum(axis=1) @ p)
    return np.concatenate(out)


SPREADS = {
    "one": np.ones(1),
    "equal": np.full(8, 1 / 8),
    "half": np.array([0.5] + [0.5 / 7] * 7),
    "geometric": 0.5 ** np.arange(1, 9) / (1 - 0.5**8),
}


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("k", [1, 4, 20, 39])
def test_moments_and_tails_match_simulation(spread, k):
    d, p = 40, SPREADS[spread]
    c = float(np.square(p).sum())
    T = simulate(d, k, p)
    std = float(chance.energy_std(k, d, c))
    assert abs(T.mean() - k / d) < 4.5 * std / np.sqrt(len(T))
    noise = np.sqrt(np.var((T - T.mean()) ** 2) / len(T))
    assert abs(T.var() - std**2) < 4.5 * noise
    low, high = chance.energy_range(k, d, c)
    outside = np.mean((low > T) | (high < T))
    # Binomial noise, and a fifth of 5 % (a third at k = 1 and d - 1) where Beta is not exact.
    slack = 0.0 if spread == "one" else 0.01 if 1 < k < d - 1 else 0.022
    assert abs(outside - 0.05) < 4.5 * np.sqrt(0.05 * 0.95 / len(T)) + slack
    if 4 <= k <= 36:
        for tail in (0.05, 0.01):
            at = np.quantile(T, 1 - tail)
            assert tail / 2 < chance.energy_pvalue(at, k, d, c) < 2 * tail


def test_one_direction_and_equal_ones_are_the_known_nulls():
    k = np.arange(1, 30)
    x = np.linspace(0.01, 0.99, 29)
    assert_allclose(chance.energy_std(k, 30, 1.0), chance.phi_std(k, 1, 30))
    assert_allclose(chance.energy_pvalue(x, k, 30, 1.0), betaincc(k / 2, (30 - k) / 2, x))
    # r equal energies: T = min(k, r)/r phi(k, r).
    assert_allclose(
        chance.energy_std(k, 30, 1 / 6), np.minimum(k, 6) / 6 * chance.phi_std(k, 6, 30)
    )


def test_certainty_leaves_no_chance():
    assert chance.energy_std(5, 5, 1.0) == 0
    assert chance.energy_pvalue(1.0, 5, 5, 1.0) == 1
    assert_allclose(chance.energy_range(2, 5, 1 / 5), [0.4, 0.4])  # isotropic: k/d always
    assert chance.energy_pvalue([0.5, 0.3], 2, 5, 1 / 5).tolist() == [0, 1]
    assert chance.energy_pvalue(1.0, 1, 1, 1.0) == 1
    assert math.isnan(chance.energy_pvalue(math.nan, 2, 5, 1.0))


def test_a_random_update_is_no_finding_and_a_planted_one_is():
    W, U, V = with_values(120, 120, np.linspace(3, 0.1, 120))
    p = [of(gaussian(120, 120, 4, seed=s), W).tenth.p for s in range(40)]
    assert np.mean(np.array(p) < 0.05) < 0.2  # 4.5 standard deviations of 40 draws
    planted = LowRankUpdate("q", V[:, :4].mT, U[:, :4], 1.0)
    got = of(planted, W)
    assert got.tenth.p < 1e-9
    assert got.median_p < 1e-9
    last = LowRankUpdate("q", V[:, -4:].mT, U[:, -4:], 1.0)
    assert of(last, W).median_p < 1e-9  # where W does least is a finding as well
    assert of(last, W).median > 0.95


# The verb


@pytest.fixture
def pair(tmp_path):
    return folder(tmp_path / "r2"), base(tmp_path / "model")


def profiled(adapter, model, *more, code=0):
    return run("placement", adapter, "--base", model, "--profile", *more, code=code)


def test_the_table_and_json_say_the_same(pair):
    done = profiled(*pair)
    assert "energy of r2 over the right singular vectors of W of model, side in" in done.output
    assert all(len(x) <= 90 for x in done.output.splitlines() if not x.startswith("note"))
    plain = json.loads(profiled(*pair, "--json").stdout)
    assert (plain["schema_version"], plain["kind"], plain["side"]) == ("2", "profile", "in")
    (first, _) = plain["modules"]
    line = next(text for text in done.output.splitlines() if text.startswith("query"))
    for number in (first["top"]["energy"], first["tenth"]["energy"]):
        assert f"{number:.3f}" in line
    assert "5/7" in line  # W is 5 x 7
    assert "top 2 0.286, top 10% 0.143" in done.output
    assert "note: enc.0.query: 5 of 7 directions of W" in done.output
    assert len(first["energy"]) == 7
    assert first["error"][5] is None
    rows = json.loads(profiled(*pair, "--side", "out", "--modules", "*.value", "--json").stdout)
    assert [(m["module"], m["d"]) for m in rows["modules"]] == [("enc.0.value", 5)]


def test_csv_is_one_line_an_index(pair):
    rows = list(csv.DictReader(io.StringIO(profiled(*pair, "--csv").stdout)))
    assert [row["k"] for row in rows] == [*map(str, range(1, 8))] * 2
    first = rows[:7]
    assert sum(float(row["energy"]) for row in first) == pytest.approx(1)
    assert (first[5]["sigma"], first[5]["error"]) == ("", "")
    assert float(first[2]["null_mean"]) == pytest.approx(3 / 7)


def test_refusals(pair, tmp_path):
    refused(profiled(*pair, "--k", 3, code=2), tmp_path, "--k", "--profile")
    drawn = ("--figure", 4, "--out", tmp_path / "f.png")
    refused(profiled(*pair, *drawn, code=2), tmp_path, "--figure", "--profile")
    refused(profiled(*pair, "--json", "--csv", code=2), tmp_path, "choose one")
    refused(profiled(*pair, "--out", "x.gif", code=2), tmp_path, "x.gif")
    other = base(tmp_path / "other", d=(5, 9))
    refused(profiled(pair[0], other, code=2), tmp_path, "enc.0.query", "5", "9", "7")


def test_long_work_is_announced_on_stderr(pair, monkeypatch):
    from subspace.cli import profile_table

    monkeypatch.setattr(profile_table, "_NOTED", 1)
    done = profiled(*pair, "--json")
    json.loads(done.stdout)
    assert done.stderr.startswith("profile: eigh of 2 Grams up to 5 x 5, about ")
    assert done.stderr.count("\n") == 1
    one = profiled(*pair, "--json", "--modules", "*.value")
    assert one.stderr.startswith("profile: eigh of a Gram of 5 x 5, about ")


def test_ranks_that_differ_have_their_own_chance(tmp_path):
    def narrow(tensors):
        for which, shape in (("A", (1, 7)), ("B", (5, 1))):
            tensors[f"base_model.model.enc.0.value.lora_{which}.weight"] = np.ones(shape, "f4")

    done = profiled(folder(tmp_path / "a", change=narrow), base(tmp_path / "model"))
    assert "top r  null mean" in done.output


def test_the_figure_is_written(pair, tmp_path):
    out = tmp_path / "profile.svg"
    done = profiled(*pair, "--out", out)
    assert out.read_text().startswith("<?xml")
    assert done.stderr == f"wrote {out}\n"


# The figure

BERT = [f"encoder.layer.{k}.attention.self.{w}" for k in range(3) for w in ("query", "value")]


def measured(*, shape=(40, 30), side="in", names=BERT, change=lambda update: update):
    update = change(gaussian(*shape, 3))
    from subspace.adapters import Adapter

    held = {n: LowRankUpdate(n, update.A, update.B, 1.0) for n in names}
    W = normal(*shape)
    return profile(
        Adapter.from_updates(held, name="r3_$x$"), MemoryBase(dict.fromkeys(names, W)), side=side
    )


def test_curves_are_the_measures_numbers():
    m = measured()[BERT[0]]
    ax = profile_curve(m, ax=Figure().add_subplot())
    curve, diagonal = ax.lines
    assert_array_equal(curve.get_xdata(), np.arange(1, 31))
    assert_array_equal(curve.get_ydata(), m.cumulative)
    assert_allclose(diagonal.get_ydata(), np.arange(1, 31) / 30)
    assert ax.get_xlim() == (0, 30)
    assert {1, 30} <= set(ax.get_xticks())  # both ends can be read
    times = profile_curve(m, ax=Figure().add_subplot(), over="chance")
    assert_allclose(times.lines[0].get_ydata(), m.cumulative * 30 / np.arange(1, 31))
    assert (times.get_xscale(), times.get_yscale()) == ("log", "log")
    assert {1, 30} <= set(times.get_xticks())
    low, high = times.get_ylim()
    assert low < 1 < high


def test_ws_own_values_stand_on_labelled_axes_of_their_own():
    """Over the same index as the share, and in the legend, but never in one panel with it."""
    m = measured(shape=(12, 30))[BERT[0]]
    ax = spectrum(m, ax=Figure().add_subplot())
    (sigma,) = ax.lines
    assert_array_equal(sigma.get_xdata(), np.arange(1, 13))
    assert_allclose(sigma.get_ydata(), m.sigma / m.sigma[0])
    assert ax.get_ylabel() == "σ_k / σ_1"
    assert ax.yaxis.label.get_color() == sigma.get_color() == W_COLOUR
    assert any("W is zero here" in label for label in ax.get_legend_handles_labels()[1])
    figure = profile_figure(measured(), modules=BERT[:2])
    values, shares = figure.axes[:2], figure.axes[2:4]
    for own, share in zip(values, shares, strict=True):
        assert own.get_xlim() == share.get_xlim()
        assert own.get_xticks().tolist() == share.get_xticks().tolist()
        assert W_COLOUR not in {line.get_color() for line in share.lines}
    assert "W: σ_k / σ_1" in {text.get_text() for text in figure.legends[0].get_texts()}


@pytest.mark.parametrize("width", [3.4, 7.0])
def test_the_legend_lies_below_every_curve(width):
    figure = profile_figure(measured(shape=(12, 30)), width=width)
    assert_legible(figure)
    legend = figure.legends[0].get_window_extent()
    assert all(legend.y1 < ax.get_tightbbox().y0 + 1 for ax in figure.axes)


def test_what_is_not_sure_is_dotted_and_the_null_space_grey():
    m = measured(shape=(12, 30))[BERT[0]]
    ax = profile_curve(m, ax=Figure().add_subplot())
    curve, _, dotted = ax.lines
    assert np.isfinite(curve.get_ydata()).tolist() == [True] * 12 + [False] * 17 + [True]
    assert dotted.get_linestyle() == ":"
    assert_array_equal(dotted.get_ydata(), m.cumulative)
    assert any("W is zero here" in label for label in ax.get_legend_handles_labels()[1])
    assert not any(
        "zero" in x
        for x in profile_curve(
            measured()[BERT[0]], ax=Figure().add_subplot()
        ).get_legend_handles_labels()[1]
    )


@pytest.mark.parametrize("width", [3.0, 3.4, 7.0])
@pytest.mark.parametrize("shape", [(40, 30), (12, 30)])
def test_the_figure_is_legible_and_says_what_it_is(width, shape):
    figure = profile_figure(measured(shape=shape), width=width)
    assert_legible(figure)
    said = " ".join(words(figure)).replace("\n", " ")
    assert r"Energy of ΔW (r3\_\$x\$)" in said or r"r3_\$x\$" in said
    assert "right-singular vectors of W" in said
    assert "layer 1 query" in said  # of three layers the middle one
    assert "layer 1 value" in said
    assert len(figure.axes) == 6
    lower = [ax for ax in figure.axes if ax.get_xscale() == "log"]
    assert lower[0].get_ylim() == lower[1].get_ylim()


def test_an_undefined_panel_says_why():
    nothing = measured(change=lambda u: replace(u, B=torch.zeros_like(u.B)))
    figure = profile_figure(nothing, modules=BERT[0])
    assert "untrained" in " ".join(words(figure))
    assert_legible(figure)


def test_figures_refuse_what_they_cannot_draw():
    result = measured()
    with pytest.raises(UnknownModuleError, match="no module 'x'"):
        profile_figure(result, modules="x")
    with pytest.raises(ArgumentError, match="1 to 2 modules"):
        profile_figure(result, modules=BERT[:3])
    with pytest.raises(ArgumentError, match="inches"):
        profile_figure(result, width=1)


@pytest.mark.parametrize("r", [10, 14])
def test_a_rank_that_fills_the_side_is_no_evidence(r):
    """r >= d_out: all energy of side out lies in W's leading d_out directions, by necessity.

    "1.000, p < 1e-4" stood there, where chance is 1.000.
    """
    m = of(gaussian(10, 30, r), normal(10, 30), side="out")
    for top in (m.top, m.tenth):
        if top.k == 10:
            assert top.energy == pytest.approx(1.0)
            assert top.null_mean == 1.0
            assert top.p == 1.0
    assert m.top.k == 10
