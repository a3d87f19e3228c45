"""The factored SVD against numpy's of the dense delta W."""

from typing import get_args

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from subspace import linalg, spectrum
from subspace.adapters import Adapter, LowRankUpdate
from subspace.errors import NonFiniteError
from subspace.spectra import is_zero, solve, spectra
from tests.support import oracle
from tests.support.memory import adapter, dense, factors, gaussian


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("cond", [0.5, 3, 7])
@pytest.mark.parametrize("scale", [2.0, -0.25])
def test_spectrum_is_the_svd_of_delta(dtype, cond, scale, device):
    update = factors(30, 50, 6, dtype=dtype, cond=cond, scale=scale)
    got = spectrum(update, device=device)
    A, B, s = dense(update)
    S = np.linalg.svd(s * (B @ A), compute_uv=False)[:6]
    assert_allclose(got.S, S, atol=got.error + 1e-15 * S[0])
    assert_allclose(got.U.T @ got.U, np.eye(6), atol=1e-13)
    assert_allclose(got.V.T @ got.V, np.eye(6), atol=1e-13)
    assert_allclose((got.U * got.S) @ got.V.T, s * (B @ A), atol=10 * got.error + 1e-14 * S[0])
    assert 0 < got.rank <= 6


@pytest.mark.parametrize("d", [384, 12288])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("size", [1.0, 1e-3])
def test_rank_ten_stored_in_any_dtype_has_rank_ten(d, dtype, size):
    g = torch.Generator().manual_seed(0)
    A = size * torch.randn(64, 10, generator=g) @ torch.randn(10, d, generator=g) / 3
    B = torch.randn(d, 64, generator=g)
    update = LowRankUpdate("q", A.to(dtype), B.to(dtype), 0.25)
    (solved,) = solve([[update]], "A")
    assert solved.directions[0].rank == 10
    assert spectrum(update).rank == 10


def test_rank_of_a_product_is_counted_in_units_of_delta():
    """ΔW of rank 10 although neither factor shows it alone."""
    g = torch.Generator().manual_seed(0)
    A, B = torch.randn(64, 384, generator=g), torch.randn(384, 64, generator=g)
    P = torch.randn(64, 10, generator=g, dtype=torch.float64)
    P = torch.linalg.qr(P)[0]
    B = (B.double() @ P @ P.T).float()
    assert spectrum(LowRankUpdate("q", A, B, 1.0)).rank == 10


def test_zero_is_rank_zero_and_no_error():
    update = LowRankUpdate("q", torch.randn(4, 9), torch.zeros(7, 4), 2.0)
    got = spectrum(update)
    assert (got.rank, got.method) == (0, "none")
    assert got.S.tolist() == [0.0] * 4
    assert_allclose(got.U.T @ got.U, np.eye(4))
    assert is_zero(update)
    unscaled = spectrum(LowRankUpdate("q", torch.randn(4, 9), torch.randn(7, 4), 0.0))
    assert (unscaled.rank, unscaled.method, float(unscaled.S[0])) == (0, "none", 0.0)
    assert is_zero(LowRankUpdate("q", torch.ones(1, 2), torch.ones(2, 1), 0.0))
    late = torch.zeros(7, 4)
    late[6, 3] = 1e-30
    assert not is_zero(LowRankUpdate("q", torch.randn(4, 9), late, 2.0))


@pytest.mark.parametrize("size", [1e-150, 1e-50, 1e60, 1e150])
def test_tiny_and_huge_products_are_neither_zero_nor_infinite(size):
    update = factors(20, 30, 4, size=size)
    got = spectrum(update)
    A, B, _ = dense(update)
    S = np.linalg.svd((B / size) @ (A / size), compute_uv=False)[:4]
    assert_allclose(got.S / size / size, S, rtol=1e-9)
    assert got.rank == 4


@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (5, 5), (40, 5)])
def test_rank_above_the_dimension(shape):
    update = gaussian(*shape, 12)
    got = spectrum(update)
    A, B, s = dense(update)
    want = np.linalg.svd(s * B @ A, compute_uv=False)
    k = min(12, *shape)
    assert got.S.shape == (k,)
    assert got.rank == k
    assert_allclose(got.S, want[:k], rtol=1e-10)
    assert_allclose((got.U[:, :k] * got.S) @ got.V[:, :k].T, s * B @ A, atol=1e-12)


