"""phi against the oracle, its invariances, its undefined cells, and what agrees."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.linalg import subspace_angles
from scipy.special import betaincinv

from subspace import similarity
from subspace.adapters import Adapter, LowRankUpdate
from subspace.errors import ArgumentError, NonFiniteError, ShapeError, UnknownModuleError
from subspace.measures.agreement import fill_agreeing
from tests.support import oracle
from tests.support.memory import adapter, dense, factors, gaussian, planted

SIDES = ["A", "B", "in", "out"]
seeds = st.integers(0, 2**31)
ranks = st.integers(1, 6)


def compare(u, v, side="A", **options):
    return similarity(adapter(u, name="u"), adapter(v, name="v"), side=side, **options)["q"]


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("cond", [0.5, 2, 4, 6])
@pytest.mark.parametrize("size", [1e-3, 1.0])
def test_phi_is_the_oracles_within_its_own_error(side, dtype, cond, size, device):
    u = factors(50, 40, 6, dtype=dtype, cond=cond, size=size, scale=2.0, seed=1)
    v = factors(50, 40, 9, dtype=dtype, cond=cond, size=size, scale=0.5, seed=2)
    got = compare(u, v, side, device=device)
    want = oracle.phi(oracle.directions(*dense(u), side)[0], oracle.directions(*dense(v), side)[0])
    known = np.isfinite(got.phi)
    assert known[0, 0]
    off = np.abs(got.phi - want)[known]
    assert (off <= np.maximum(got.error[known], 1e-9)).all()
    assert (known == (~got.masked & np.isfinite(got.error))).all()


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_rank_deficient_factors_agree_with_the_oracle(side, dtype):
    """Rank 3 stored as rank 6: what is defined is right, in units of the rounding that made it."""
    g = torch.Generator().manual_seed(0)
    n = {"generator": g, "dtype": torch.float64}
    A = torch.randn(6, 3, **n) @ torch.randn(3, 40, **n)
    B = torch.randn(50, 3, **n) @ torch.randn(3, 6, **n)
    u = LowRankUpdate("q", A.to(dtype), B.to(dtype), 1.0)
    v = factors(50, 40, 4, seed=2)
    got = compare(u, v, side)
    want = oracle.phi(oracle.directions(*dense(u), side)[0], oracle.directions(*dense(v), side)[0])
    assert got.numerical_rank_a == 3
    assert np.isfinite(got.phi[:3]).all()
    off = np.abs(got.phi - want)[:3]
    assert (off <= np.maximum(got.error[:3], 1e-9)).all()


@pytest.mark.parametrize("size", [1e-140, 1e-50, 1e60, 1e140])
@pytest.mark.parametrize("side", SIDES)
def test_tiny_and_huge_factors_agree_with_the_oracle(size, side):
    u, v = factors(30, 20, 3, size=size, seed=1), factors(30, 20, 4, seed=2)
    got = compare(u, v, side)
    A, B, s = dense(u)
    unit = (A / size, B / size, s)  # the oracle's own products stay in range
    want = oracle.phi(oracle.directions(*unit, side)[0], oracle.directions(*dense(v), side)[0])
    assert_allclose(got.phi, want, atol=1e-9)


@pytest.mark.parametrize("size", [1e-150, 1e-50, 1e60, 1e150])
@pytest.mark.parametrize("side", SIDES)
def test_scale_of_the_factors_does_not_matter(size, side):
    u, v = factors(30, 20, 3, seed=1), factors(30, 20, 4, seed=2)
    moved = LowRankUpdate("q", u.A * size, u.B * size, u.scale)
    assert_allclose(compare(moved, v, side).phi, compare(u, v, side).phi, atol=1e-9)


@given(seed=seeds, r=ranks, s=ranks, side=st.sampled_from(SIDES))
def test_every_cell_is_the_mean_squared_cosine(seed, r, s, side):
    """An independent route to Eq. 4: scipy's principal angles, and a value in [0, 1]."""
    u, v = gaussian(11, 9, r, seed=seed), gaussian(11, 9, s, seed=seed + 1)
    got = compare(u, v, side)
    U, V = (oracle.directions(*dense(x), side)[0] for x in (u, v))
    for i, j in np.ndindex(r, s):
        if np.isfinite(got.phi[i, j]):
            want = np.mean(np.cos(subspace_angles(U[:, : i + 1], V[:, : j + 1])) ** 2)
            assert abs(got.phi[i, j] - want) <= max(got.error[i, j], 1e-9)
            assert 0 <= got.phi[i, j] <= 1


