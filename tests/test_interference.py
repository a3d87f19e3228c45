"""Interference: dense answers, closed forms, what chance gives by simulation, the sentences."""

import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.integrate import quad
from scipy.special import k0
from scipy.stats import binom, kstest

from subspace import interference, similarity
from subspace.adapters import Adapter, LowRankUpdate
from subspace.chance.cosine import cosine_pvalue, cosine_std, cosine_variances
from subspace.errors import ArgumentError, NonFiniteError, ShapeError, UnknownModuleError
from subspace.findings import describe_interference
from subspace.results import Interference, SharedInitial
from tests.support import oracle
from tests.support.memory import adapter, dense, gaussian

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
SPECTRA = {
    "rank one": ([1.0], [1.0]),
    "four equal": ([1.0] * 4, [1.0] * 4),
    "spiked": ([5.0, *[1.0] * 7], [9.0, *[1.0] * 5]),
    "geometric": (0.7 ** np.arange(8), 0.5 ** np.arange(4)),
}


def of(modules, name):
    """An adapter of named updates."""
    return Adapter.from_updates(
        {m: LowRankUpdate(m, u.A, u.B, u.scale, source=u.source) for m, u in modules.items()},
        name=name,
    )


def delta(update):
    A, B, scale = dense(update)
    return scale * (B @ A)


def mixed(dtype=torch.float64):
    """Three adapters of several ranks and scales; p lacks k, and only r has o."""

    def made(d_out, d_in, r, seed, scale=0.5):
        return gaussian(d_out, d_in, r, seed=seed, scale=scale, dtype=dtype)

    return [
        of({"q": made(20, 30, 3, 1, 2.0), "v": made(30, 20, 2, 2)}, "p"),
        of({"q": made(20, 30, 5, 1, -0.5), "v": made(30, 20, 4, 4), "k": made(9, 9, 2, 5)}, "q"),
        of({"q": made(20, 30, 3, 6), "k": made(9, 9, 3, 7, 3.0), "o": made(8, 7, 1, 8)}, "r"),
    ]


# Dense answers and closed forms


@pytest.mark.parametrize("weights", [None, [0.5, -2.0, 1.0]])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_number_is_that_of_the_dense_matrices(dtype, weights, device):
    """Stored values are exact, so 16 bits change nothing: 1e-12 is float64's rounding."""
    adapters, by = mixed(dtype), weights or [1.0] * 3
    result = interference(adapters, weights=weights, device=device)
    assert list(result) == ["q", "v", "k"]
    for name, m in result.items():
        held = [n for n, x in enumerate(adapters) if name in x]
        deltas = [delta(adapters[n][name]) for n in held]
        norms, cosines, energy, kept = oracle.merge(deltas, [by[n] for n in held])
        assert_allclose(m.norms, norms, rtol=1e-13)
        assert_allclose(m.energy, energy, atol=1e-12)
        assert_allclose(m.kept, kept, atol=1e-11)
        pairs = list(itertools.combinations(range(len(held)), 2))
        assert [p.adapters for p in m.pairs] == [
            tuple(adapters[held[k]].name for k in pair) for pair in pairs
        ]
        for pair, p in zip(pairs, m.pairs, strict=True):
            assert abs(p.cosine - cosines[pair]) <= p.error + 1e-15 < 1e-11
            assert p.null_std == cosine_std(*m.shape)


def test_the_whole_model_is_one_long_vector():
    """Modules that an adapter lacks are zero in its vector; those of one alone count too."""
    adapters, by = mixed(), [1.0, -0.3, 2.0]
    names = list(dict.fromkeys(itertools.chain(*adapters)))
    shape = {name: next(x for x in adapters if name in x)[name].shape for name in names}
    long = [
        np.concatenate([
            delta(x[n]).ravel() if n in x else np.zeros(math.prod(shape[n])) for n in names
        ])
        for x in adapters
    ]  # fmt: skip
    result = interference(adapters, weights=by)
    norms, cosines, energy, kept = oracle.merge(long, by)
    assert_allclose(result.norms, norms, rtol=1e-13)
    assert_allclose([p.cosine for p in result.pairs], cosines[np.triu_indices(3, 1)], atol=1e-12)
    assert_allclose(result.energy, energy, atol=1e-12)
    assert_allclose(result.kept, kept, atol=1e-12)
    assert_allclose(np.sum(result.shares), 1.0)
    assert result.alone == ((), (), ("o",))
    assert "only r has o: counted in the whole model's sums" in result.notes[0]
    assert [p.modules for p in result.pairs] == [2, 1, 2]