def test_padded_factors_have_their_own_rank():
    """Rank 3 stored as rank 8 with zero rows, as merging tools write it."""
    u = factors(20, 30, 3)
    A, B = torch.zeros(8, 30).double(), torch.zeros(20, 8).double()
    A[:3], B[:, :3] = u.A, u.B
    got = spectrum(LowRankUpdate("q", A, B, 1.0))
    assert got.rank == 3
    assert_allclose(got.S[:3], spectrum(u).S, rtol=1e-9)


def test_a_gauge_does_not_blur_the_spectrum():
    """A -> GA, B -> BG^-1 with G spread over twelve decades: the update stays, so must S."""
    u = factors(40, 30, 5, cond=1)
    G = torch.logspace(-6, 6, 5, dtype=torch.float64)
    moved = LowRankUpdate("q", G[:, None] * u.A, u.B / G, 1.0)
    got = spectrum(moved)
    assert got.error < 1e-9
    assert_allclose(got.S, spectrum(u).S, rtol=1e-9)


def test_batches_and_threads_change_nothing():
    many = adapter(*(gaussian(48, 32, 4, seed=n) for n in range(7)), gaussian(16, 32, 4, seed=9))
    torch.set_num_threads(2)
    try:
        together = spectra(many)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert list(together) == list(many)
    for name, got in together.items():
        assert_allclose(got.S, spectrum(many[name]).S, rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("which", ["A", "B"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_non_finite_is_named(dtype, which, value):
    u = gaussian(6, 5, 2, dtype=dtype)
    factor = getattr(u, which)
    factor[1, 1] = value
    bad = LowRankUpdate("enc.q", u.A, u.B, 1.0, source="run/adapter_model.safetensors")
    with pytest.raises(
        NonFiniteError, match=rf"1 of \d+ entries of {which} in module 'enc.q'.*\[1, 1\].*run/"
    ):
        spectrum(bad)


def test_forced_methods_agree(device):
    """Each method alone gives the same spectrum, where it calls itself sound."""
    from subspace.spectra import directions

    u = factors(30, 40, 5, cond=2)
    near, far = [[directions._factor(u, "B")]], [[directions._factor(u, "A")]]
    methods = list(get_args(linalg.QRMethod))
    results = [directions._solve_by([[u]], near, far, how, device)[0][0] for how in methods]
    assert [r.directions[0].method for r in results] == methods
    exact = results[-1].directions[0]
    for r in results[:2]:
        assert_allclose(r.directions[0].S, exact.S, atol=r.directions[0].error)
        U, V = r.directions[0].form(), exact.form()
        assert_allclose(U @ U.T, V @ V.T, atol=1e-9)


def test_cholesky_hands_on_what_it_cannot_vouch_for():
    assert spectrum(factors(30, 40, 5, cond=1)).method == "cholesky"
    assert spectrum(factors(30, 40, 5, cond=6)).method == "householder_qr"
    assert linalg.GRAM_BOUND == 1e-9


def test_spectra_agree_with_the_oracle_on_every_side():
    u = factors(25, 35, 4, cond=1, scale=3.0)
    A, B, s = dense(u)
    for side in ("A", "B", "in", "out"):
        (solved,) = solve([[u]], side)
        U, S = oracle.directions(A, B, s, side)
        got = solved.directions[0]
        assert_allclose(got.S, S, rtol=1e-10)
        for i in range(1, 5):  # projectors, never vectors: signs are free
            P = got.form()[:, :i] @ got.form()[:, :i].T
            assert_allclose(P, U[:, :i] @ U[:, :i].T, atol=1e-9)


def test_spectra_of_an_adapter_go_by_its_own_paths():
    """An update made in memory may be called otherwise than the module that it is put under."""
    made = {f"layers.{n}.q": gaussian(20, 30, 2, seed=n) for n in range(3)}
    found = spectra(Adapter.from_updates(made))
    assert list(found) == list(made)
    for name, update in made.items():
        assert_allclose(found[name].S, spectrum(update).S, rtol=1e-12)
