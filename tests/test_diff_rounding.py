"""What storing W in few bits hides of a difference: derived in diff/rounding.py, tried here.

The base is random, of even size or not; the update is of known rank. Storing is torch's own cast.
"""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import subspace
from subspace import linalg
from subspace.measures.diff.rounding import coarsest
from subspace.measures.diff.stored_pair import read_pair
from subspace.spectra.rounding import spacing
from tests.support.checkpoints import low_rank, normal, write
from tests.support.memory import only_krylov

CPU = torch.device("cpu")
NARROW = [torch.bfloat16, torch.float16]
KINDS = ("even", "heavy", "rows", "columns")


def weights(kind, m, n, seed):
    """Weights as models have them, and worse: a few large ones, rows or columns."""
    W = normal(m, n, seed=seed)
    if kind == "heavy":
        return W / normal(m, n, seed=seed + 90, size=1).abs().clamp(min=0.05)
    if kind == "rows":
        return W * normal(m, 1, seed=seed + 90, size=1).exp()
    if kind == "columns":
        W[:, :2] *= 20
    return W


def counted(base, tuned):
    """What `diff` counts, and the singular values that it was given."""
    pair = read_pair(base, tuned, CPU)
    S = torch.linalg.svdvals(tuned.double() - base.double())
    real, level = pair.rounding.count(S.tolist(), [1e-13 * float(S[0])] * len(S), pair.norm)
    return real, level, S, pair


@given(st.floats(allow_nan=False, allow_infinity=False, width=32))
def test_spacing_is_numpys(x):
    for grid, kind in ((torch.float32, np.float32), (torch.float16, np.float16)):
        stored = kind(np.clip(x, -6e4, 6e4))
        found = float(spacing(torch.tensor([float(stored)], dtype=torch.float64), grid)[0])
        assert found == float(np.spacing(abs(stored)))


def test_spacing_of_bfloat16_and_float64():
    one = torch.tensor([1.0, 1.99, 2.0, 0.75], dtype=torch.float64)
    assert spacing(one, torch.bfloat16).tolist() == [2**-7, 2**-7, 2**-6, 2**-8]
    assert spacing(one, torch.float64).tolist() == np.spacing(one.numpy()).tolist()


@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_numbers_of_few_bits_are_known_in_any_dtype(dtype):
    W = normal(50, 30).to(dtype)
    for wide in (dtype, torch.float32, torch.float64):
        assert coarsest(W.to(wide)) == dtype
    assert coarsest(normal(300, 30).float()) == torch.float32
    late = W.float()
    late[-1, -1] = 0.1  # only the last panel tells
    assert coarsest(late) == torch.float32


@pytest.mark.parametrize("dtype", NARROW, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_the_norm_of_what_was_rounded_away(dtype, kind):
    """Storing alone makes a difference of about this norm, and no direction of it is real."""
    for seed, shape in enumerate(((200, 200), (60, 400), (400, 60))):
        W = weights(kind, *shape, seed=seed).float()
        real, level, S, pair = counted(W, W.to(dtype))
        close = 0.1 if kind == "columns" else 0.03  # two columns of 200 entries are most of it
        assert pair.norm == pytest.approx(pair.rounding.norm, rel=close)
        assert real == 0
        assert S[0] < level
        # Not a bound that says nothing: Weyl's with the Frobenius norm is twice as high and more.
        if kind == "even":
            assert level < 1.7 * S[0]
            assert level < 0.25 * math.sqrt(3) * pair.rounding.norm


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (2, 2), (3, 500), (24, 24)])
@pytest.mark.parametrize("both", [False, True])
def test_rounding_alone_is_never_real(shape, both):
    """Of hundreds of matrices that differ in nothing but how they were stored."""
    for seed in range(150):
        W = normal(*shape, seed=seed)
        base = W.to(torch.float16 if both else torch.float32)
        assert counted(base, W.to(torch.bfloat16))[0] == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("start", ["stored base", "exact base", "both rounded"])
@pytest.mark.parametrize("rank", [1, 4])
def test_no_more_is_counted_than_was_learned(kind, start, rank):
    """Whatever its size against a spacing, and whether or not it began on the stored grid."""
    spread = 0.02 * 2**-8
    for size in (0.02, 0.1, 0.3, 0.5, 1, 2, 4, 16):
        for seed, (m, n) in enumerate(((96, 96), (48, 200))):
            W = weights(kind, m, n, seed=seed)
            delta = normal(m, rank, seed=seed + 1, size=1) @ normal(rank, n, seed=seed + 2, size=1)
            delta *= size * spread / math.sqrt(rank)
            base = W.float() if start == "exact base" else W.bfloat16()
            tuned = ((W if start == "both rounded" else base.double()) + delta).bfloat16()
            if not torch.equal(base.double(), tuned.double()):
                assert counted(base, tuned)[0] <= rank, size


@pytest.mark.parametrize("start", ["stored base", "exact base", "both rounded"])
def test_what_stands_out_is_counted(start):
    """A direction is real from about 1.3 times what rounding gives at most."""
    m, n, rank = 128, 160, 3
    W = normal(m, n)
    base = W.float() if start == "exact base" else W.bfloat16()
    own = W if start == "both rounded" else base.double()
    level = counted(base, (own + low_rank(m, n, rank)).bfloat16())[1]
    for times, found in ((1.4, rank), (0.2, 0)):
        # Of what is found the weakest is at `times`, of what is not found the strongest.
        delta = low_rank(m, n, rank, size=times * level * (rank if found else 1))
        assert counted(base, (own + delta).bfloat16())[0] == found