@pytest.mark.parametrize("side", ["in", "out"])
def test_spaces_are_compared_as_similarity_compares_them(side):
    a, b, _ = mixed()
    near = similarity(a, b, side=side)
    for name, m in interference([a, b]).items():
        if name in near:
            space = m.pairs[0].rows if side == "in" else m.pairs[0].columns
            cell = near[name]
            assert space.phi == cell.phi[-1, -1]
            assert (space.error, space.p) == (cell.error[-1, -1], cell.pvalue[-1, -1])
            assert space.null_mean == max(cell.rank_a, cell.rank_b) / cell.d
            U, V = (oracle.directions(*dense(x[name]), side)[0] for x in (a, b))
            assert_allclose(space.phi, oracle.phi(U, V)[-1, -1], atol=1e-12)


def test_the_same_adapter_twice_says_everything_twice():
    one = adapter(gaussian(20, 30, 3), gaussian(7, 9, 2, seed=1), name="x")
    result = interference([one, one])
    assert result.adapters == ("x", "x (2)")
    for m in [*result.values(), result]:
        assert_allclose(m.energy, 2.0, rtol=1e-14)
        assert_allclose(m.kept, 2.0, rtol=1e-14)
        assert_allclose([p.cosine for p in m.pairs], 1.0, rtol=1e-14)
        assert all(p.p < 1e-3 for p in m.pairs)
    assert_allclose([p.rows.phi for m in result.values() for p in m.pairs], 1.0, atol=1e-9)
    halves = interference([one, one], weights=[0.5, 0.5])
    assert_allclose((halves.energy, *halves.kept), (2.0, 1.0, 1.0), rtol=1e-14)
    assert_allclose(interference([one] * 4).energy, 4.0, rtol=1e-14)


def test_a_negated_adapter_takes_everything_away():
    one = gaussian(20, 30, 3)
    other = replace(one, B=-one.B)
    for result in (
        interference([adapter(one), adapter(other)]),
        interference([adapter(one), adapter(one)], weights=[1, -1]),
        interference([adapter(one), adapter(replace(one, scale=-one.scale))]),
    ):
        m = result["q"]
        assert_allclose((m.pairs[0].cosine, result.pairs[0].cosine), -1.0, rtol=1e-14)
        assert_allclose((m.energy, result.energy, *m.kept), 0.0, atol=1e-14)


@pytest.mark.parametrize("side", ["rows", "columns"])
def test_orthogonal_spaces_do_not_meet(side):
    one, two = gaussian(20, 30, 3, seed=1), gaussian(20, 30, 4, seed=2)
    if side == "rows":
        one.A[:, 15:], two.A[:, :15] = 0, 0
    else:
        one.B[10:], two.B[:10] = 0, 0
    m = interference([adapter(one), adapter(two)], weights=[0.5, 3.0])["q"]
    assert m.pairs[0].cosine == 0.0
    assert m.pairs[0].p == 1.0
    assert getattr(m.pairs[0], side).phi < 1e-20
    assert_allclose((m.energy, *m.kept), (1.0, 0.5, 3.0), rtol=1e-14)


def test_delta_w_is_never_formed():
    """A dense update of this size would be 80 GB."""
    one, two = gaussian(100_000, 100_000, 1, seed=1), gaussian(100_000, 100_000, 1, seed=2)
    m = interference([adapter(one), adapter(two)])["q"]
    inner = float(one.A[0].double() @ two.A[0].double()) * float(
        one.B[:, 0].double() @ two.B[:, 0].double()
    )
    assert_allclose(m.pairs[0].cosine, inner * 0.25 / math.prod(m.norms), rtol=1e-9)


