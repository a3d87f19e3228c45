"""Numerical rank of factors in 16 bits: what was rounded away is noise, and spreads."""

from dataclasses import replace
from statistics import median

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles

import subspace
from subspace.adapters import Adapter, LowRankUpdate
from subspace.spectra.rounding import noise_level
from tests.support.samples import R64

HALVES = [torch.bfloat16, torch.float16]


def stored(update, dtype):
    return replace(update, A=update.A.to(dtype), B=update.B.to(dtype))


def decaying(seed, r=48, d=(320, 256), last=0.02):
    """An update whose singular values fall from 1 to `last`, in some basis of the rank."""
    rng = np.random.default_rng(seed)
    U, V = (np.linalg.qr(rng.standard_normal((n, r)))[0] for n in d)
    S = np.geomspace(1, last, r)
    left, right = (np.linalg.qr(rng.standard_normal((r, r)))[0] for _ in range(2))
    gauge = (left * np.geomspace(0.5, 2, r)) @ right
    B, A = (U * np.sqrt(S)) @ gauge, np.linalg.inv(gauge) @ (np.sqrt(S)[:, None] * V.T)
    factors = (torch.from_numpy(np.ascontiguousarray(x)).float() for x in (A, B))
    return LowRankUpdate("q", *factors, 1.0)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("seed", range(6))
def test_the_level_is_above_the_rounding_and_not_far(dtype, seed):
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(2, 40)), int(rng.integers(40, 600)))
    exact = rng.standard_normal(shape) * rng.gamma(1.0, size=(shape[0], 1)) * 10
    kept = torch.from_numpy(exact).to(dtype)
    rounding = np.linalg.norm(exact - kept.double().numpy(), 2)
    assert rounding <= noise_level(kept) <= 2.5 * rounding + 1e-12


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("seed", range(4))
def test_what_counts_survived(dtype, seed):
    """Every counted direction is above what storing changed, and spans what it did before."""
    exact = decaying(seed, last={torch.bfloat16: 0.02, torch.float16: 0.0025}[dtype])
    half = stored(exact, dtype)
    spectrum = subspace.spectrum(half)
    moved = np.linalg.norm((exact.delta() - half.delta()).numpy(), 2)
    assert spectrum.S[spectrum.rank - 1] > moved
    weyl = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}[dtype]
    A, B = (float(torch.linalg.matrix_norm(x.double())) for x in (half.A, half.B))
    tops = [float(torch.linalg.matrix_norm(x.double(), 2)) for x in (half.A, half.B)]
    by_weyl = int((weyl * (A * tops[1] + tops[0] * B) < spectrum.S).sum())
    assert spectrum.rank > by_weyl
    k = spectrum.rank
    before = np.linalg.svd(exact.delta().numpy())[2][:k].T
    gap = float(spectrum.S[k - 1])
    if k < len(spectrum.S):
        gap -= float(spectrum.S[k])
    angle = np.sin(subspace_angles(before, spectrum.V[:, :k].numpy()).max())
    assert angle <= 2 * moved / max(gap, 1e-12)  # Wedin 1972, with a safe constant


def test_duplicated_rows_are_not_counted():
    """A factor of half its rank in 16 bits has its own rank, whatever was rounded."""
    rng = np.random.default_rng(1)
    for dtype in HALVES:
        A = torch.from_numpy(rng.standard_normal((8, 300))).to(dtype)
        B = torch.from_numpy(rng.standard_normal((200, 8))).to(dtype)
        doubled = LowRankUpdate("q", torch.cat([A, A]), torch.cat([B, B], 1), 1.0)
        assert subspace.spectrum(doubled).rank == 8
        mixed = torch.from_numpy(rng.standard_normal((16, 8))) @ A.double()  # then rounded
        assert subspace.spectrum(LowRankUpdate("q", mixed.to(dtype), torch.eye(16), 1.0)).rank == 8


def test_the_gallerys_runs_keep_their_directions_in_bfloat16():
    """As casts of a file do: side in had a median of 18.5 of 64 where A and B had 64."""
    exact = subspace.load(R64)
    half = Adapter.from_updates({n: stored(u, torch.bfloat16) for n, u in exact.items()})
    ranks = {
        side: [m.numerical_rank_a for m in subspace.similarity(half, half, side=side).values()]
        for side in ("A", "B", "in")
    }
    assert set(ranks["A"]) == set(ranks["B"]) == {64}
    assert median(ranks["in"]) >= 61


def test_a_head_names_the_ranks_that_were_used():
    halves = [
        Adapter.from_updates({"q": stored(decaying(seed, r=48, last=1e-4), torch.bfloat16)})
        for seed in (0, 1)
    ]
    result = subspace.similarity(*halves, side="in")
    (one,) = result.values()
    assert one.numerical_rank_a < 48
    titles = result.table().header
    assert f"φ({one.numerical_rank_a},{one.numerical_rank_b})" in titles
    both = [
        Adapter.from_updates({**dict(half.items()), "v": decaying(seed)})
        for seed, half in enumerate(halves)
    ]
    table = subspace.similarity(*both, side="in").table()
    row = dict(zip(table.header, table.rows[0], strict=True))
    assert row["r,r"] == f"{one.numerical_rank_a},{one.numerical_rank_b}"
    assert "φ(r,r)" in row
