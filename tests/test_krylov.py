"""The leading part of a large W, and one pass over it, against dense float64."""

import contextlib
import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from subspace import linalg
from subspace.linalg import krylov, products


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
}


@pytest.fixture
def no_gram(monkeypatch):
    """Let a small matrix go the way of a large one, in steps of its size."""
    monkeypatch.setattr(krylov, "GRAM_TO", 0)
    monkeypatch.setattr(krylov, "_BLOCK", 8)


@pytest.mark.usefixtures("no_gram")
@pytest.mark.parametrize("kind", list(SPECTRA))
@pytest.mark.parametrize("shape", [(700, 600), (600, 700)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_leading_values_are_svdvals(kind, shape, dtype, device):
    W = with_values(SPECTRA[kind], *shape).to(dtype)
    exact = torch.linalg.svdvals(W.double())[:32]
    found = linalg.leading(W, 32, device=device)
    assert_allclose(found.S[:32], exact, rtol=1e-6)
    # The bound is of the values found; each lies within it of one that W has.
    assert (found.error[:32] >= (found.S[:32] - exact).abs() - 1e-13 * exact[0]).all()
    assert found.V.shape[1] == 0


def test_krylov_does_it_where_it_can(monkeypatch):
    """Gaussian, without a gap anywhere, is the hard case: Marchenko & Pastur's edge."""
    monkeypatch.setattr(krylov, "GRAM_TO", 0)
    W = torch.randn(1600, 1500, generator=torch.Generator().manual_seed(0))
    found = linalg.leading(W, 16)
    assert found.method == "krylov"
    assert_allclose(found.S[:16], torch.linalg.svdvals(W.double())[:16], rtol=1e-6)


def test_a_short_side_is_decomposed_whole():
    W = torch.randn(50, 40, generator=torch.Generator().manual_seed(0))
    found = linalg.leading(W, 3)
    assert found.method == "gram"
    assert_allclose(found.S, torch.linalg.svdvals(W.double()), rtol=1e-10)
    assert found.fourth == pytest.approx(float((found.S**4).sum()), rel=1e-12)
    assert (found.error / found.S).max() < 1e-10


@pytest.mark.usefixtures("no_gram")
@pytest.mark.parametrize("kind", list(SPECTRA))
def test_the_sum_of_fourth_powers(kind):
    """Exact but for what random probes say of the part beyond the leading values."""
    S = SPECTRA[kind]
    found = linalg.leading(with_values(S, 700, 600), 32)
    beyond = (S[32:] ** 4).sum()
    # 8 probes: a relative error of about sqrt(2 / 8 sum of the weights squared), far below 1/3.
    assert abs(found.fourth - (S**4).sum()) < 0.35 * beyond + 1e-9


def test_a_glance_is_near_and_says_so(monkeypatch):
    monkeypatch.setattr(krylov, "GRAM_TO", 0)
    S = SPECTRA["power"]
    found = linalg.leading(with_values(S, 700, 600), 16, rough=True)
    assert found.method == "rough"
    assert_allclose(found.S[:4], S[:4], rtol=0.05)
    assert_allclose(found.S, S[:16], rtol=0.35)
    assert (found.S.numpy() < S[:16] * (1 + 1e-9)).all()  # lower bounds
    assert found.fourth == pytest.approx((S**4).sum(), rel=0.05)


@pytest.mark.usefixtures("no_gram")
def test_float32_goes_on_in_float64_where_squares_drown():
    """sigma_1^2 / sigma_16^2 = 1e8: float32 products have nothing left of the last."""
    W = with_values(10.0 ** -np.linspace(0, 4, 40), 700, 600).float()
    exact = torch.linalg.svdvals(W.double())[:16]
    assert_allclose(linalg.leading(W, 16).S[:16], exact, rtol=1e-6)


@pytest.mark.usefixtures("no_gram")
def test_vectors_are_wedins_bound_from_the_svds():
    W = with_values(SPECTRA["power"], 700, 600)
    found = linalg.leading(W, 12, vectors=True, tolerance=1e-12)
    _, S, Vh = torch.linalg.svd(W)
    for k in (1, 5, 12):
        projector = found.V[:, :k] @ found.V[:, :k].T
        apart = torch.linalg.matrix_norm(projector - Vh[:k].T @ Vh[:k], ord=2)
        # Both are as sure as float64 over the gap.
        assert apart <= 1e-9 / float(S[k - 1] - S[k])


@pytest.mark.usefixtures("no_gram")
def test_equal_values_are_lower_bounds_and_no_endless_loop():
    found = linalg.leading(torch.eye(600, dtype=torch.float64), 8)
    assert_allclose(found.S[:8], 1.0, rtol=1e-12)
    assert linalg.leading(torch.zeros(600, 600), 8).S[:8].abs().max() == 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("large", [True, False])
@pytest.mark.parametrize("turned", [True, False])
def test_one_pass_gives_every_projection_and_the_norm(dtype, large, turned, monkeypatch, device):
    if large:
        monkeypatch.setattr(products, "_SMALL", 0)
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
    squares, inside = linalg.sweep(W, pairs, device=device)
    assert math.sqrt(squares) == pytest.approx(float(torch.linalg.norm(W.double())), rel=1e-7)
    for (U, V), P in zip(pairs, inside, strict=True):
        exact = U.T @ W.double() @ V
        assert P.dtype == torch.float64
        assert P.shape == exact.shape
        assert torch.linalg.norm(P - exact) <= 1e-6 * torch.linalg.norm(exact)


def test_large_entries_do_not_overflow_and_nan_is_seen(monkeypatch):
    monkeypatch.setattr(products, "_SMALL", 0)
    W = torch.full((4, 4), 1e30)
    squares, (P,) = linalg.sweep(W, [(torch.eye(4, 1).double(), torch.eye(4, 1).double())])
    assert squares == pytest.approx(16e60)
    assert float(P) == pytest.approx(1e30)
    W[0, 0] = math.nan
    assert math.isnan(linalg.sweep(W, [])[0])
    W[0, 0] = -math.inf
    assert not math.isfinite(linalg.sweep(W, [])[0])


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