# Gauge and rounding


def gauge(update, cond, seed):
    """The same update as (M A, B M^-1), M of this condition number."""
    rng = np.random.default_rng(seed)
    r = update.rank
    M = (oracle.haar(rng, r, r) * np.logspace(0, -math.log10(cond), r)) @ oracle.haar(rng, r, r)
    A, B = torch.tensor(M) @ update.A, update.B @ torch.tensor(np.linalg.inv(M))
    return replace(update, A=A, B=B)


def exact(a, b):
    """The cosine of the stored values, in 64 bits of mantissa."""
    D, E = (u.B.numpy().astype(np.longdouble) @ u.A.numpy().astype(np.longdouble) for u in (a, b))
    return float((D * E).sum() / np.sqrt((D * D).sum() * (E * E).sum()))


@pytest.mark.parametrize("cond", [1.0, 1e2, 1e4, 1e6])
def test_the_gauge_changes_nothing_and_the_bound_holds(cond):
    a, b = (gaussian(40, 30, 6, seed=n, dtype=torch.float64) for n in (1, 2))
    near = interference([adapter(a), adapter(b)])["q"].pairs[0]
    for seed in range(5):
        far = [gauge(a, cond, seed), gauge(b, cond, 10 + seed)]
        p = interference([adapter(u) for u in far])["q"].pairs[0]
        assert abs(p.cosine - exact(*far)) <= p.error <= 1e-6
        # The product M^-1 M of the gauge itself is rounded at cond * eps.
        assert_allclose(p.cosine, near.cosine, atol=p.error + 1e-13 * cond)
        assert_allclose(p.rows.phi, near.rows.phi, atol=1e-6)


def test_terms_that_cancel_are_in_the_bound():
    """Two terms that cancel to a hundredth: errors near 1e-13, where 2e-14 would do without."""
    found = []
    for seed in range(20):
        single = [gaussian(40, 30, 1, seed=n + 100 * seed, dtype=torch.float64) for n in (1, 2)]
        pair = [
            replace(u, A=torch.cat([u.A, u.A]), B=torch.cat([u.B, -0.99 * u.B], 1)) for u in single
        ]
        p = interference([adapter(u) for u in pair])["q"].pairs[0]
        found.append(abs(p.cosine - exact(*pair)))
        assert found[-1] <= p.error <= 1e-8
    assert max(found) > 2e-14


def test_what_rounding_leaves_open_is_undefined():
    """Terms of B A of size 1e12 that cancel to 1."""
    a, b = (gaussian(40, 30, 6, seed=n, dtype=torch.float64) for n in (1, 2))
    result = interference([adapter(gauge(a, 1e12, 0)), adapter(gauge(b, 1e12, 1))])
    m = result["q"]
    assert math.isnan(m.pairs[0].cosine)
    assert math.isnan(m.energy)
    assert m.pairs[0].error > 1e-6
    assert "rounding leaves the cosine open" in m.note
    assert m.pairs[0].finding is None
    assert "rounding leaves the energy open" in describe_interference(result)[0]
    assert describe_interference(result)[1].startswith("Undefined: no cosine in any of 1 module")


@pytest.mark.parametrize(("of_a", "of_b"), [(1e-150, 1e150), (1e-120, 1e-20), (1e140, 1e10)])
def test_tiny_and_huge_factors(of_a, of_b):
    a, b = (gaussian(20, 30, 3, seed=n, dtype=torch.float64) for n in (1, 2))
    wanted = interference([adapter(a), adapter(b)])["q"]
    m = interference(
        [adapter(replace(u, A=u.A * of_a, B=u.B * of_b)) for u in (a, b)]
    )["q"]  # fmt: skip
    assert_allclose(m.pairs[0].cosine, wanted.pairs[0].cosine, atol=1e-14)
    assert_allclose(m.pairs[0].p, wanted.pairs[0].p, rtol=1e-9)
    assert_allclose(m.energy, wanted.energy, rtol=1e-13)
    assert_allclose(np.array(m.norms) / of_a / of_b, wanted.norms, rtol=1e-13)