@given(seed=seeds, r=ranks, s=ranks, side=st.sampled_from(SIDES))
def test_exchange_transposes(seed, r, s, side):
    u, v = gaussian(11, 9, r, seed=seed), gaussian(11, 9, s, seed=seed + 1)
    there, back = compare(u, v, side), compare(v, u, side)
    assert_allclose(there.phi, back.phi.T, atol=1e-12)
    assert there.agreeing == back.agreeing
    assert_allclose(there.pvalue, back.pvalue.T, rtol=1e-6, atol=1e-12)


@given(seed=seeds, r=ranks, side=st.sampled_from(SIDES), scale=st.sampled_from([-3.0, 1e-4, 7.0]))
def test_scale_and_orthogonal_remix_change_nothing(seed, r, side, scale):
    u, v = gaussian(11, 9, r, seed=seed, dtype=torch.float64), gaussian(11, 9, 3, seed=seed + 1)
    G = torch.tensor(oracle.haar(np.random.default_rng(seed), r, r))
    moved = LowRankUpdate("q", G @ u.A, u.B @ G.T, u.scale * scale)
    before, after = compare(u, v, side), compare(moved, v, side)
    both = np.isfinite(before.phi) & np.isfinite(after.phi)
    slack = np.maximum(before.error + after.error, 1e-9)
    assert (np.abs(before.phi - after.phi) <= slack)[both].all()


@given(seed=seeds, r=ranks, side=st.sampled_from(["in", "out"]))
def test_in_and_out_do_not_see_the_gauge(seed, r, side):
    rng = np.random.default_rng(seed)
    u, v = gaussian(11, 9, r, seed=seed, dtype=torch.float64), gaussian(11, 9, 3, seed=seed + 1)
    G = torch.tensor(rng.standard_normal((r, r)) + 2 * np.eye(r))
    moved = LowRankUpdate("q", G @ u.A, torch.linalg.solve(G, u.B, left=False), u.scale)
    before, after = compare(u, v, side), compare(moved, v, side)
    both = np.isfinite(before.phi) & np.isfinite(after.phi)
    slack = np.maximum(before.error + after.error, 1e-7)
    assert (np.abs(before.phi - after.phi) <= slack)[both].all()


def test_a_alone_does_see_the_gauge():
    u = factors(20, 15, 3, seed=1)
    G = torch.diag(torch.tensor([1e3, 1.0, 1e-3], dtype=torch.float64))
    moved = LowRankUpdate("q", G @ u.A, torch.linalg.solve(G, u.B, left=False), u.scale)
    assert compare(u, moved, "A").phi[0, 0] < 0.99
    assert_allclose(np.diag(compare(u, moved, "in").phi), 1.0, atol=1e-9)
    assert compare(u, moved, "A").phi[2, 2] == pytest.approx(1.0, abs=1e-9)


def test_an_adapter_is_itself():
    u = factors(40, 30, 5, seed=3)
    got = compare(u, u)
    assert_allclose(np.diag(got.phi), 1.0, atol=1e-9)
    assert got.agreeing == 5


def test_cells_beyond_the_numerical_rank_are_nan():
    g = torch.Generator().manual_seed(0)
    A = (torch.randn(8, 3, generator=g) @ torch.randn(3, 60, generator=g)).to(torch.bfloat16)
    u = LowRankUpdate("q", A, torch.randn(50, 8, generator=g).to(torch.bfloat16), 1.0)
    got = compare(u, gaussian(50, 60, 4))
    assert got.numerical_rank_a == 3
    assert np.isfinite(got.phi[:3]).all()
    assert np.isnan(got.phi[3:]).all()
    assert np.isnan(got.error[3:]).all()
    assert np.isnan(got.overlap_a[3:]).all()


def test_a_full_rank_bf16_adapter_of_a_large_model_has_no_nan_cell():
    u = gaussian(64, 12288, 64, dtype=torch.bfloat16, seed=1)
    got = compare(u, gaussian(64, 12288, 8, dtype=torch.bfloat16, seed=2))
    assert np.isfinite(got.phi).all()


