"""phi between W's top directions and delta W's, against a dense SVD of W."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from subspace.errors import ArgumentError, NonFiniteError
from subspace.measures.placement.measure import placement
from subspace.measures.similarity.measure import random_pair, similarity
from subspace.plots.figure3 import figure3
from subspace.plots.figure4 import figure4
from subspace.plots.layers import layers_figure
from tests.support import oracle
from tests.support.memory import MemoryBase, adapter, dense, factors, gaussian, only_krylov


def place(update, W, **options):
    return placement(adapter(update, name="a"), MemoryBase({"q": W}), **options)["q"]


@pytest.mark.parametrize("side", ["in", "out"])
@pytest.mark.parametrize(
    ("shape", "direct"),
    [
        ((60, 40), True),
        ((40, 60), True),
        ((50, 50), True),
        ((300, 250), False),
        ((250, 300), False),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_phi_is_the_oracles(side, shape, direct, dtype, monkeypatch, device):
    W = torch.randn(*shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    if not direct:
        only_krylov(monkeypatch)
    update = factors(*shape, 5, seed=2)
    got = place(update, W, side=side, k=7, device=device)
    U, _, Vh = np.linalg.svd(W.double().numpy(), full_matrices=False)
    top = (Vh.T if side == "in" else U)[:, :7]
    want = oracle.phi(top, oracle.directions(*dense(update), side)[0])
    assert got.phi.shape == (7, 5)
    assert_allclose(got.phi, want, atol=1e-8)
    assert got.d == (shape[1] if side == "in" else shape[0])


def test_an_update_made_of_w_lies_in_it_and_a_random_one_does_not():
    W = torch.randn(120, 100, generator=torch.Generator().manual_seed(3)).double()
    U, S, Vh = torch.linalg.svd(W)
    from subspace.adapters import LowRankUpdate

    part = LowRankUpdate("q", Vh[:4] * S[:4, None], U[:, :4], 0.1)
    assert place(part, W).agreeing == 4
    assert place(gaussian(120, 100, 4, seed=5), W).agreeing == 0


def test_the_default_is_a_tenth_of_the_dimensions():
    assert place(gaussian(50, 40, 2), torch.randn(50, 40)).rank_a == 4
    assert place(gaussian(50, 40, 2), torch.randn(50, 40), k=99).rank_a == 40


def test_errors():
    W, update = torch.randn(6, 5), gaussian(6, 5, 2)
    with pytest.raises(ArgumentError, match="in or out"):
        place(update, W, side="A")
    with pytest.raises(ArgumentError, match="from 1 on"):
        place(update, W, k=0)
    W[1, 1] = float("inf")
    with pytest.raises(NonFiniteError, match="W of module 'q'"):
        place(update, W)


@pytest.mark.parametrize("way", ["gram", "krylov"])
def test_equal_values_of_w_leave_no_cell_certain(way, monkeypatch):
    """The directions of an orthogonal W are arbitrary: those of its last cut too."""
    if way == "krylov":
        only_krylov(monkeypatch)
    Q = torch.linalg.qr(torch.randn(100, 100, generator=torch.Generator().manual_seed(0)).double())
    got = place(gaussian(100, 100, 3, seed=2), Q[0], k=5)
    assert np.isnan(got.phi).all()
    assert got.masked.all()


@pytest.mark.parametrize("way", ["gram", "krylov"])
@pytest.mark.parametrize("gap", [1e-2, 1e-5, 1e-8])
def test_every_cell_is_as_sure_as_it_says(way, gap, monkeypatch):
    """Pairs of values that are close, the last cut through one of them."""
    if way == "krylov":
        only_krylov(monkeypatch)
    rng = np.random.default_rng(0)
    S = np.repeat(np.linspace(3.0, 1.0, 30), 2)
    S[1::2] *= 1 - gap
    U, V = oracle.haar(rng, 120, 60), oracle.haar(rng, 100, 60)
    update = factors(120, 100, 4, seed=2)
    got = place(update, torch.tensor((U * S) @ V.T), k=7)
    want = oracle.phi(V[:, :7], oracle.directions(*dense(update), "in")[0])
    known = ~np.isnan(got.phi)
    assert known[1::2].all()  # a cut between two pairs is open
    assert (np.abs(got.phi - want)[known] <= got.error[known] + 1e-13).all()
    if gap == 1e-2:
        assert known.all()


def test_a_zero_w_has_no_directions():
    got = place(gaussian(20, 10, 2), torch.zeros(20, 10))
    assert np.isnan(got.phi).all()


@pytest.mark.parametrize(("side", "hand"), [("in", "right"), ("out", "left")])
def test_figure8_counts_ws_vectors_by_i_and_the_updates_by_j(side, hand):
    """Appendix H.3, Figure 8: phi(W, A, i, j). Title, axes and numbers agree on which is which."""
    W = torch.randn(60, 40, generator=torch.Generator().manual_seed(1)).double()
    update = factors(60, 40, 5, seed=2)
    placed = placement(adapter(update, name="r5"), MemoryBase({"q": W}), side=side, k=7)
    U, _, Vh = np.linalg.svd(W.numpy(), full_matrices=False)
    directions = oracle.directions(*dense(update), side)[0]
    W_name = placed.adapters[0]
    assert W_name.startswith("W of ")
    for figure in (
        figure3(placed, modules="q"),
        layers_figure(placed),
        figure4(placed, random_pair(7, 5, placed["q"].d), modules="q"),
    ):
        first, second = figure.get_suptitle().replace("\xa0", " ").splitlines()
        assert first == f"φ(i, j) of {W_name} (i) and r5 (j)"
        assert second == f"side {side}: {hand}-singular vectors of W (i) and of ΔW = BA (j)"
        drawn = figure.axes[0].images[0].get_array()
        assert drawn.shape == (7, 5)  # i downwards: the top 7 of W
        i, j = np.ogrid[1:8, 1:6]
        top = (Vh.T if side == "in" else U)[:, :7]
        squares = np.square(top.T @ directions).cumsum(0).cumsum(1)
        assert_allclose(drawn, squares / np.minimum(i, j), atol=1e-8)
    ax = figure.axes[0]
    assert (ax.get_ylabel(), ax.get_xlabel()) == (f"i ({W_name})", "j (r5)")


def test_a_comparison_of_adapters_named_after_w_says_nothing_of_w():
    one = adapter(factors(60, 40, 5, seed=2), name="W of a")
    placed = similarity(one, adapter(factors(60, 40, 5, seed=3), name="b"), side="in")
    title = figure3(placed).get_suptitle().replace("\xa0", " ")
    assert "vectors of ΔW = BA" in title
    assert "W (i)" not in title