shapes = st.tuples(st.integers(1, 9), st.integers(1, 9))


@settings(max_examples=30)
@given(
    shape=shapes,
    ranks=st.lists(st.integers(1, 11), min_size=2, max_size=4),
    weights=st.lists(st.floats(0.1, 10).map(lambda w: w * (-1) ** int(10 * w)), min_size=4,
                     max_size=4),
    seed=st.integers(0, 2**20),
    dtype=st.sampled_from(DTYPES),
)  # fmt: skip
def test_bounds_and_identities(shape, ranks, weights, seed, dtype):
    """|cos| <= 1, 0 <= energy <= n, |sum|^2 = sum_k w_k <sum, dW_k>, and the order is free."""
    n = len(ranks)
    updates = [gaussian(*shape, r, seed=seed + k, dtype=dtype) for k, r in enumerate(ranks)]
    adapters = [adapter(u, name=f"x{k}") for k, u in enumerate(updates)]
    m = interference(adapters, weights=weights[:n])["q"]
    _, cosines, energy, _ = oracle.merge([delta(u) for u in updates], weights[:n])
    for p, wanted in zip(m.pairs, cosines[np.triu_indices(n, 1)], strict=True):
        assert abs(p.cosine) <= 1
        assert abs(p.cosine - wanted) <= p.error + 1e-15
        assert 0 <= p.p <= 1
    assert 0 <= m.energy <= n * (1 + m.energy_error)
    assert_allclose(m.energy, energy, atol=1e-11)
    parts = np.array(weights[:n]) * np.square(m.norms)
    total = np.sum(np.array(weights[:n]) * parts)
    assert_allclose(parts @ m.kept, m.energy * total, atol=1e-9 * total)
    back = interference(adapters[::-1], weights=weights[:n][::-1])["q"]
    assert_allclose(back.energy, m.energy, atol=1e-12)
    assert_allclose(back.kept[::-1], m.kept, rtol=1e-9, atol=1e-9)
    if n == 2:
        assert_allclose(back.pairs[0].cosine, m.pairs[0].cosine, atol=1e-13)


# What chance gives


def draws(count, d_out, d_in, s, t, seed=0):
    """Cosines of updates with these spectra and Haar directions, from corners of Haar bases."""
    rng = np.random.default_rng(seed)

    def corner(d):
        Q, R = np.linalg.qr(rng.standard_normal((count, d, len(t))))
        Q *= np.sign(np.diagonal(R, axis1=1, axis2=2))[:, None, :]
        return Q[:, : len(s)]

    s, t = (np.asarray(x, dtype=float) / np.linalg.norm(x) for x in (s, t))
    return np.einsum("j,njk,njk,k->n", s, corner(d_out), corner(d_in), t)


@pytest.mark.parametrize("kind", SPECTRA)
def test_the_standard_deviation_is_exact_whatever_the_spectra(kind):
    """Mean 0 and 1/sqrt(d_out d_in): 12 x 20, within four standard errors of 10 000 draws."""
    found = draws(10_000, 12, 20, *SPECTRA[kind])
    spread = found.std() / cosine_std(12, 20)
    kurtosis = np.mean(found**4) / found.var() ** 2
    assert abs(spread - 1) <= 4 * math.sqrt((kurtosis - 1) / 40_000)
    assert abs(found.mean()) <= 4 * cosine_std(12, 20) / 100
    assert_allclose(cosine_variances(*SPECTRA[kind], 12, 20).sum(), 1 / 240)