def test_cells_that_cut_a_cluster_are_masked():
    """Equal singular values: only the whole subspace is defined."""
    Q = torch.linalg.qr(torch.randn(20, 4, generator=torch.Generator().manual_seed(0)).double())[0]
    u = LowRankUpdate("q", Q.T.contiguous(), torch.ones(20, 4).double(), 1.0)
    got = compare(u, factors(20, 20, 3, seed=1))
    assert got.masked[:3].all()
    assert np.isnan(got.phi[:3]).all()
    assert np.isfinite(got.phi[3]).all()
    assert "cluster" in got.note


def test_untrained_is_no_error():
    u = LowRankUpdate("q", torch.randn(4, 9), torch.zeros(7, 4), 2.0)
    for side in SIDES:
        got = compare(u, gaussian(7, 9, 2), side)
        assert got.agreeing is None
        assert np.isnan(got.phi).all()
        assert got.numerical_rank_a == 0
        assert got.note.startswith("untrained: the update of u")


@pytest.mark.parametrize("k", [0, 1, 3, 8])
def test_planted_directions_are_counted(k):
    """d = 384, r = 8 and 64: exactly as many as were planted, in 20 modules at once."""
    pairs = [planted(384, 8, 64, k, seed=n) for n in range(20)]
    a, b = (adapter(*(p[n] for p in pairs)) for n in (0, 1))
    assert [m.agreeing for m in similarity(a, b).values()] == [k] * 20


@pytest.mark.parametrize("k", [0, 1, 3, 8])
def test_planted_directions_are_counted_at_r_64(k):
    pairs = [planted(384, 64, 64, k, seed=n) for n in range(6)]
    a, b = (adapter(*(p[n] for p in pairs)) for n in (0, 1))
    assert [m.agreeing for m in similarity(a, b).values()] == [k] * 6


def test_random_adapters_agree_on_nothing():
    """200 independent modules: the false discovery rate is held, not each module's error."""
    a = adapter(*(gaussian(24, 48, 4, seed=n) for n in range(200)))
    b = adapter(*(gaussian(24, 48, 6, seed=1000 + n) for n in range(200)))
    assert sum(m.agreeing for m in similarity(a, b).values()) <= 2


def test_one_direction_does_not_count_for_many():
    """phi(k, k) is over its null for many k after one shared direction; the count says one."""
    u, v = planted(384, 64, 64, 1, seed=0)
    got = compare(u, v)
    beyond = np.diag(got.pvalue) < 0.01
    assert beyond.sum() > 3
    assert got.agreeing == 1


def test_agreeing_stops_at_the_first_failure():
    got = compare(*planted(384, 8, 8, 5, seed=1))
    from dataclasses import replace

    broken = got.overlap_a.copy()
    broken[2] = 0.0
    assert fill_agreeing([replace(got, overlap_a=broken)])[0].agreeing == 2


def energies(got, *values):
    """The result with a's directions lying within b by these energies, b's wholly within a."""
    from dataclasses import replace

    overlap = np.array([*values, *got.overlap_a[len(values) :]])
    return replace(got, overlap_a=overlap, overlap_b=np.ones_like(got.overlap_b))


def test_a_direction_passes_at_level_over_r():
    """Bonferroni within a module: p between level/r and level is no agreement."""
    got = compare(*planted(100, 5, 5, 0, seed=1))
    at = {p: betaincinv(2.5, 47.5, 1 - p) for p in (0.0019, 0.0021)}
    assert fill_agreeing([energies(got, at[0.0019], 0.0)])[0].agreeing == 1
    assert fill_agreeing([energies(got, at[0.0021], 0.0)])[0].agreeing == 0


def test_a_direction_passes_at_level_times_the_selected_modules():
    """Benjamini-Hochberg over modules: of ten, one selected is tested at a tenth of the level."""
    got = compare(*planted(100, 5, 5, 0, seed=1))
    clear, near = 1.0, betaincinv(2.5, 47.5, 1 - 0.0005)  # 0.0005 is 0.01/5 over 4, not over 10
    rest = [energies(got, 0.0)] * 9
    counted = fill_agreeing([energies(got, clear, near, 0.0), *rest])
    assert counted[0].agreeing == 1
    assert fill_agreeing([energies(got, clear, near, 0.0), *rest[:3]])[0].agreeing == 2


