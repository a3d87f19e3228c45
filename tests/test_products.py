"""LoHa and LoKr as factors: their product is the entrywise or Kronecker product, in all layouts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from subspace.adapters.factors import hadamard, kronecker, products
from subspace.adapters.source import AdapterSource
from subspace.errors import FormatError
from subspace.tensorfiles import TensorFile, TensorHeader

SIDES = st.integers(1, 7)
RANKS = st.integers(1, 4)
KERNELS = st.sampled_from([(), (3,), (3, 2), (2, 1, 2)])
SEEDS = st.integers(0, 2**31)


def source_of(tensors):
    headers = {
        name: TensorHeader(tuple(t.shape), str(t.dtype).removeprefix("torch."))
        for name, t in tensors.items()
    }
    source = AdapterSource(
        name="run", path=Path("run"), weights=Path("w.safetensors"), config=None, where="w"
    )
    source.__dict__["tensors"] = TensorFile(
        path=Path("w.safetensors"), headers=headers, metadata={}, _read=tensors.__getitem__
    )
    return source


def extent_of(kind, tensors):
    return kind.read_extent(source_of(tensors), "m", {name: name for name in tensors})


def made(kind, tensors):
    """Return (B, A), held to what the headers said of them."""
    extent = extent_of(kind, tensors)
    factors = kind.build_factors({name: name for name in tensors})(tensors)
    B, A = factors.multiplied() if kind is kronecker else factors
    assert (B.shape[0], A.shape[1]) == extent.shape
    assert B.shape[1] == A.shape[0] == extent.rank <= min(extent.shape)
    assert B.dtype == A.dtype == torch.float64
    assert set(extent.tensors) == set(tensors)
    return B, A


def random(seed, **shapes):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=generator, dtype=torch.float64)
        for name, shape in shapes.items()
    }


def close(got, wanted):
    torch.testing.assert_close(got, wanted.reshape(got.shape), rtol=1e-12, atol=1e-12)


@given(d_out=SIDES, d_in=SIDES, r=RANKS, seed=SEEDS)
def test_loha_is_the_entrywise_product(d_out, d_in, r, seed):
    held = random(
        seed, hada_w1_a=(d_out, r), hada_w1_b=(r, d_in), hada_w2_a=(d_out, r), hada_w2_b=(r, d_in)
    )
    B, A = made(hadamard, held)
    one, two = (held[f"hada_w{n}_a"] @ held[f"hada_w{n}_b"] for n in "12")
    close(B @ A, one * two)


@given(d_out=SIDES, d_in=SIDES, r=RANKS, kernel=KERNELS.filter(len), seed=SEEDS)
def test_loha_with_cores(d_out, d_in, r, kernel, seed):
    shapes = {}
    for n in "12":
        shapes |= {f"hada_t{n}": (r, r, *kernel)}
        shapes |= {f"hada_w{n}_a": (r, d_out), f"hada_w{n}_b": (r, d_in)}
    held = random(seed, **shapes)
    B, A = made(hadamard, held)
    one, two = (
        torch.einsum(
            "ij...,ip,jq->pq...", held[f"hada_t{n}"], held[f"hada_w{n}_a"], held[f"hada_w{n}_b"]
        )
        for n in "12"
    )
    close(B @ A, one * two)


def test_loha_of_low_rank_has_rank_r_squared_and_no_dense_matrix():
    held = random(0, hada_w1_a=(50, 3), hada_w1_b=(3, 40), hada_w2_a=(50, 3), hada_w2_b=(3, 40))
    assert made(hadamard, held)[0].shape == (50, 9)


def kron_oracle(one, two):
    """Kronecker over channels (a, b) and (k, n), the kernel innermost, entry by entry."""
    return torch.einsum("ab,knx->akbnx", one, two).reshape(
        one.shape[0] * two.shape[0], one.shape[1] * two.shape[1] * two.shape[2]
    )


@given(
    a=SIDES, b=SIDES, k=SIDES, n=SIDES, r=RANKS, kernel=KERNELS, seed=SEEDS,
    first=st.sampled_from(["full", "factors"]),
    second=st.sampled_from(["full", "factors", "core"]),
)  # fmt: skip
def test_lokr_is_the_kronecker_product(a, b, k, n, r, kernel, seed, first, second):
    cells = torch.Size(kernel).numel()
    kernel = kernel or ((1, 1) if second == "core" else ())
    shapes = {"lokr_w1": (a, b)} if first == "full" else {"lokr_w1_a": (a, r), "lokr_w1_b": (r, b)}
    shapes |= {
        "full": {"lokr_w2": (k, n, *kernel)},
        "factors": {"lokr_w2_a": (k, r), "lokr_w2_b": (r, n * cells)},
        "core": {"lokr_t2": (r, r, *kernel), "lokr_w2_a": (r, k), "lokr_w2_b": (r, n)},
    }[second]
    held = random(seed, **shapes)
    B, A = made(kronecker, held)
    one = held["lokr_w1"] if first == "full" else held["lokr_w1_a"] @ held["lokr_w1_b"]
    if second == "full":
        two = held["lokr_w2"].reshape(k, n, -1)
    elif second == "factors":
        two = (held["lokr_w2_a"] @ held["lokr_w2_b"]).reshape(k, n, -1)
    else:
        two = torch.einsum(
            "ij...,ip,jq->pq...", held["lokr_t2"], held["lokr_w2_a"], held["lokr_w2_b"]
        ).reshape(k, n, -1)
    close(B @ A, kron_oracle(one, two))
    if cells == 1:
        close(B @ A, torch.kron(one, two[:, :, 0]))


def test_lokr_has_the_products_of_its_parts_singular_values():
    held = random(3, lokr_w1=(4, 6), lokr_w2_a=(9, 2), lokr_w2_b=(2, 5))
    B, A = made(kronecker, held)
    assert B.shape == (36, 8)
    svdvals = torch.linalg.svdvals
    two = svdvals(held["lokr_w2_a"] @ held["lokr_w2_b"])[:2]
    wanted = torch.outer(svdvals(held["lokr_w1"]), two).flatten().sort(descending=True).values
    close(svdvals(B @ A)[:8], wanted)


def test_which_r_alpha_is_divided_by():
    full, pair = {"lokr_w1": (2, 3), "lokr_w2": (4, 5)}, {"lokr_w2_a": (4, 2), "lokr_w2_b": (2, 5)}
    assert extent_of(kronecker, random(0, **full)).dim is None
    assert extent_of(kronecker, random(0, lokr_w1=(2, 3), **pair)).dim == 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_products_of_stored_numbers_are_exact(dtype):
    """A product of two stored numbers has no more digits than float64 holds."""
    held = random(0, hada_w1_a=(50, 3), hada_w1_b=(3, 40), hada_w2_a=(50, 3), hada_w2_b=(3, 40))
    held = {name: tensor.to(dtype) for name, tensor in held.items()}
    B, _ = made(hadamard, held)
    assert float(B[7, 5]) == float(held["hada_w1_a"][7, 1]) * float(held["hada_w2_a"][7, 2])


LOHA = {"hada_w1_a": (6, 2), "hada_w1_b": (2, 5), "hada_w2_a": (6, 2), "hada_w2_b": (2, 5)}
CORES = {"hada_t1": (2, 2, 3, 3), "hada_t2": (2, 2, 3, 3)}
LOKR = {"lokr_w1": (2, 3), "lokr_w2_a": (4, 2), "lokr_w2_b": (2, 5)}


@pytest.mark.parametrize(
    ("kind", "shapes", "words"),
    [
        (hadamard, LOHA | {"hada_w2_b": None}, "has no partner: module 'm' lacks hada_w2_b"),
        (hadamard, LOHA | {"hada_w2_a": (6, 3)}, r"'hada_w2_a' \(6, 3\) does not fit .* \(6, 2\)"),
        (hadamard, LOHA | {"hada_w1_b": (2, 5, 1)}, "their kernels differ"),
        (hadamard, LOHA | CORES | {"hada_w1_b": (2, 5, 1)}, "a shape that no factor has"),
        (hadamard, LOHA | {"hada_w1_b": (0, 5)}, "a shape that no factor has"),
        (hadamard, LOHA | CORES, "does not fit"),
        (hadamard, LOHA | {"hada_t1": (2, 2, 3, 3)}, "lacks hada_t2"),
        (
            hadamard,
            {n: s[::-1] if n.endswith("a") else s for n, s in LOHA.items()}
            | CORES
            | {"hada_t2": (2, 2, 3, 1)},
            r"'hada_t2' \(2, 2, 3, 1\) is not the core of factors of rank 2",
        ),
        (kronecker, LOKR | {"lokr_w1": None}, "has no partner: module 'm' lacks lokr_w1"),
        (kronecker, LOKR | {"lokr_w2_a": None}, "lacks lokr_w2_a"),
        (kronecker, LOKR | {"lokr_w2": (4, 5)}, "a matrix and factors for the same place"),
        (kronecker, LOKR | {"lokr_w2_b": (3, 5)}, r"'lokr_w2_b' \(3, 5\) do not multiply"),
        (kronecker, LOKR | {"lokr_t2": (2, 2, 3, 3)}, r"with .*'lokr_t2' .* do not multiply"),
        (
            kronecker,
            {"lokr_w1_a": (3, 1), "lokr_w1_b": (1, 3)} | LOKR | {"lokr_w1": None},
            "have different ranks, 1 and 2",
        ),
    ],
)
def test_what_does_not_fit_is_named(kind, shapes, words):
    tensors = random(0, **{name: shape for name, shape in shapes.items() if shape is not None})
    with pytest.raises(FormatError, match=words) as raised:
        extent_of(kind, tensors)
    assert "w.safetensors" in str(raised.value)


@pytest.mark.parametrize(
    ("kind", "shapes"),
    [
        (kronecker, {"lokr_w1": (2**7, 2**7), "lokr_w2": (2**7, 2**7)}),
        (hadamard, {n: (2**9, 2**5)[:: 1 if "a" in n[4:] else -1] for n in LOHA}),
        (
            kronecker,
            {"lokr_w1": (1, 1), "lokr_t2": (64, 64), "lokr_w2_a": (64, 1), "lokr_w2_b": (64, 9)},
        ),
    ],
)
def test_a_product_that_is_too_large_is_refused_before_it_is_made(kind, shapes, monkeypatch):
    if "lokr_t2" in shapes:
        shapes = shapes | {"lokr_t2": (64, 64, 3, 3)}
    monkeypatch.setattr(products, "LARGEST", 2**12)
    with pytest.raises(FormatError, match=r"at most 4_096 are laid out; take it out of the file"):
        extent_of(kind, {name: torch.empty(shape) for name, shape in shapes.items()})


def test_integers_are_no_factors():
    tensors = random(0, **LOHA)
    tensors["hada_w1_a"] = tensors["hada_w1_a"].to(torch.int8)
    with pytest.raises(FormatError, match="holds int8"):
        extent_of(hadamard, tensors)