@pytest.mark.parametrize("kind", SPECTRA)
def test_the_false_positive_rate_of_one_cosine(kind):
    """At 24 x 32: 400 000 draws gave 0.95 to 1.03 of 5 % and 0.83 to 0.87 of 1 %.

    Here 3000 draws, four standard errors or so around 0.9 to 1.05 and 0.8 to 1.
    """
    n = 3000
    variances = cosine_variances(*SPECTRA[kind], 24, 32)
    p = np.array([cosine_pvalue(x, variances) for x in draws(n, 24, 32, *SPECTRA[kind], seed=1)])
    for level, low, high in ((0.05, 0.9, 1.05), (0.01, 0.8, 1.0)):
        found = np.sum(p <= level)
        assert binom.ppf(1e-4, n, low * level) <= found <= binom.ppf(1 - 1e-4, n, high * level)


def test_the_tail_of_one_product_is_known_exactly():
    """Rank one: P(|z z'| > x) = 2/pi int_x^inf K_0. Never too small, at most 13 % too large."""
    for x in (0.01, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0):
        tail = 2 / math.pi * quad(k0, x, np.inf, epsabs=0, epsrel=1e-9, limit=200)[0]
        assert 1.0 <= cosine_pvalue(x, [1.0]) / tail <= 1.14
    # Two equal products: a Laplace distribution.
    for x in (0.1, 1.0, 5.0, 40.0):
        assert 1.0 <= cosine_pvalue(x, [1.0, 1.0]) / math.exp(-x) <= 1.06
    # Many small ones: normal.
    many = np.full(4000, 1 / 4000)
    assert_allclose(cosine_pvalue(3.0, many), math.erfc(3 / math.sqrt(2)), rtol=0.02)
    assert_allclose(cosine_pvalue(3.0, *many.reshape(8, 500)), cosine_pvalue(3.0, many), rtol=1e-9)
    assert cosine_pvalue(0.0, [1.0]) == 1.0
    assert math.isnan(cosine_pvalue(math.nan, [1.0]))
    assert cosine_pvalue(1e4, [1.0]) == 0.0


def test_random_adapters_are_within_chance_through_the_whole_function():
    """p is uniform over 300 modules; none is a finding; the whole model's p is one of them."""
    a, b = (
        adapter(*(gaussian(24, 32, 4, seed=1000 * s + n) for n in range(300)), name=f"s{s}")
        for s in (1, 2)
    )
    result = interference([a, b])
    p = [m.pairs[0].p for m in result.values()]
    assert kstest(p, "uniform").pvalue > 1e-3
    assert not any(m.pairs[0].finding for m in result.values())
    whole = result.pairs[0]
    assert (whole.modules, whole.same, whole.opposite) == (300, 0, 0)
    assert whole.p > 1e-3
    spread = np.mean([m.pairs[0].cosine ** 2 for m in result.values()]) ** 0.5
    assert_allclose(spread, cosine_std(24, 32), rtol=0.15)
    energies = [m.energy for m in result.values()]
    assert_allclose(np.std(energies), np.mean([m.energy_std for m in result.values()]), rtol=0.15)
    first, second, third = describe_interference(result)
    assert "'s1' and 's2' leave each other alone" in first
    assert "no more than independent random updates would meet" in first
    assert "In 0 of 300 modules the two significantly point the same way, in 0 against" in second
    assert "Not shown" in third


def test_the_whole_models_chance_is_that_of_its_sum():
    """The 120 pairs of 16 random models of four modules of several sizes, uncorrelated."""
    models = [
        of(
            {f"m{k}": gaussian(8 + 8 * k, 12, 2, seed=100 * n + k, scale=1 + k) for k in range(4)},
            f"s{n}",
        )
        for n in range(16)
    ]
    found = interference(models).pairs
    z = np.array([p.cosine / p.null_std for p in found])
    assert abs(np.mean(z**2) - 1) < 0.6  # four standard errors at a kurtosis of 3.7
    assert kstest([p.p for p in found], "uniform").pvalue > 1e-3


