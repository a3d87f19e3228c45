"""The difference of two large matrices, decomposed without being formed."""

import numpy as np
import pytest
import torch

from subspace import linalg
from subspace.linalg import Difference
from tests.support.memory import only_krylov


def two(m, n, dtypes, *, seed=0, turned=False):
    """Two stored matrices that differ by a decaying spectrum, and their exact difference."""
    rng = np.random.default_rng(seed)
    d = min(m, n)
    U, V = (np.linalg.qr(rng.standard_normal((x, d)))[0] for x in (m, n))
    first = rng.standard_normal((m, n))
    second = first + (U * np.linspace(3, 0.1, d) ** 2) @ V.T
    pair = [torch.tensor(X).to(t) for X, t in zip((first, second), dtypes, strict=True)]
    if turned:  # as a Conv1D lies in its file
        pair = [X.mT.contiguous().mT for X in pair]
    exact = pair[1].double().numpy() - pair[0].double().numpy()
    return Difference(pair[1], pair[0]), exact


DTYPES = [
    (torch.float64, torch.float64),
    (torch.float32, torch.float32),
    (torch.bfloat16, torch.bfloat16),
    (torch.float16, torch.bfloat16),
    (torch.bfloat16, torch.float32),
    (torch.float32, torch.float64),
]


@pytest.mark.parametrize("dtypes", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(60, 40), (40, 60), (300, 20)])
@pytest.mark.parametrize("turned", [False, True])
def test_panels_are_the_difference(shape, dtypes, turned):
    D, exact = two(*shape, dtypes, turned=turned)
    for matrix, wanted in ((D, exact), (D.mT, exact.T)):
        assert matrix.shape == wanted.shape
        assert len(matrix) == len(wanted)
        found = [panel.clone() for _, panel in linalg.panels(matrix, torch.float64, "cpu")]
        np.testing.assert_array_equal(torch.cat(found).numpy(), wanted)


@pytest.mark.parametrize("dtypes", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(60, 40), (40, 60)])
@pytest.mark.parametrize("way", ["gram", "krylov"])
def test_leading_values_and_directions(shape, dtypes, way, monkeypatch):
    if way == "krylov":
        only_krylov(monkeypatch)
    D, exact = two(*shape, dtypes)
    U, S, Vt = np.linalg.svd(exact, full_matrices=False)
    found = linalg.leading(D, 5, norm=float(np.linalg.norm(exact)), vectors=True)
    assert found.method == way
    np.testing.assert_allclose(found.S[:5].numpy(), S[:5], rtol=2e-6)
    short = (Vt.T if shape[0] >= shape[1] else U)[:, :5]
    mine = found.V[:, :5].numpy()
    np.testing.assert_allclose(mine @ mine.T, short @ short.T, atol=1e-4)


@pytest.mark.parametrize("way", ["gram", "krylov"])
@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_entries_of_odd_sizes(size, way, monkeypatch):
    if way == "krylov":
        only_krylov(monkeypatch)
    D, exact = two(50, 40, (torch.float64, torch.float64))
    odd = Difference(D.minuend * size, D.subtrahend * size, 2.0 ** -round(np.log2(size)))
    factor = size * odd.factor
    found = linalg.leading(odd, 3, norm=factor * float(np.linalg.norm(exact)))
    S = np.linalg.svd(exact, compute_uv=False)
    np.testing.assert_allclose(found.S[:3].numpy(), factor * S[:3], rtol=2e-6)


def test_it_runs_where_it_is_asked_to(device):
    D, exact = two(60, 40, (torch.float32, torch.float32))
    norm = float(np.linalg.norm(exact))
    found = linalg.leading(D, 4, norm=norm, device=device)
    S = np.linalg.svd(exact, compute_uv=False)
    np.testing.assert_allclose(found.S[:4].numpy(), S[:4], rtol=1e-6)


def test_two_shapes_have_no_difference():
    with pytest.raises(ValueError, match="minus"):
        Difference(torch.ones(2, 3), torch.ones(3, 2))
