"""How often chance alone gets a p-value below a level, and how far phi is from its exact value.

Both are simulated with independent random directions of Haar's measure, which is each null's own
assumption: what is measured is the formula, not whether an adapter is random.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from subspace import chance
from subspace.chance.cosine import cosine_pvalue, cosine_variances
from subspace.measures.agreement import Overlaps, measure_rest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

LEVELS = (0.05, 0.01, 0.001)
_CHUNK = 2000
_DIGITS = 60


class Null(NamedTuple):
    """One p-value under its own null."""

    name: str
    draw: Callable[[np.random.Generator, int], Array]  # so many p-values
    share: float = 1.0  # of the draws: what is slow gets fewer


def haar(rng: np.random.Generator, n: int, d: int, r: int) -> Array:
    """Return n random d x r matrices with orthonormal columns."""
    Q, R = np.linalg.qr(rng.standard_normal((n, d, r)))
    # LAPACK chooses the signs of R by the entries: without them Q is not Haar's.
    haars: Array = Q * np.sign(np.diagonal(R, axis1=1, axis2=2))[:, None, :]
    return haars


def nulls() -> list[Null]:
    """Return every p-value that a verb prints, at sizes small and large."""

    def phi(i: int, j: int, d: int) -> Null:
        def draw(rng: np.random.Generator, n: int) -> Array:
            squares = np.square(haar(rng, n, d, min(i, j))[:, : max(i, j)]).sum((1, 2))
            return chance.phi_pvalue(squares / min(i, j), i, j, d)

        return Null(f"φ({i},{j}), d = {d}", draw, 0.1 if d > 100 else 1.0)

    def single(r: int, d: int) -> Null:
        def draw(rng: np.random.Generator, n: int) -> Array:
            energy = np.square(haar(rng, n, d, 1)[:, :r, 0]).sum(1)
            return chance.overlap_pvalue(energy, r, d)

        return Null(f"one direction within {r}, d = {d}", draw)

    def rest(r: int, d: int) -> Null:
        def draw(rng: np.random.Generator, n: int) -> Array:
            squares = np.square(haar(rng, n, d, r)[:, :r])
            ones = [Overlaps(d, r, r, s.sum(1), s.sum(0)) for s in squares]
            return np.array([measure_rest(one, 0)[1] for one in ones])

        return Null(f"the rest, r = {r}, d = {d}, two-sided", draw, 0.02)

    def energy(k: int, d: int, p: Array, kind: str) -> Null:
        def draw(rng: np.random.Generator, n: int) -> Array:
            inside = (np.square(haar(rng, n, d, len(p))[:, :k]).sum(1) * p).sum(1)
            c = float(p @ p)
            return np.array([chance.energy_two_sided(float(x), k, d, c) for x in inside])

        return Null(f"energy in {k} of {d}, {kind}, two-sided", draw, 0.1)

    def cosine(shape: tuple[int, int], S: Array, kind: str) -> Null:
        def draw(rng: np.random.Generator, n: int) -> Array:
            r = len(S)
            P, Q = (haar(rng, n, d, r)[:, :r] for d in shape)
            values = np.einsum("j,njk,njk,k->n", S, P, Q, S) / float(S @ S)
            variances = cosine_variances(S, S, *shape)
            return np.array([cosine_pvalue(float(x), variances) for x in values])

        return Null(f"cosine of updates, {shape[0]} x {shape[1]}, {kind}, two-sided", draw, 0.05)

    equal, steep = np.full(8, 1 / 8), np.array([0.9, *[0.1 / 7] * 7])
    return [
        *(phi(*size) for size in ((1, 1, 384), (8, 8, 384), (8, 64, 384), (64, 64, 384))),
        *(phi(*size) for size in ((8, 8, 64), (4, 4, 24), (4, 4, 8), (3, 3, 6), (2, 2, 4))),
        single(64, 384),
        single(4, 24),
        rest(8, 96),
        rest(4, 32),
        energy(8, 60, equal, "eight equal values"),
        energy(8, 60, steep, "one of nine tenths"),
        cosine((64, 64), np.ones(8), "eight equal values"),
        cosine((64, 64), np.geomspace(1, 0.1, 8), "falling values"),
        cosine((16, 16), np.ones(1), "rank one"),
    ]


def measure_rates(draws: int, seed: int = 0) -> list[dict[str, Any]]:
    """Simulate the rate of every p-value at `LEVELS`, with the standard error of the simulation."""
    rows = []
    for null in nulls():
        rng = np.random.default_rng(seed)
        n = max(_CHUNK, int(draws * null.share))
        parts = [null.draw(rng, min(_CHUNK, n - at)) for at in range(0, n, _CHUNK)]
        p = np.concatenate(parts)
        rates = [float(np.mean(p <= level)) for level in LEVELS]
        errors = [math.sqrt(rate * (1 - rate) / n) for rate in rates]
        rows.append({"name": null.name, "draws": n, "rates": rates, "errors": errors})
    return rows


def measure_accuracy(cases: int, seed: int = 0) -> list[dict[str, Any]]:
    """Hold phi of side A against arithmetic of 60 digits: the largest error over its own bound."""
    import torch

    import subspace
    from subspace.adapters import Adapter, LowRankUpdate

    def adapter(A: torch.Tensor) -> Adapter:
        return Adapter.from_updates({"q": LowRankUpdate("q", A, torch.ones(2, len(A)).to(A), 1.0)})

    rng = np.random.default_rng(seed)
    rows = []
    for kind in ("Gaussian", "of one sign", "condition up to 1e7", "r = d"):
        for dtype in (torch.float64, torch.float32):
            cells, worst, ratio = 0, 0.0, 0.0
            for a, b in _pairs(rng, kind, cases):
                pair = [torch.from_numpy(x).to(dtype) for x in (a, b)]
                m = subspace.similarity(*map(adapter, pair), side="A")["q"]
                exact = exact_phi(*(x.double().numpy() for x in pair))
                sure = np.isfinite(m.phi)
                off = np.abs(exact - m.phi.astype(object))[sure].astype(float)
                cells += int(sure.sum())
                worst = max(worst, float(off.max(initial=0.0)))
                ratio = max(ratio, float((off / m.error[sure]).max(initial=0.0)))
            name = str(dtype).removeprefix("torch.")
            rows.append({"name": f"{kind}, {name}", "cells": cells, "error": worst, "ratio": ratio})
    return rows


def _pairs(rng: np.random.Generator, kind: str, cases: int) -> Iterator[tuple[Array, Array]]:
    for _ in range(cases):
        d = int(rng.integers(2, 7 if kind == "r = d" else 40))
        yield _factor(rng, kind, d), _factor(rng, kind, d)


def _factor(rng: np.random.Generator, kind: str, d: int) -> Array:
    r = d if kind == "r = d" else int(rng.integers(1, min(d, 6) + 1))
    if kind == "of one sign":
        return np.abs(rng.standard_normal((r, d))) + rng.integers(0, 2) * 3.0
    if kind == "condition up to 1e7":
        left, right = haar(rng, 1, r, r)[0], haar(rng, 1, d, r)[0]
        return (left * np.geomspace(1, 10.0 ** -rng.uniform(0, 7), r)) @ right.T
    return rng.standard_normal((r, d))


def exact_phi(A: Array, B: Array) -> Any:  # noqa: ANN401 - an array of mpmath's numbers
    """Return phi(i, j) of the row spaces of two factors, in 60 digits, as an array of objects."""
    import mpmath

    with mpmath.workdps(_DIGITS):
        U, V = (_directions(X) for X in (A, B))
        dots = [[mpmath.fsum(x * y for x, y in zip(u, v, strict=True)) for v in V] for u in U]
        squares = np.array([[x * x for x in row] for row in dots], dtype=object)
        i, j = np.ogrid[1 : len(U) + 1, 1 : len(V) + 1]
        return squares.cumsum(0).cumsum(1) / np.minimum(i, j)


def _directions(X: Array) -> list[list[Any]]:
    """Right singular vectors, the strongest first: from the Gram, whose digits are to spare."""
    import mpmath

    M = mpmath.matrix(X.tolist())
    values, Q = mpmath.eigsy(M * M.T)
    out = []
    for k in sorted(range(len(values)), key=lambda k: -values[k]):
        column = M.T * Q[:, k]
        length = mpmath.sqrt(mpmath.fsum(x * x for x in column))
        out.append([x / length for x in column])
    return out


def rates_table(rows: list[dict[str, Any]]) -> str:
    """Render the rates as Markdown: what chance reaches, over what is said, ± simulation error."""
    lines = ["| p-value | draws | p ≤ 0.05 | p ≤ 0.01 | p ≤ 0.001 |", "|---|--:|--:|--:|--:|"]
    for row in rows:
        cells = [
            f"{rate / level:.2f} ± {error / level:.2f}"
            for rate, error, level in zip(row["rates"], row["errors"], LEVELS, strict=True)
        ]
        lines.append(f"| {row['name']} | {row['draws']:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def accuracy_table(rows: list[dict[str, Any]]) -> str:
    """Render the errors as Markdown."""
    lines = [
        "| factors | cells | largest error | largest error over its bound |",
        "|---|--:|--:|--:|",
    ]
    lines += [
        f"| {row['name']} | {row['cells']:,} | {row['error']:.1e} | {row['ratio']:.2f} |"
        for row in rows
    ]
    return "\n".join(lines)