def test_a_shared_part_is_found_and_its_sign():
    """Cosines of +-0.5 in 8 of 40 modules: found, counted by sign, and no other."""
    a, b = {}, {}
    for n in range(40):
        one, other = gaussian(48, 48, 4, seed=n), gaussian(48, 48, 4, seed=1000 + n)
        if n < 8:
            sign = 1 if n < 5 else -1
            other = replace(other, A=torch.cat([one.A, other.A]),
                            B=torch.cat([sign * one.B, other.B], 1))  # fmt: skip
        a[f"layer.{n}.q"], b[f"layer.{n}.q"] = one, other
    result = interference([of(a, "a"), of(b, "b")])
    assert [m.pairs[0].finding for m in result.values()] == [n < 8 for n in range(40)]
    whole = result.pairs[0]
    assert (whole.modules, whole.same, whole.opposite) == (40, 5, 3)


# Undefined, refused, said


def test_a_zero_update_has_no_cosine_and_a_reason():
    one, zero = gaussian(20, 30, 3), gaussian(20, 30, 3, seed=1)
    zero.B.zero_()
    result = interference([adapter(one, name="a"), adapter(zero, name="b")])
    m = result["q"]
    assert math.isnan(m.pairs[0].cosine)
    assert math.isnan(m.pairs[0].rows.phi)
    assert math.isnan(m.pairs[0].p)
    assert m.pairs[0].finding is None
    assert (m.energy, m.kept[0]) == (1.0, 1.0)
    assert math.isnan(m.kept[1])
    assert m.note == (
        "untrained: the update of b is exactly zero, so it has neither cosine nor spaces"
    )
    assert math.isnan(result.pairs[0].cosine)
    json.dumps(result.to_dict(), allow_nan=False)
    assert "'a' holds 100 % of the energy" in describe_interference(result)[0]
    nothing = interference([adapter(zero), adapter(zero)])
    assert math.isnan(nothing.energy)
    assert math.isnan(nothing["q"].energy)
    assert "every update is exactly zero" in describe_interference(nothing)[0]


def test_one_zero_module_among_others_is_left_out_and_counted():
    a = adapter(gaussian(9, 8, 2, seed=1), gaussian(9, 8, 2, seed=2), name="a")
    b = adapter(gaussian(9, 8, 2, seed=3), replace(gaussian(9, 8, 2), scale=0.0), name="b")
    result = interference([a, b])
    assert result.pairs[0].modules == 1
    assert not math.isnan(result.pairs[0].cosine)
    assert "Left out as undefined: 1 of 2 modules." in describe_interference(result)[1]


def test_ranks_below_the_stored_one_are_counted_and_said():
    one, two = gaussian(20, 30, 3, dtype=torch.float64), gaussian(20, 30, 3, seed=1)
    two.A[2] = two.A[1]
    m = interference([adapter(one, name="a"), adapter(two, name="b")])["q"]
    assert m.ranks == (3, 2)
    assert "numerical rank 2 of 3 in b" in m.note
    U, V = (oracle.directions(*dense(u), "in")[0] for u in (one, two))
    assert_allclose(m.pairs[0].rows.phi, oracle.phi(U, V[:, :2])[-1, -1], atol=1e-9)
    assert m.pairs[0].rows.null_mean == 3 / 30


