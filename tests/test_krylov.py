"""The leading part of a large W, and one pass over it, against dense float64."""

import contextlib
import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from subspace import linalg
from subspace.linalg import krylov, products
from tests.support.memory import only_krylov


def lead(W, k, **options):
    return linalg.leading(W, k, norm=linalg.sweep(W, [])[0], **options)


def with_values(S, m, n, *, seed=0):
    """A float64 (m, n) matrix with these singular values."""
    g = torch.Generator().manual_seed(seed)
    left, right = (
        torch.linalg.qr(torch.randn(d, len(S), generator=g, dtype=torch.float64))[0] for d in (m, n)
    )
    return (left * torch.as_tensor(S, dtype=torch.float64)) @ right.T


SPECTRA = {
    "flat": np.sqrt(np.linspace(1.0, 0.1, 600)),
    "power": np.arange(1, 601) ** -0.5,
    "steep": np.arange(1, 601) ** -2.0,
    "spiked": np.r_[30.0, 10.0, 5.0, np.linspace(1.0, 0.5, 597)],
    "deficient": np.r_[np.linspace(2.0, 1.0, 100), np.zeros(500)],
    "cluster": np.r_[np.linspace(1.0001, 1.0, 300), np.linspace(0.9, 0.1, 300)],
}


@pytest.fixture
def no_gram(monkeypatch):
    only_krylov(monkeypatch)