def test_a_base_that_was_the_start_is_exact():
    """Loaded in bfloat16, tuned and saved in float32: what was learned is all there, if small."""
    W, delta = normal(96, 120), low_rank(96, 120, 5, size=3e-4)
    base = W.bfloat16()
    real, level, S, pair = counted(base, (base.double() + delta).float())
    assert real == 5
    assert level < S[4] < S[0] < pair.rounding.level()  # which the base's rounding would hide
    # Trained from the unrounded base instead, the same files differ by its rounding too.
    assert counted(base, (W + delta).float())[0] == 0


def test_tokens_that_no_text_had_round_nothing():
    """Rows in which nothing changed are no noise: a module tuned in few rows keeps its digits."""
    W = normal(400, 40).bfloat16()
    few = W.clone()
    few[:20] = (W[:20].double() + low_rank(20, 40, 1, size=0.01)).bfloat16()
    _, level, _, pair = counted(W, few)
    whole = counted(W, (W.double() + low_rank(400, 40, 1, size=0.01)).bfloat16())
    assert pair.rounding.norm < 0.3 * whole[3].rounding.norm
    assert level < whole[1]


def test_a_threshold_is_no_noise():
    """The limit that the derivation names: entries of one size, below a spacing, on the grid."""
    m, n = 96, 200
    signs = [torch.sign(normal(m, 3, seed=1)), torch.sign(normal(3, n, seed=2))]
    delta = signs[0] @ signs[1]  # entries of size 1 and 3 alone
    base = normal(m, n).bfloat16()
    tuned = (base.double() + delta * 0.02 * 2**-8 / math.sqrt(3)).bfloat16()
    assert counted(base, tuned)[0] == 4  # the product of all three signs is a direction too


@settings(max_examples=40)
@given(
    shape=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    dtypes=st.tuples(*[st.sampled_from([torch.float64, torch.float32, *NARROW])] * 2),
    sizes=st.tuples(*[st.sampled_from([0.0, 1e-30, 1e-3, 1.0, 1e4])] * 2),
    seed=st.integers(0, 1000),
)
def test_whatever_is_stored(shape, dtypes, sizes, seed):
    """Numbers are finite, ranks are counts, and the level is below the sure bound."""
    W = normal(*shape, seed=seed, size=sizes[0])
    base, tuned = W.to(dtypes[0]), (W + normal(*shape, seed=seed + 1, size=sizes[1])).to(dtypes[1])
    real, level, S, pair = counted(base, tuned)
    assert 0 <= real <= len(S)
    assert math.isfinite(level)
    assert 0 <= level <= pair.rounding.level() * (1 + 1e-12)
    stored = zip((base, tuned), pair.grids, strict=True)
    half = [float((spacing(W.double(), grid) / 2).square().sum()) for W, grid in stored]
    assert level <= math.sqrt(half[0]) + math.sqrt(half[1]) + 1e-300


@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_it_is_said_of_every_module(tmp_path, dtype):
    W = normal(40, 50)
    base = write(tmp_path / "base", {"q.weight": W, "k.weight": W})
    after = {"q.weight": W.to(dtype), "k.weight": (W + low_rank(40, 50, 2, size=1)).to(dtype)}
    stored = write(tmp_path / "stored", after, dtype=None)
    result = subspace.diff(base, stored, rank=4)
    assert (result["q"].real, result["q"].real_text) == (0, "0")
    assert "no direction is beyond what storing the numbers rounds away" in result["q"].note
    assert (result["k"].real, result["k"].more) == (2, False)
    assert "2 of 4 directions are beyond the rounding" in result["k"].note
    wide = write(tmp_path / "wide", {n: t.float() for n, t in after.items()})
    again = subspace.diff(base, wide, rank=4)
    name = str(dtype).removeprefix("torch.")
    for module in ("q", "k"):
        assert again[module].real == result[module].real
        assert again[module].level == result[module].level
        assert f"the tuned numbers are stored as float32 and are all of {name}" in (
            again[module].note
        )
    # And so an adapter's directions that are rounding are none to whoever compares it.
    assert subspace.spectrum(result.adapter["q"]).rank == 0
    assert subspace.spectrum(result.adapter["k"]).rank == 2


def test_when_all_that_were_asked_for_are_real_there_may_be_more(tmp_path, monkeypatch):

    only_krylov(monkeypatch)
    W = normal(60, 60)
    base = write(tmp_path / "base", {"q.weight": W})
    tuned = write(tmp_path / "tuned", {"q.weight": W + low_rank(60, 60, 9)}, dtype=torch.float32)
    found = subspace.diff(base, tuned, rank=4)["q"]
    assert (found.real, found.more, found.real_text) == (4, True, "≥4")


def test_panels_do_not_matter(monkeypatch):
    base = normal(300, 40).bfloat16()
    tuned = (base.double() + low_rank(300, 40, 2)).bfloat16()
    whole = counted(base, tuned)
    monkeypatch.setattr(linalg.products, "_ROWS", 7)
    parts = counted(base, tuned)
    assert parts[0] == whole[0]
    assert parts[1] == pytest.approx(whole[1], rel=1e-12)
    assert parts[3].norm == pytest.approx(whole[3].norm, rel=1e-12)
