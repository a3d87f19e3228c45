"""phi between W's top directions and delta W's, against a dense SVD of W."""

import numpy as np
import oracle
import pytest
import torch
from made import adapter, dense, factors, gaussian
from numpy.testing import assert_allclose
from test_amplification import Held

from subspace.errors import ArgumentError, NonFiniteError
from subspace.linalg import krylov
from subspace.measures.placement import placement


def place(update, W, **options):
    return placement(adapter(update, name="a"), Held({"q": W}), **options)["q"]


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
    if not direct:
        monkeypatch.setattr(krylov, "GRAM_TO", 8)
    W = torch.randn(*shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    update = factors(*shape, 5, seed=2)
    got = place(update, W, side=side, top=7, device=device)
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
    assert place(gaussian(50, 40, 2), torch.randn(50, 40), top=99).rank_a == 40


def test_errors():
    W, update = torch.randn(6, 5), gaussian(6, 5, 2)
    with pytest.raises(ArgumentError, match="in or out"):
        place(update, W, side="A")
    with pytest.raises(ArgumentError, match="from 1 on"):
        place(update, W, top=0)
    W[1, 1] = float("inf")
    with pytest.raises(NonFiniteError, match="W of module 'q'"):
        place(update, W)
