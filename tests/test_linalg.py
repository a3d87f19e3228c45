"""The ways to split a factor against numpy, on every device."""

from typing import get_args

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.linalg import subspace_angles

from subspace import linalg


def tall(d, r, cond, seed=0, dtype=torch.float64):
    rng = np.random.default_rng(seed)
    U = np.linalg.qr(rng.standard_normal((d, r)))[0]
    V = np.linalg.qr(rng.standard_normal((r, r)))[0]
    return torch.tensor((U * np.logspace(0, -cond, r)) @ V.T).to(dtype)


@pytest.mark.parametrize("method", get_args(linalg.QRMethod))
@pytest.mark.parametrize("cond", [0.5, 3, 6, 9])
def test_every_method_splits_or_says_that_it_cannot(method, cond, device):
    F = tall(40, 6, cond).to(device)
    split = linalg.orthogonalise(F[None], method)
    if not bool(split.sound[0]):
        sound_to = {"cholesky": 0.5, "cholesky_qr2": 6, "householder_qr": 9}
        assert cond > sound_to[method]
        return
    assert method == "householder_qr" or cond < 9
    Q = (split.columns @ split.transform)[0].double()
    loose = 1e-9 if method == "cholesky" else 1e-13
    assert_allclose((Q.T @ Q).cpu(), np.eye(6), atol=loose)
    assert_allclose((split.scale[0] * Q @ split.R[0]).cpu(), F.cpu(), atol=loose)


def test_kappa_bounds_the_condition_number():
    """|L|_F |L^-1|_F is above the 2-norm condition number of the scaled factor."""
    F = tall(40, 6, 2)
    split = linalg.orthogonalise(F[None], "cholesky")
    scaled = F / torch.linalg.vector_norm(F, dim=0)
    assert float(split.kappa[0]) >= np.linalg.cond(scaled.numpy())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("by_rows", [True, False])
def test_panelled_gram_is_the_gram(dtype, by_rows, device):
    g = torch.Generator().manual_seed(0)
    parts = []
    for r in (3, 5):
        F = torch.randn(r, 30_000, generator=g).to(dtype) if by_rows else None
        parts.append(F.T if F is not None else torch.randn(30_000, r, generator=g).to(dtype))
    stacked = torch.cat([p.double() for p in parts], dim=1)
    got = linalg.gram([p.to(device) for p in parts])
    assert_allclose(got.cpu(), stacked.T @ stacked, rtol=1e-12, atol=1e-8)
    batched = linalg.gram([p[None].to(device) for p in parts])
    assert_allclose(batched[0].cpu(), got.cpu(), rtol=1e-12, atol=1e-8)


@pytest.mark.parametrize("size", [1e-300, 1e-160, 1.0, 1e160, 1e300])
def test_scale_neither_overflows_nor_vanishes(size):
    F = tall(20, 4, 1) * size
    split = linalg.orthogonalise(F[None], "cholesky")
    assert bool(split.sound[0])
    S = torch.linalg.svdvals(split.R[0]) * split.scale[0]
    assert_allclose(S / size, np.logspace(0, -1, 4), rtol=1e-10)


def test_small_angles_keep_their_digits():
    """Against scipy's, and where arccos would return 0: 1e-10 radians."""
    rng = np.random.default_rng(0)
    U = np.linalg.qr(rng.standard_normal((30, 4)))[0]
    V = np.linalg.qr(rng.standard_normal((30, 6)))[0]
    got = linalg.principal_angles(torch.tensor(U), torch.tensor(V))
    assert_allclose(got, np.sort(subspace_angles(U, V)), rtol=1e-12)
    W = U.copy()
    W[:, 0] = np.cos(1e-10) * U[:, 0] + np.sin(1e-10) * V[:, 0]
    W = np.linalg.qr(W)[0]
    near = linalg.principal_angles(torch.tensor(U), torch.tensor(W))
    assert_allclose(near, np.sort(subspace_angles(U, W)), atol=1e-15)
    assert 1e-11 < float(near[-1]) < 1e-9


def test_orthonormal_repairs_what_cholesky_left():
    F = tall(50, 5, 2.8)
    split = linalg.orthogonalise(F[None], "cholesky")
    assert bool(split.sound[0])
    U = linalg.orthonormal(split.columns[0], split.transform[0])
    assert_allclose(U.T @ U, np.eye(5), atol=1e-14)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "angles", [[0, 0, 0, 1e-7], [1e-9, 1e-8, 1e-7, 0.3, 1.2], [0, 1e-12, 1e-3, 1.5, np.pi / 2]]
)
def test_several_small_angles_at_once(seed, angles):
    """(0, 0, 0, 1e-7) came out 2e-10, 3e-10, 7e-8, 7e-8: equal cosines have arbitrary vectors."""
    rng = np.random.default_rng(seed)
    k = len(angles)
    Q = np.linalg.qr(rng.standard_normal((40, 2 * k)))[0]
    mix = [np.linalg.qr(rng.standard_normal((k, k)))[0] for _ in range(2)]
    U = Q[:, :k] @ mix[0]
    V = (Q[:, :k] * np.cos(angles) + Q[:, k:] * np.sin(angles)) @ mix[1]
    got = linalg.principal_angles(torch.tensor(U), torch.tensor(V)).numpy()
    assert_allclose(got, angles, atol=2e-15 * 8, rtol=1e-13)
    wider = np.linalg.qr(np.concatenate([U, rng.standard_normal((40, 3))], axis=1))[0]
    assert (linalg.principal_angles(torch.tensor(wider), torch.tensor(U)).numpy() < 1e-14).all()