@pytest.mark.parametrize(("gap", "masked"), [(1e-7, False), (1e-11, True)])
def test_a_cell_is_masked_when_its_error_passes_the_bound(gap, masked):
    """Error about eps / gap: 4e-9 and 4e-5, on either side of 1e-6."""
    rng = np.random.default_rng(0)
    A = (oracle.haar(rng, 3, 3) * [1.0, 1.0 - gap, 0.5]) @ oracle.haar(rng, 20, 3).T
    u = LowRankUpdate("q", torch.tensor(A), torch.ones(20, 3).double(), 1.0)
    got = compare(u, factors(20, 20, 2, seed=1))
    assert bool(got.masked[0, 0]) is masked
    assert np.isnan(got.phi[0, 0]) == masked
    assert not got.masked[1:].any()


def test_tied_directions_are_not_counted():
    """Four equal singular values around one shared direction: which leads is anyone's guess."""
    rng = np.random.default_rng(0)
    V = oracle.haar(rng, 60, 7)
    tied = LowRankUpdate("q", torch.tensor(V[:, :4].T.copy()), torch.ones(5, 4).double(), 1.0)
    own = torch.tensor((V[:, [0, 4, 5, 6]] * [4.0, 3.0, 2.0, 1.0]).T.copy())
    other = LowRankUpdate("q", own, torch.ones(5, 4).double(), 1.0)
    got = compare(tied, other)
    assert got.agreeing is None
    assert np.isnan(got.overlap_a).all()
    # A tie further down leaves what leads: own[0] shared and alone, then two equal ones.
    S = torch.tensor([4.0, 2.0, 2.0, 1.0]).double()
    later = LowRankUpdate("q", own / own.norm(dim=1, keepdim=True) * S[:, None], other.B, 1.0)
    got = compare(later, later)
    assert got.agreeing == 1
    assert np.isnan(got.overlap_a).tolist() == [False, True, True, False]


def test_all_of_space_is_surely_known():
    """i = d cuts nothing, however small the last singular value."""
    u, v = factors(9, 4, 4, cond=11, seed=1), factors(9, 4, 4, cond=1, seed=2)
    got = compare(u, v)
    assert got.phi[3, 3] == pytest.approx(1.0, abs=1e-9)
    assert 0 < got.error[3, 3] < 1e-12


def test_a_scale_of_zero_is_no_update():
    u = gaussian(7, 9, 3)
    nothing = LowRankUpdate("q", u.A, u.B, 0.0)
    got = compare(nothing, u)
    assert got.agreeing is None
    assert np.isnan(got.phi).all()


def test_an_unknown_module_is_our_error():
    got = similarity(adapter(gaussian(7, 9, 2)), adapter(gaussian(7, 9, 2)))
    assert "q" in got
    assert "typo" not in got
    with pytest.raises(UnknownModuleError, match="'typo' was not compared; q"):
        got["typo"]


@pytest.mark.parametrize("side", ["A", "in"])
def test_angles_and_distances(side):
    u, v = factors(30, 20, 3, seed=1), factors(30, 20, 5, seed=2)
    got = compare(u, v, side, angles=True)
    U, V = (oracle.directions(*dense(x), side)[0] for x in (u, v))
    theta = np.sort(subspace_angles(U, V))
    assert_allclose(got.angles, theta, rtol=1e-9)
    assert_allclose(got.distances.projection**2, 3 * (1 - got.phi[2, 4]), rtol=1e-9)
    assert_allclose(got.distances.geodesic, np.linalg.norm(theta), rtol=1e-9)
    assert_allclose(got.distances.procrustes, 2 * np.linalg.norm(np.sin(theta / 2)), rtol=1e-9)
    assert 0 < got.angle_edge < np.pi / 2


def with_initial(u, A0, name="u"):
    from dataclasses import replace

    return replace(adapter(u, name=name), initial={"q": A0})


def test_delta_a_is_what_training_added():
    u, v = gaussian(12, 20, 3, seed=1, dtype=torch.float64), factors(12, 20, 4, seed=2)
    A0, C0 = torch.randn(3, 20).double(), torch.randn(4, 20).double()
    moved_u = LowRankUpdate("q", u.A + A0, u.B, 1.0)
    moved_v = LowRankUpdate("q", v.A + C0, v.B, 1.0)
    got = similarity(with_initial(moved_u, A0), with_initial(moved_v, C0), side="delta-A")["q"]
    assert_allclose(got.phi, compare(u, v, "A").phi, atol=1e-9)


def test_delta_a_counts_rank_against_the_rounding_of_both():
    """A float32 A that hardly moved: A - A0 is rounding, not directions."""
    A0 = torch.randn(4, 50, generator=torch.Generator().manual_seed(0))
    nudged = A0 * (1 + 2**-23)
    u = LowRankUpdate("q", nudged, torch.ones(6, 4), 1.0)
    got = similarity(with_initial(u, A0), with_initial(gaussian(6, 50, 2), A0[:2]), side="delta-A")
    assert got["q"].numerical_rank_a < 4