@pytest.mark.usefixtures("no_gram")
@pytest.mark.parametrize("kind", list(SPECTRA))
@pytest.mark.parametrize("shape", [(700, 600), (600, 700)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_leading_values_are_svdvals(kind, shape, dtype, device):
    W = with_values(SPECTRA[kind], *shape).to(dtype)
    exact = torch.linalg.svdvals(W.double())[:32]
    found = lead(W, 32, device=device)
    assert found.method == "krylov"
    assert_allclose(found.S[:32], exact, rtol=1e-6)
    # The bound is of the values found; each lies within it of one that W has.
    assert (found.error[:32] >= (found.S[:32] - exact).abs() - 1e-13 * exact[0]).all()
    assert (found.error[:32] > 0).all()
    assert found.V.shape[1] == 0


@pytest.mark.usefixtures("no_gram")
def test_an_unresolved_value_has_its_residual_as_error():
    """Cut within a cluster, the values found are some of it: so far off, and no further."""
    W = with_values(SPECTRA["cluster"], 700, 600)
    found = lead(W, 32, tolerance=1e-4)
    every = torch.tensor(SPECTRA["cluster"])
    nearest = (found.S[:, None] - every[None]).abs().min(dim=1).values
    assert (found.error >= nearest - 1e-13).all()
    assert found.error.max() <= 1e-4


def test_krylov_does_a_gaussian(monkeypatch):
    """Without a gap anywhere it is the hard case: Marchenko & Pastur's edge."""
    monkeypatch.setattr(krylov, "GRAM_TO", 0)
    W = torch.randn(1600, 1500, generator=torch.Generator().manual_seed(0))
    found = lead(W, 16)
    assert found.method == "krylov"
    assert_allclose(found.S[:16], torch.linalg.svdvals(W.double())[:16], rtol=1e-6)


def test_the_gram_takes_over_where_the_basis_is_full(monkeypatch):
    monkeypatch.setattr(krylov, "GRAM_TO", 0)
    monkeypatch.setattr(krylov, "_BLOCK", 8)
    W = with_values(SPECTRA["flat"], 700, 600)
    found = lead(W, 64)
    assert found.method == "gram"
    assert_allclose(found.S[:64], SPECTRA["flat"][:64], rtol=1e-9)


@pytest.mark.parametrize("shape", [(50, 40), (40, 50), (5000, 40)])
def test_a_short_side_is_decomposed_whole(shape):
    W = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    found = lead(W, 3)
    assert found.method == "gram"
    exact = torch.linalg.svdvals(W.double())
    assert_allclose(found.S, exact, rtol=1e-10)
    concentration = float((exact**4).sum() / (exact**2).sum() ** 2)
    assert found.fourth == pytest.approx(concentration, rel=1e-12)
    assert (found.error / found.S).max() < 1e-9


def test_the_grams_bound_holds_where_it_loses_digits():
    g = torch.Generator().manual_seed(0)
    for seed in range(3):
        W = torch.ones(20_000, 30, dtype=torch.float64)
        W += 1e-6 * torch.randn(20_000, 30, generator=g, dtype=torch.float64)
        found, exact = lead(W, 30), torch.linalg.svdvals(W)
        assert (found.error >= (found.S - exact).abs()).all(), seed


@pytest.mark.usefixtures("no_gram")
@pytest.mark.parametrize("kind", list(SPECTRA))
def test_the_sum_of_fourth_powers(kind):
    """Exact but for what random probes say of the part beyond the leading values."""
    S = SPECTRA[kind]
    found = lead(with_values(S, 700, 600), 32)
    beyond, whole = (S[32:] ** 4).sum(), (S**2).sum() ** 2
    # 8 probes: a relative error of about sqrt(2 / 8 sum of the weights squared), far below 1/3.
    assert abs(found.fourth - (S**4).sum() / whole) < (0.35 * beyond + 1e-9) / whole


@pytest.mark.parametrize("kind", ["power", "flat"])
def test_a_glance_is_near_and_says_so(kind, monkeypatch):
    monkeypatch.setattr(krylov, "GRAM_TO", 0)
    S = SPECTRA[kind]
    found = lead(with_values(S, 700, 600), 16, rough=True)
    assert found.method == "rough"
    assert_allclose(found.S[:4], S[:4], rtol=0.1)
    assert_allclose(found.S, S[:16], rtol=0.35)
    assert (found.S.numpy() < S[:16] * (1 + 1e-6)).all()  # lower bounds
    assert found.fourth == pytest.approx((S**4).sum() / (S**2).sum() ** 2, rel=0.1)


@pytest.mark.usefixtures("no_gram")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_squares_that_drown_are_found_in_float64(dtype):
    """sigma_1^2 / sigma_16^2 = 4e6, and 1e14: float32 products have nothing left of the last."""
    for decades in (3.3, 7.0):
        W = with_values(10.0 ** -np.linspace(0, decades, 40), 700, 600).to(dtype)
        exact = torch.linalg.svdvals(W.double())[:16]
        assert_allclose(lead(W, 16).S[:16], exact, rtol=1e-6)


@pytest.mark.usefixtures("no_gram")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("power", [-30, -20, 20, 30])
def test_any_scale_is_the_same_matrix(dtype, power):
    W = with_values(SPECTRA["power"], 700, 600)
    scaled = (W * 10.0**power).to(dtype)
    exact = torch.linalg.svdvals(scaled.double())[:8]
    found = lead(scaled, 8)
    assert_allclose(found.S[:8] / exact, 1.0, rtol=1e-6)
    assert found.fourth == pytest.approx(lead(W, 8).fourth, rel=1e-5)
    assert lead(scaled, 8, rough=True).S[0] == pytest.approx(float(exact[0]), rel=0.01)


@pytest.mark.usefixtures("no_gram")
def test_vectors_are_wedins_bound_from_the_svds():
    W = with_values(SPECTRA["power"], 700, 600)
    found = lead(W, 12, vectors=True, tolerance=1e-12)
    _, S, Vh = torch.linalg.svd(W)
    eye = torch.eye(found.V.shape[1], dtype=torch.float64)
    assert (found.V.T @ found.V - eye).abs().max() < 1e-13
    for k in (1, 5, 12):
        projector = found.V[:, :k] @ found.V[:, :k].T
        apart = torch.linalg.matrix_norm(projector - Vh[:k].T @ Vh[:k], ord=2)
        assert apart <= found.error[:k].max() / float(S[k - 1] - S[k]) + 1e-13
        assert apart <= 1e-9


@pytest.mark.usefixtures("no_gram")
def test_equal_values_end():
    assert_allclose(lead(torch.eye(600, dtype=torch.float64), 8).S[:8], 1.0, rtol=1e-12)
    assert lead(torch.zeros(600, 500), 8).S.abs().max() == 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("large", [True, False])
@pytest.mark.parametrize("turned", [True, False])
def test_one_pass_gives_every_projection_and_the_norm(dtype, large, turned, monkeypatch, device):
    if large:
        monkeypatch.setattr(products, "_SMALL", 0)
        monkeypatch.setattr(products, "_COLUMNS", 64)
    g = torch.Generator().manual_seed(0)
    W = torch.randn(700, 300, generator=g).to(dtype)
    if turned:
        W = W.T.contiguous().T
    pairs = [
        tuple(
            torch.linalg.qr(torch.randn(d, r, generator=g, dtype=torch.float64))[0] for d in W.shape
        )
        for r in (3, 8, 0)
    ]
    norm, inside = linalg.sweep(W, pairs, device=device)
    assert norm == pytest.approx(float(torch.linalg.norm(W.double())), rel=1e-7)
    for (U, V), P in zip(pairs, inside, strict=True):
        exact = U.T @ W.double() @ V
        assert P.dtype == torch.float64
        assert P.shape == exact.shape
        assert torch.linalg.norm(P - exact) <= 1e-6 * torch.linalg.norm(exact)


@pytest.mark.parametrize("n", [4096, 30_000])
def test_a_wide_w_loses_no_more_than_a_narrow_one(n):
    """float32 rounding is held per block of columns: 3e-7 of what chance has, root mean square."""
    g = torch.Generator().manual_seed(0)
    W = torch.randn(600, n, generator=g)
    U, V = (
        torch.linalg.qr(torch.randn(d, 32, generator=g, dtype=torch.float64))[0] for d in W.shape
    )
    _, (P,) = linalg.sweep(W, [(U, V)], dtype=torch.float32)
    off = (P - U.T @ W.double() @ V).square().mean().sqrt()
    assert off < 5e-7 * float(torch.linalg.norm(W.double())) / math.sqrt(W.numel())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1e30, 1e-30, 1e-37])
def test_large_and_small_entries_neither_overflow_nor_vanish(dtype, size, monkeypatch):
    monkeypatch.setattr(products, "_SMALL", 0)
    W = torch.full((4, 4), size, dtype=dtype)
    one = torch.eye(4, 1).double()
    norm, (P,) = linalg.sweep(W, [(one, one)])
    assert norm == pytest.approx(4 * size, rel=1e-6)
    assert float(P) == pytest.approx(size, rel=1e-6)


def test_nan_and_infinity_are_seen_and_zero_is_zero():
    W = torch.ones(4, 4)
    W[0, 0] = math.nan
    assert math.isnan(linalg.sweep(W, [])[0])
    W[0, 0] = -math.inf
    assert not math.isfinite(linalg.sweep(W, [])[0])
    assert linalg.sweep(torch.zeros(3, 2), [])[0] == 0


def test_the_callers_precision_comes_back():
    torch.set_float32_matmul_precision("medium")
    try:
        with linalg.highest_precision():
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "medium"
        with contextlib.suppress(ZeroDivisionError), linalg.highest_precision():
            _ = 1 / 0
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
