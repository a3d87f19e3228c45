"""Spectra of Kronecker products out of their blocks: against dense SVDs and the general way."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import subspace
from subspace import LowRankUpdate
from subspace.adapters.factors.kronecker import Kronecker
from subspace.errors import NonFiniteError
from subspace.spectra import kronecker, solve, spectrum
from tests.support.oracle import phi as phi_by_definition

SIDES = st.integers(1, 6)
SEEDS = st.integers(0, 2**32 - 1)


def product(seed, first, second, *, scale=0.7, name="q", rounding=2 * 2.0**-24):
    """An update whose blocks are (p, s) @ (s, q) of the given (p, s, q), in float64."""
    generator = torch.Generator().manual_seed(seed)

    def block(p, s, q):
        s = min(p, s, q)
        return tuple(
            torch.randn(shape, generator=generator, dtype=torch.float64)
            for shape in ((p, s), (s, q))
        )

    blocks = (block(*first), block(*second))
    B, A = Kronecker(*blocks).multiplied()
    return LowRankUpdate(name, A, B, scale, rounding=rounding, blocks=blocks)


def by_its_factors(update):
    return replace(update, blocks=None)


@given(
    p=SIDES, q=SIDES, m=SIDES, n=SIDES, s=SIDES, t=SIDES, seed=SEEDS, sign=st.sampled_from([1, -1])
)
def test_it_is_the_dense_svd(p, q, m, n, s, t, seed, sign):
    update = product(seed, (p, s, q), (m, t, n), scale=0.7 * sign)
    found = spectrum(update)
    dense = update.delta()
    wanted = torch.linalg.svdvals(dense)
    torch.testing.assert_close(found.S, wanted[: len(found.S)], rtol=0, atol=1e-12 * wanted[0])
    assert found.error < 1e-12 * wanted[0]
    # Directions are orthonormal, and with S they are the update, a negative scale's sign and all.
    for U in (found.U, found.V):
        torch.testing.assert_close(U.T @ U, torch.eye(U.shape[1], dtype=U.dtype))
    torch.testing.assert_close(found.U * found.S @ found.V.T, dense, rtol=0, atol=1e-12 * wanted[0])


@given(p=SIDES, q=SIDES, m=SIDES, n=SIDES, s=SIDES, t=SIDES, seed=SEEDS)
@pytest.mark.parametrize("side", ["in", "out"])
def test_phi_is_that_of_the_dense_directions(side, p, q, m, n, s, t, seed):
    pair = [product(seed + by, (p, width, q), (m, t, n)) for by, width in ((0, s), (1, 1))]
    solved = solve([pair], side)[0]
    U, V = (torch.linalg.svd(u.delta().T if side == "in" else u.delta())[0] for u in pair)
    (i, j) = (len(d.S) for d in solved.directions)
    phi = solved.overlap(0, 1).square().cumsum(0).cumsum(1)
    wanted = (U[:, :i].T @ V[:, :j]).square().cumsum(0).cumsum(1)
    sure = [torch.nan_to_num(d.angle_errors(), posinf=9.0) < 1e-9 for d in solved.directions]
    cells = sure[0][:, None] & sure[1]
    torch.testing.assert_close(phi[cells], wanted[cells], rtol=0, atol=1e-8)


def test_what_is_known_of_it_is_what_its_factors_give():
    pair = [product(seed, (4, 3, 5), (6, 4, 7)) for seed in (1, 2)]
    for side in ("in", "out"):
        direct, factored = (
            solve([updates], side)[0] for updates in (pair, [by_its_factors(u) for u in pair])
        )
        for one, other in zip(
            (*direct.directions, *direct.partners),
            (*factored.directions, *factored.partners),
            strict=True,
        ):
            assert one.dimension == other.dimension
            assert one.rank == other.rank == 12
            torch.testing.assert_close(one.S, other.S, rtol=1e-12, atol=0)
            torch.testing.assert_close(one.form() @ one.form().T, other.form() @ other.form().T)
            # Both bound the rounding of the same stored numbers; the blocks' bound is the closer.
            assert 0 < one.level <= other.level
        torch.testing.assert_close(
            direct.overlap(0, 1).abs(), factored.overlap(0, 1).abs(), rtol=0, atol=1e-9
        )


def test_nothing_of_the_modules_size_is_decomposed(monkeypatch):
    widest = []
    honest = torch.linalg.svd
    monkeypatch.setattr(
        torch.linalg, "svd", lambda M, **how: widest.append(max(M.shape[-2:])) or honest(M, **how)
    )
    pair = [product(seed, (8, 8, 8), (10, 9, 10)) for seed in (1, 2)]
    solve([pair], "in")
    assert max(widest) == 9  # of a rank of 72


@pytest.mark.parametrize(
    "other",
    [product(3, (6, 2, 5), (4, 2, 7)), by_its_factors(product(3, (4, 2, 5), (6, 2, 7)))],
    ids=["blocks of other sizes", "a LoRA"],
)
def test_beside_another_kind_of_update_the_factors_are_solved(other):
    one = product(1, (4, 2, 5), (6, 2, 7))
    assert not kronecker.alike([one, other])
    solved = solve([[one, other]], "out")[0]
    U, V = (torch.linalg.svd(u.delta())[0][:, :4] for u in (one, other))
    torch.testing.assert_close(solved.overlap(0, 1).abs(), (U.T @ V).abs(), rtol=0, atol=1e-9)


def test_a_part_of_a_fused_product_has_its_own_spectrum():
    fused = product(1, (4, 2, 3), (6, 2, 4), name="qkv_proj")  # 24 rows
    apart = {
        f"{part}_proj": LowRankUpdate(f"{part}_proj", torch.ones(1, 12), torch.ones(8, 1), 1.0)
        for part in "qkv"
    }
    made = [subspace.Adapter.from_updates(held, name="x") for held in (apart, {"qkv_proj": fused})]
    split = subspace.align(made)[1]
    for n, part in enumerate("qkv"):
        wanted = torch.linalg.svdvals(fused.delta()[8 * n : 8 * (n + 1)])[:4]
        found = spectrum(split[f"{part}_proj"])
        torch.testing.assert_close(found.S, wanted, rtol=0, atol=1e-12 * float(wanted[0]))


def test_rank_is_counted_against_what_was_stored():
    update = product(5, (6, 3, 6), (7, 2, 7))
    (B, A), second = update.blocks
    B = B.clone()
    B[:, 2] = B[:, 0] + 1e-9 * B[:, 2]  # of rank 3 by float32's rounding alone
    blocks = ((B, A), second)
    B, A = Kronecker(*blocks).multiplied()
    update = replace(update, A=A, B=B, blocks=blocks)
    assert spectrum(update).rank == 4
    assert spectrum(replace(update, rounding=0.0)).rank == 6


def test_an_update_that_was_cut_cannot_keep_its_blocks():
    update = product(1, (4, 2, 4), (3, 2, 3))
    with pytest.raises(ValueError, match=r"blocks of \(12, 12\) for an update of \(5, 12\)"):
        replace(update, B=update.B[:5])


def test_zero_and_not_finite():
    zero = product(1, (3, 2, 3), (4, 2, 4), scale=0.0)
    assert (spectrum(zero).rank, spectrum(zero).method) == (0, "none")
    update = product(1, (3, 2, 3), (4, 2, 4))
    update.A[1, 2] = math.nan
    with pytest.raises(NonFiniteError, match="1 of 48 entries of A in module 'q'"):
        spectrum(update)


def test_products_of_any_size_neither_overflow_nor_vanish():
    for size in (1e-150, 1e150):
        update = product(2, (3, 2, 3), (4, 2, 4))
        (B1, A1), (B2, A2) = update.blocks
        blocks = ((B1 * size, A1), (B2 / size, A2))
        B, A = Kronecker(*blocks).multiplied()
        scaled = replace(update, A=A, B=B, blocks=blocks)
        torch.testing.assert_close(spectrum(scaled).S, spectrum(update).S, rtol=1e-12, atol=0)


def test_lokr_of_peft_takes_this_way(tmp_path):
    from peft import LoKrConfig, get_peft_model

    torch.manual_seed(0)
    found = []
    for seed in (1, 2):
        model = torch.nn.Sequential(torch.nn.Linear(12, 20))
        config = LoKrConfig(r=2, alpha=3, target_modules=["0"], decompose_both=True)
        peft_model = get_peft_model(model, config)
        torch.manual_seed(seed)
        for p in peft_model.parameters():
            if p.requires_grad:
                torch.nn.init.normal_(p)
        peft_model.save_pretrained(tmp_path / str(seed))
        found.append(subspace.load(tmp_path / str(seed)))
    assert kronecker.alike([adapter["0"] for adapter in found])
    phi = subspace.similarity(*found, side="in").modules["0"].phi
    U, V = (torch.linalg.svd(a["0"].delta().T)[0].numpy() for a in found)
    i, j = phi.shape
    assert abs(phi - phi_by_definition(U[:, :i], V[:, :j])).max() < 1e-9
