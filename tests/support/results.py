"""Results made for the figures; those of a comparison come from real bases."""

import math
from dataclasses import replace

import numpy as np

from subspace.measures.agreement import Overlaps, measure_rest
from subspace.results import (
    Amplification,
    DirectionGain,
    ModuleAmplification,
    ModuleSimilarity,
    Similarity,
    SweepRow,
)

BERT = [f"encoder.layer.{k}.attention.self.{w}" for k in range(6) for w in ("query", "value")]
LONG = "experiments/2024-05-17/llama-2-7b-chat-qlora-r8-alpha-16-$x$"


def fill_rest(m):
    """Fill what follows from the overlaps of a module that a test has put together."""
    ranks = (m.numerical_rank_a, m.numerical_rank_b)
    rest, p = measure_rest(Overlaps(m.d, *ranks, m.overlap_a, m.overlap_b), m.agreeing)
    return replace(m, shared=m.agreeing, rest=rest, rest_p=p)


def module(name="layer.0.query", r_a=8, r_b=64, *, d=384, seed=0, real=None, masked=()):
    """phi of two real bases that share a direction; `real`: the numerical ranks."""
    rng = np.random.default_rng(seed)
    common = rng.standard_normal(d)
    bases = []
    for r in (r_a, r_b):
        F = 0.3 * rng.standard_normal((d, r))
        F[:, 0] += common
        bases.append(np.linalg.svd(F, full_matrices=False)[0])
    squares = np.square(bases[0].T @ bases[1])
    i, j = np.ogrid[1 : r_a + 1, 1 : r_b + 1]
    phi = squares.cumsum(0).cumsum(1) / np.minimum(i, j)
    real = (r_a, r_b) if real is None else real
    off = np.zeros(phi.shape, dtype=bool)
    for cell in masked:
        off[cell] = True
    none = (i > real[0]) | (j > real[1])
    mean = np.maximum(i, j) / d + 0 * phi
    return fill_rest(
        ModuleSimilarity(
            module=name,
            side="A",
            d=d,
            rank_a=r_a,
            rank_b=r_b,
            numerical_rank_a=real[0],
            numerical_rank_b=real[1],
            phi=np.where(none | off, np.nan, phi),
            error=np.where(none, np.nan, 1e-12),
            masked=off,
            null_mean=mean,
            null_std=np.sqrt(mean / d),
            pvalue=np.where(none | off, np.nan, rng.uniform(0, 0.03, phi.shape)),
            agreeing=1,
            overlap_a=squares.sum(1),
            overlap_b=squares.sum(0),
            method_a="cholesky",
            method_b="cholesky",
        )
    )


def compared(modules=BERT, names=("r8", "r64"), **options):
    made = {m: module(m, seed=k, **options) for k, m in enumerate(modules)}
    return Similarity(adapters=names, side="A", modules=made, level=0.01)


HOSTILE = ["$\\frac", "<script>", "a\nb\x1b[31m", "layers.0.$x$", "layers.1.\\alpha_{", "日本.2.x"]


def direction(sigma, w):
    return DirectionGain(sigma=sigma, w=w, ratio=sigma / abs(w), gain=1 + sigma / w)


def row(module=BERT[0], rank=4, *, factor=10.0, chance=20.0, directions=None, note=""):
    """One row; its chance range is a fifth around its level."""
    if directions is None:
        directions = tuple(direction(8.0 / k, 0.3 * (-1) ** k / k) for k in range(1, rank + 1))
    return ModuleAmplification(
        module=module,
        rank=rank,
        shape=(384, 384),
        w_norm=40.0,
        delta_norm=10.0,
        w_in_delta=10.0 / factor,
        w_in_w=5.0,
        w_in_w_error=0.0,
        w_in_w_method="gram",
        w_in_random=10.0 / chance,
        factor=factor,
        null_factor=chance,
        null_low=0.8 * chance,
        null_high=1.2 * chance,
        null_drawn=True,
        null_w=0.1,
        directions=directions,
        note=note,
    )


def undefined(module=BERT[0], rank=4):
    nan = math.nan
    none = row(module, rank, factor=nan, chance=nan, directions=(), note="untrained: B is zero")
    return replace(none, delta_norm=0.0, w_in_random=0.4)


def table7(*rows, adapter="r8", scaled=True):
    return Amplification(
        adapter=adapter,
        base="minilm",
        scaled=scaled,
        seed=0,
        rows=rows or tuple(row(m) for m in BERT),
    )


def row6(rank, test, targets="q+v", *, data="d", method="lora", train=None, before=(0.05,)):
    n = len(test)
    alpha = None if rank is None else 16.0
    return SweepRow(
        data=data,
        method=method,
        targets=targets,
        rank=rank,
        alpha=alpha,
        learning_rate=4e-3,
        seeds=tuple(range(n)),
        test=tuple(test),
        validation=tuple(test),
        train=tuple(train or (0.9,) * n),
        before=before,
        parameters=9,
    )