@pytest.mark.parametrize("which", ["A", "B"])
@pytest.mark.parametrize("module", ["q", "o"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_non_finite_is_refused_even_where_only_one_has_the_module(which, module, dtype):
    a, b, c = mixed(dtype)
    bad = c[module]
    getattr(bad, which)[0, 0] = math.inf
    with pytest.raises(NonFiniteError, match=rf"entries of {which} in module '{module}'"):
        interference([a, b, of({**c, module: bad}, "r")])


def test_what_makes_no_sense_is_refused_in_words():
    a, b, c = mixed()
    with pytest.raises(ArgumentError, match="1 adapter was given"):
        interference([a])
    with pytest.raises(ArgumentError, match="2 weights for 3 adapters"):
        interference([a, b, c], weights=[1, 2])
    with pytest.raises(ArgumentError, match=r"weight of 'q' is 0; leave that adapter out"):
        interference([a, b], weights=[1, 0])
    with pytest.raises(ArgumentError, match=r"weight of 'p' is nan; give a number"):
        interference([a, b], weights=[math.nan, 1])
    with pytest.raises(ArgumentError, match="level is 2"):
        interference([a, b], level=2)
    with pytest.raises(ArgumentError, match="abacus"):
        interference([a, b], device="abacus")
    with pytest.raises(UnknownModuleError, match="no two adapters have a module in common"):
        interference([a, of({"x": gaussian(4, 4, 1)}, "z")])
    with pytest.raises(UnknownModuleError, match="'typo'"):
        interference([a, b], modules="typo")
    with pytest.raises(ShapeError, match=r"cannot compare 'q': it is 20 x 30 in 'p' and 20 x 31"):
        interference([a, of({"q": gaussian(20, 31, 2)}, "z")])
    with pytest.raises(UnknownModuleError, match="not shared by two adapters"):
        _ = interference([a, b])["o"]


def test_a_pair_that_shares_no_module_meets_nowhere():
    """a and c share q with b, not with each other."""
    a = of({"q": gaussian(9, 8, 2, seed=1)}, "a")
    b = of({"q": gaussian(9, 8, 2, seed=2), "v": gaussian(9, 8, 2, seed=3)}, "b")
    c = of({"v": gaussian(9, 8, 2, seed=4)}, "c")
    result = interference([a, b, c])
    meets = {p.adapters: p for p in result.pairs}
    assert meets["a", "c"].modules == 0
    assert meets["a", "c"].cosine == 0.0
    assert math.isnan(meets["a", "c"].p)
    assert result["q"].pair(("a", "c")) is None
    json.dumps(result.to_dict(), allow_nan=False)


def test_the_same_initial_A_is_warned_of():
    one, two = gaussian(20, 30, 3, seed=1), gaussian(20, 30, 3, seed=2)
    pair = [adapter(one, name="a"), adapter(two, name="b")]
    began = [replace(x, initial={"q": one.A.clone()}) for x in pair]
    assert interference(pair).same_initial is None
    result = interference(began)
    assert result.same_initial == (SharedInitial(("a", "b"), 1),)
    assert "a and b have the same initial A in 1 of 1 modules" in result.notes[0]
    assert "caution: 1 of 1 pair had the same initial A" in describe_interference(result)[2]
    assert result.to_dict()["same_initial"] == [{"adapters": ["a", "b"], "modules": 1}]


def test_plain_python_and_frames():
    result = interference(mixed(), modules="[qv]")
    plain = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert (plain["schema_version"], plain["kind"]) == ("2", "interference")
    assert [m["module"] for m in plain["modules"]] == ["q", "v"]
    assert plain["modules"][0]["pairs"][0]["rows"]["phi"] == result["q"].pairs[0].rows.phi
    frame = result.to_frame()
    assert len(frame) == 4
    assert frame["cosine"].tolist() == [p.cosine for m in result.values() for p in m.pairs]
    assert frame["kept_b"].tolist()[2] == result["q"].kept[2]
    assert repr(result) == "Interference('p', 'q', 'r', 2 modules)"


def test_progress_counts_every_module():
    seen = []
    interference(mixed(), progress=seen.append)
    assert sum(seen) == 4


# Sentences


def merged(cosine, *, norms=(1.0, 1.0), names=("a", "b")):
    """Two rank-one updates of this cosine in 20 modules."""
    x = of({f"l.{n}.q": LowRankUpdate("q", torch.eye(1, 20), torch.eye(20, 1), norms[0])
            for n in range(20)}, names[0])  # fmt: skip
    A = torch.zeros(1, 20, dtype=torch.float64)
    A[0, 0], A[0, 1] = cosine, math.sqrt(1 - cosine**2)
    y = of({f"l.{n}.q": LowRankUpdate("q", A, torch.eye(20, 1), norms[1]) for n in range(20)},
           names[1])  # fmt: skip
    return interference([x, y])


@pytest.mark.parametrize(
    ("cosine", "words"),
    [
        (0.9, "'a' and 'b' add up: the energy of the sum is 1.90 times"),
        (-0.9, "'a' and 'b' partly cancel: the energy of the sum is 0.10 times"),
        (0.0, "'a' and 'b' leave each other alone: the energy of the sum is 1.00 times"),
    ],
)
def test_the_first_sentence_names_what_a_merge_does(cosine, words):
    first, second, _ = describe_interference(merged(cosine))
    assert first.startswith(f"Merged, {words}")
    assert ("significant" in first) == (cosine != 0)
    assert f"In {20 * (cosine > 0)} of 20 modules" in second
    assert f"in {20 * (cosine < 0)} against each other" in second
    assert first.endswith(".")
    assert "\n" not in first


def test_a_loud_adapter_is_named():
    first = describe_interference(merged(0.9, norms=(1.0, 10.0), names=("soft", "loud")))[0]
    assert "'loud' holds 99 % of the energy, so that the merge is nearly it" in first
    assert "10.00 × 'soft' (weight 1)" in first


def test_of_many_adapters_the_extremes_are_named():
    one, two = gaussian(20, 30, 3, seed=1), gaussian(20, 30, 3, seed=2)
    adapters = [adapter(one, name="a"), adapter(one, name="b"),
                adapter(replace(two, scale=0.01), name="c")]  # fmt: skip
    first, second, _ = describe_interference(interference(adapters, weights=[1, -1, 1]))
    assert "'a', 'b' and 'c' partly cancel" in first
    assert second.startswith("Of 3 pairs 'a' and 'b' (-1.00, by chance 0 ± 0.041) have the lowest")
    assert "of 3 comparisons of a module 0 significantly point the same way and 1 against" in second


def test_beyond_chance_yet_too_little():
    one, two = gaussian(300, 300, 4, seed=1), gaussian(300, 300, 4, seed=2)
    two = replace(two, B=two.B + 0.04 * one.B, A=two.A + 0.4 * one.A)
    result = interference([adapter(one, name="a"), adapter(two, name="b")])
    assert 0.01 < result.pairs[0].cosine < 0.05
    assert result.pairs[0].p < 1e-3
    first = describe_interference(result)[0]
    assert "leave each other alone" in first
    assert "significant, yet too little to matter" in first


def test_no_module_is_said():
    nan = math.nan
    empty = Interference(
        adapters=("a", "b"),
        weights=(1.0, 1.0),
        level=0.01,
        modules={},
        pairs=(),
        norms=(0.0, 0.0),
        energy=nan,
        energy_error=nan,
        energy_std=nan,
        kept=(),
    )
    assert describe_interference(empty)[1].startswith("Undefined: no cosine in any of 0 modules")


def test_what_balances_over_the_model_is_not_left_alone():
    """+dW in one module and -dW in the other: a cosine of 0 in the whole, and of 1 in each."""
    u, v = gaussian(20, 30, 3, seed=1), gaussian(20, 30, 3, seed=2)
    flipped = replace(v, B=-v.B * float(u.delta().norm() / v.delta().norm()))
    like = replace(v, B=v.B * float(u.delta().norm() / v.delta().norm()))
    a = Adapter.from_updates({"h.0.q": replace(u, name="h.0.q"), "h.1.q": like}, name="a")
    b = Adapter.from_updates({"h.0.q": replace(u, name="h.0.q"), "h.1.q": flipped}, name="b")
    result = interference([a, b])
    first = describe_interference(result)[0]
    assert abs(result.pairs[0].cosine) < 1e-6
    assert "'a' and 'b' add up in 1 and cancel in 1 of 2 modules, which balances" in first
    assert "leave each other alone" not in first


def test_an_update_a_millionth_of_the_other_is_drowned():
    u, v = gaussian(20, 30, 3, seed=1), gaussian(20, 30, 3, seed=2)
    a = Adapter.from_updates({"q": u}, name="a")
    b = Adapter.from_updates({"q": replace(v, B=v.B * 1e-6)}, name="b")
    first = describe_interference(interference([a, b]))[0]
    assert "'b' is drowned: it holds" in first
    assert "× 'b'" not in first
    assert "× 'a'" in first