def test_initial_similarity_stands_beside():
    """The same seed and rank start from the same A: the trap is shown, not hidden."""
    A0 = torch.randn(3, 20)
    u, v = gaussian(12, 20, 3, seed=1), gaussian(12, 20, 3, seed=2)
    got = similarity(with_initial(u, A0), with_initial(v, A0))
    assert_allclose(np.diag(got.initial["q"].phi), 1.0, atol=1e-9)
    assert similarity(adapter(u), adapter(v)).initial is None


def test_delta_a_without_the_initial_a_says_what_to_do():
    with pytest.raises(ArgumentError, match=r"'adapter' does not hold it.*choose another side"):
        similarity(adapter(gaussian(5, 6, 2)), adapter(gaussian(5, 6, 2)), side="delta-A")


def test_control_is_drawn_beside():
    a, b, c = (adapter(gaussian(12, 20, 3, seed=n), name=f"n{n}") for n in range(3))
    got = similarity(a, b, control=c)
    assert got.control.adapters == ("n0", "n2")
    assert_allclose(got.control["q"].phi, similarity(a, c)["q"].phi)


def test_modules_that_only_one_has_are_listed():
    u = gaussian(5, 6, 2)
    a = Adapter.from_updates({"x.q": u, "x.v": u}, name="a")
    b = Adapter.from_updates({"x.q": u, "x.k": u}, name="b")
    got = similarity(a, b)
    assert list(got) == ["x.q"]
    assert got.unmatched == (("x.v",), ("x.k",))
    with pytest.raises(UnknownModuleError, match=r"no module in common: 'a' has x.v; 'b' has x.k"):
        similarity(
            Adapter.from_updates({"x.v": u}, name="a"), Adapter.from_updates({"x.k": u}, name="b")
        )
    with pytest.raises(UnknownModuleError, match=r"no module of adapter 'a' matches '\*.o'"):
        similarity(a, b, modules="*.o")


def test_a_module_whose_dimensions_differ_is_refused():
    with pytest.raises(ShapeError, match=r"cannot compare side A of 'q': it is 5 x 6 .* 5 x 7"):
        compare(gaussian(5, 6, 2), gaussian(5, 7, 2))


def test_nan_is_refused_by_name():
    u = gaussian(5, 6, 2)
    u.A[0, 3] = float("nan")
    with pytest.raises(NonFiniteError, match=r"1 of 12 entries of A in module 'q'.*\[0, 3\]"):
        compare(u, gaussian(5, 6, 2))


@pytest.mark.parametrize("level", [0.0, 1.0, -1, 2])
def test_level_is_a_probability(level):
    with pytest.raises(ArgumentError, match="a probability between 0 and 1"):
        compare(gaussian(5, 6, 2), gaussian(5, 6, 2), level=level)
    with pytest.raises(ArgumentError, match="side is 'C'; it is one of A, B, in, out, delta-A"):
        compare(gaussian(5, 6, 2), gaussian(5, 6, 2), side="C")


def test_json_is_strict_and_frame_is_tidy():
    u = LowRankUpdate("q", torch.randn(2, 9), torch.zeros(7, 2), 2.0)
    got = similarity(adapter(u), adapter(gaussian(7, 9, 3)), angles=True)
    plain = got.to_dict()
    text = json.dumps(plain, allow_nan=False)
    assert json.loads(text)["modules"][0]["phi"] == [[None] * 3] * 2
    assert {"schema_version", "kind", "side", "adapters", "modules"} <= plain.keys()
    frame = similarity(adapter(gaussian(7, 9, 2)), adapter(gaussian(7, 9, 3))).to_frame()
    assert list(frame.columns[:4]) == ["module", "i", "j", "phi"]
    assert len(frame) == 6
    assert (frame["i"].min(), frame["j"].max()) == (1, 3)


def test_rank_above_the_dimension_compares_everything_with_everything():
    got = compare(gaussian(5, 4, 7, seed=1), gaussian(5, 4, 2, seed=2))
    assert got.numerical_rank_a == 4
    assert_allclose(got.phi[3], 1.0, atol=1e-9)
    assert_allclose(got.pvalue[3], 1.0)
    assert np.isnan(got.phi[4:]).all()
