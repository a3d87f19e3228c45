"""The nulls against simulation with the oracle's Haar draws, and against their closed forms."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import betaincc

from subspace import chance
from tests.support import oracle

DRAWS = 20_000


def simulate(i, j, d, draws=DRAWS, seed=0):
    """phi(i, j) of independent subspaces; by invariance one of them may be the first axes."""
    rng = np.random.default_rng(seed)
    out = np.empty(draws)
    for start in range(0, draws, 2000):
        n = min(2000, draws - start)
        Q = np.linalg.qr(rng.standard_normal((n, d, j)))[0]
        out[start : start + n] = np.square(Q[:, :i, :]).sum(axis=(1, 2)) / min(i, j)
    return out


@pytest.mark.parametrize(
    ("i", "j", "d"), [(1, 1, 12), (1, 8, 24), (4, 4, 24), (3, 8, 40), (7, 8, 12), (5, 11, 12)]
)
def test_mean_variance_and_quantiles_match_simulation(i, j, d):
    phi = simulate(i, j, d)
    mean, std = float(chance.phi_mean(i, j, d)), float(chance.phi_std(i, j, d))
    error = std / np.sqrt(DRAWS)
    assert abs(phi.mean() - mean) < 4.5 * error
    # 4.5 standard errors of a variance whose distribution may be heavy-tailed.
    spread = np.sqrt(np.var((phi - phi.mean()) ** 2) / DRAWS)
    assert abs(phi.var() - std**2) < 4.5 * spread
    exact = min(i, j) == 1 or min(d - i, d - j) == 1
    for tail, slack in [(0.99, 0.15), (0.01, 0.15), (0.001, 0.45)]:
        # The probability of exceeding our quantile: binomial noise, and 8 % where not exact.
        beyond = np.mean(phi >= float(chance.phi_quantile(tail, i, j, d)))
        noise = 4.5 * np.sqrt(tail * (1 - tail) / DRAWS)
        assert abs(beyond - tail) < noise + (0 if exact else slack * min(tail, 1 - tail))


@pytest.mark.parametrize(("i", "j", "d"), [(1, 5, 30), (6, 6, 30), (20, 25, 30)])
def test_p_is_uniform_under_the_null(i, j, d):
    p = chance.phi_pvalue(simulate(i, j, d, seed=1), i, j, d)
    grid = np.linspace(0.01, 0.99, 50)
    empirical = np.array([(p <= g).mean() for g in grid])
    # Kolmogorov-Smirnov at 1e-4, and 0.01 for the Beta that is not exact.
    assert np.abs(empirical - grid).max() < 2.23 / np.sqrt(DRAWS) + 0.01


def test_two_planes_in_four_dimensions_have_a_closed_form():
    """phi = (1 + XY)/2 with X, Y uniform on (-1, 1): planes of R^4 are pairs of points of S^2.

    Hence P(phi >= (1 + t)/2) = (1 - t + t log t)/2 for t > 0. The Beta of the same mean and
    variance alone is 18 times too small where that is 1e-4.
    """
    t = np.concatenate([np.linspace(0.01, 0.9, 30), 1 - np.geomspace(0.1, 1e-4, 20)])
    exact = (1 - t + t * np.log(t)) / 2
    ours = chance.phi_pvalue((1 + t) / 2, 2, 2, 4)
    assert (exact / ours).max() < 1.5
    assert (exact / ours).min() > 0.75
    assert_allclose(ours[-5:], exact[-5:], rtol=0.02)  # the constant at the end is right
    assert exact[-1] < 1e-8


@pytest.mark.parametrize(("i", "j", "d"), [(2, 3, 5), (3, 3, 6), (2, 2, 8), (3, 4, 8), (4, 4, 8)])
def test_small_dimensions_are_not_far_too_significant(i, j, d):
    phi = simulate(i, j, d, draws=100_000, seed=4)
    for level in (0.05, 0.01, 0.001):
        rate = np.mean(chance.phi_pvalue(phi, i, j, d) <= level)
        noise = 4.5 * np.sqrt(level / len(phi))
        assert rate <= 2.4 * level + noise, level


@pytest.mark.parametrize(("i", "j", "d"), [(2, 2, 4), (3, 4, 8), (2, 5, 40), (8, 64, 384)])
def test_the_quantile_is_the_inverse(i, j, d):
    levels = np.geomspace(0.5, 1e-8, 20)
    phi = chance.phi_quantile(levels, i, j, d)
    assert_allclose(chance.phi_pvalue(phi, i, j, d), levels, rtol=1e-6)
    assert (np.diff(phi) > 0).all()


def test_one_dimension_is_exactly_beta():
    phi = np.linspace(0, 1, 11)
    assert_allclose(chance.phi_pvalue(phi, 1, 7, 20), betaincc(3.5, 6.5, phi), rtol=1e-12)
    assert_allclose(chance.overlap_pvalue(phi, 7, 20), betaincc(3.5, 6.5, phi), rtol=1e-12)


def test_a_subspace_that_is_everything_gives_no_evidence():
    assert chance.phi_pvalue(1.0, 3, 8, 8) == 1.0
    assert chance.phi_std(3, 8, 8) == 0.0
    assert chance.overlap_pvalue(1.0, 8, 8) == 1.0
    assert chance.phi_pvalue(1.0, 1, 1, 1) == 1.0


def test_quantile_inverts_pvalue():
    i, j = np.ogrid[1:9, 1:13]
    q = chance.phi_quantile(0.01, i, j, 16)
    assert_allclose(chance.phi_pvalue(q, i, j, 16), 0.01, rtol=1e-6)


def test_nan_stays_nan():
    assert np.isnan(chance.phi_pvalue(np.nan, 2, 2, 9))
    assert np.isnan(chance.overlap_pvalue(np.nan, 2, 9))
    assert np.isnan(chance.overlap_pvalue(np.nan, 9, 9))


def test_the_edge_is_where_the_largest_cosine_falls():
    d, r = 384, 64
    rng = np.random.default_rng(0)
    top = [np.linalg.svd(oracle.haar(rng, d, r)[:r], compute_uv=False)[0] ** 2 for _ in range(20)]
    assert abs(np.mean(top) - np.cos(chance.smallest_angle(r, r, d)) ** 2) < 0.02
    assert chance.smallest_angle(200, 200, 384) == 0.0


@pytest.mark.parametrize("listed", [40, 10])
def test_drawn_projections_have_the_law_of_haar_bases(listed):
    """Against QR of Gaussian matrices, at every rank of one set of draws, the tails too."""
    S, m, n, r = np.r_[10.0, 5.0, np.linspace(1.5, 0.5, 38)], 60, 40, 5
    rng = np.random.default_rng(1)
    exact = np.empty((6000, r))
    for row in exact:
        P = (oracle.haar(rng, m, r)[: len(S)].T * S) @ oracle.haar(rng, n, r)
        row[:] = np.sqrt(np.diag(np.square(P).cumsum(axis=0).cumsum(axis=1)))
    drawn = chance.projection_draws(S[:listed], (S**2).sum(), r, m, n, draws=20_000, seed=0)
    q = np.array([0.025, 0.25, 0.5, 0.75, 0.975])
    below = (exact[None] <= np.quantile(drawn, q, axis=0)[:, None]).mean(axis=1)  # (q, rank)
    # Five standard errors; and 1 % where the values that are not listed are but a Gaussian block.
    allowed = 5 * np.sqrt(q * (1 - q) * (1 / 6000 + 1 / 20_000)) + (0 if listed == 40 else 0.01)
    assert (np.abs(below - q[:, None]) < allowed[:, None]).all()
    mean, _ = chance.projection_moments((S**2).sum(), (S**4).sum(), np.arange(1, r + 1), m, n)
    assert_allclose((drawn**2).mean(axis=0), mean, rtol=0.05)


@pytest.mark.parametrize(("m", "n", "r"), [(4, 4, 4), (5, 4, 4), (4, 6, 4), (6, 3, 2)])
def test_drawn_projections_onto_everything_are_everything(m, n, r):
    S = np.arange(min(m, n), 0, -1.0)
    drawn = chance.projection_draws(S, (S**2).sum(), r, m, n, draws=300, seed=0)
    assert (drawn <= np.sqrt((S**2).sum()) * (1 + 1e-12)).all()
    if r == m == n:
        assert_allclose(drawn[:, -1], np.linalg.norm(S), rtol=1e-10)
    assert (np.diff(drawn, axis=1) >= -1e-12).all()


def test_drawn_projections_are_seeded():
    one = chance.projection_draws([3.0, 1.0], 20.0, 2, 30, 20, draws=7, seed=3)
    again = chance.projection_draws([3.0, 1.0], 20.0, 2, 30, 20, draws=7, seed=3)
    assert (one == again).all()
    assert (chance.projection_draws([3.0, 1.0], 20.0, 2, 30, 20, draws=7, seed=4) != one).any()


@pytest.mark.parametrize("d", [4, 8, 30])
def test_a_constant_energy_is_no_evidence_on_either_side(d):
    """All d directions hold everything; an isotropic update has k/d in any k."""
    assert chance.energy_two_sided(1.0, d, d, 1.0) == 1.0
    assert chance.energy_two_sided(3 / d, 3, d, 1 / d) == 1.0
    assert chance.energy_two_sided(0.999, 3, d, 1 / d) == 0.0
    assert np.isnan(chance.energy_two_sided(np.nan, 3, d, 1.0))
    one = float(chance.energy_pvalue(0.9, 1, d, 1.0))
    assert chance.energy_two_sided(0.9, 1, d, 1.0) == 2 * min(one, 1 - one)
