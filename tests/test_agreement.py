"""What two adapters share: from the first direction on, in any order, and of the rest."""

from dataclasses import replace

import numpy as np
import pytest

import subspace
from subspace.adapters import Adapter, LowRankUpdate
from subspace.findings.rank import describe_rank
from subspace.findings.similarity import describe_similarity
from subspace.measures.agreement import Overlaps, count_agreeing, count_shared, measure_rest


def overlaps(U, V):
    squares = np.square(U.T @ V)
    sure = [np.zeros(squares.shape[0]), np.zeros(squares.shape[1])]
    return Overlaps.of(squares, sure, squares.shape, len(U))


def random_pairs(d, r, n, seed=0):
    rng = np.random.default_rng(seed)
    bases = [np.linalg.qr(rng.standard_normal((d, r)))[0] for _ in range(2 * n)]
    return list(zip(bases[::2], bases[1::2], strict=True))


def adapter(U, name, seed):
    """Directions U of side in, with falling singular values."""
    import torch

    rng = np.random.default_rng(seed)
    left = np.linalg.qr(rng.standard_normal((80, U.shape[1])))[0]
    S = np.geomspace(4, 1, U.shape[1])
    A, B = (torch.from_numpy(x.copy()) for x in (S[:, None] * U.T, left))
    return Adapter.from_updates({"h.0.q": LowRankUpdate("h.0.q", A, B, 1.0)}, name=name)


def all_but_the_first(d=96, r=9):
    rng = np.random.default_rng(3)
    basis = np.linalg.qr(rng.standard_normal((d, r + 1)))[0]
    return basis[:, :r], np.concatenate([basis[:, r:], basis[:, 1:r]], axis=1)


def test_eight_of_nine_shared_directions_are_not_nothing():
    """Only the strongest differs: none agrees from the first on, and eight are shared."""
    U, V = all_but_the_first()
    one = overlaps(U, V)
    assert count_agreeing([one]) == [0]
    assert count_shared([one]) == [8]
    pair = [adapter(U, "a", 0), adapter(V, "b", 1)]
    result = subspace.similarity(*pair, side="in")
    assert (result["h.0.q"].agreeing, result["h.0.q"].shared) == (0, 8)
    first, rest, seeds = describe_similarity(result, result)
    assert "Nothing above chance" not in first
    assert "they share others above chance: a median of 8 of 9, in any order" in first
    assert "they share others above chance" in seeds
    assert "agree too" in rest
    ranked = subspace.rank(pair)
    assert (ranked["h.0.q"].replicable, ranked["h.0.q"].shared) == (0, 8)
    said = describe_rank(ranked)[0]
    assert "share others above chance, a median of 8 in any order" in said
    assert "nothing here speaks for a rank above 1" not in said


def test_spaces_that_overlap_as_a_whole_are_not_nothing():
    """Each direction leans a little, none enough alone; all of them together are beyond doubt."""
    rng = np.random.default_rng(0)
    d, r = 384, 64
    U = np.linalg.qr(rng.standard_normal((d, r)))[0]
    V = np.linalg.qr(0.2 * U @ rotation(rng, r) + rng.standard_normal((d, r)) / d**0.5)[0]
    result = subspace.similarity(adapter(U, "a", 0), adapter(V, "b", 1), side="in")
    m = result["h.0.q"]
    assert (m.agreeing, m.shared) == (0, 0)
    assert m.pvalue[-1, -1] < 1e-4
    first = describe_similarity(result, result)[0]
    assert "as whole spaces they overlap above chance in 1" in first


def rotation(rng, r):
    return np.linalg.qr(rng.standard_normal((r, r)))[0]


@pytest.mark.parametrize("seed", range(4))
def test_shared_is_never_less_than_agreeing(seed):
    rng = np.random.default_rng(seed)
    modules = []
    for U, V in random_pairs(48, 5, 12, seed):
        kept = int(rng.integers(0, 6))
        W = np.linalg.qr(np.concatenate([U[:, :kept], V], axis=1))[0][:, :5]
        modules.append(overlaps(U, W))
    agreeing, shared = count_agreeing(modules), count_shared(modules)
    assert all(a <= s for a, s in zip(agreeing, shared, strict=True))
    assert any(shared)


@pytest.mark.parametrize(("d", "r"), [(32, 4), (32, 9), (96, 8)])
def test_what_is_said_of_the_rest_has_its_level(d, r):
    """Of random pairs in one module one in a hundred is called different from chance, no more.

    At d = 32, r = 4 a threshold on the excess alone called 18 % of them "agree in part".
    """
    n = 3000
    p = np.array([measure_rest(overlaps(U, V), 0)[1] for U, V in random_pairs(d, r, n, seed=7)])
    for level in (0.05, 0.01):
        assert np.mean(p <= level) <= level + 4.5 * np.sqrt(level / n)
    assert np.mean(p <= 0.5) > 0.3


def test_the_rest_is_the_mean_share_of_what_is_left():
    (U, V), *_ = random_pairs(30, 6, 1)
    one = overlaps(U, V)
    share, p = measure_rest(one, 2)
    assert share == pytest.approx(np.square(U[:, 2:].T @ V).sum(1).mean())
    assert 0 <= p <= 1
    assert all(np.isnan(measure_rest(one, 6)))
    assert all(np.isnan(measure_rest(one, None)))


def test_a_sign_is_not_seen_and_that_is_said():
    """dW and -dW span one space: phi is 1, and a merge of the two is nothing."""
    one = adapter(all_but_the_first()[0], "a", 0)
    update = one["h.0.q"]
    other = Adapter.from_updates({"h.0.q": replace(update, B=-update.B)}, name="b")
    result = subspace.similarity(one, other, side="in")
    assert result["h.0.q"].phi[-1, -1] == pytest.approx(1.0)
    assert "φ does not see a sign" in describe_similarity(result, result)[1]
    U, V = all_but_the_first()
    far = subspace.similarity(adapter(U, "a", 0), adapter(V, "b", 1), side="in")
    assert "a sign" not in describe_similarity(far, far)[1]
