"""Updates with known properties, adapters of them and a base, in memory."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from subspace.adapters import Adapter, LowRankUpdate
from subspace.linalg import krylov


def factors(d_out, d_in, r, *, dtype=torch.float64, cond=1.0, scale=1.0, size=1.0, seed=0):
    """A LowRankUpdate whose A and B each have the condition number 10**cond, well-gapped."""
    g = torch.Generator().manual_seed(seed)
    n = {"generator": g, "dtype": torch.float64}
    S = torch.logspace(0, -cond, r, dtype=torch.float64)
    mix_a, mix_b = (torch.linalg.qr(torch.randn(r, r, **n))[0] for _ in range(2))
    A = size * (mix_a * S) @ torch.linalg.qr(torch.randn(d_in, r, **n))[0].T
    B = size * torch.linalg.qr(torch.randn(d_out, r, **n))[0] @ (mix_b * S).T
    return LowRankUpdate("q", A.to(dtype), B.to(dtype), scale)


def gaussian(d_out, d_in, r, *, dtype=torch.float32, scale=0.5, seed=0):
    g = torch.Generator().manual_seed(seed)
    A = torch.randn(r, d_in, generator=g, dtype=torch.float64).to(dtype)
    B = torch.randn(d_out, r, generator=g, dtype=torch.float64).to(dtype)
    return LowRankUpdate("q", A, B, scale)


def adapter(*updates, name="adapter"):
    """Wrap updates; a single one is the module q."""
    names = ["q"] if len(updates) == 1 else [f"layer.{n}.q" for n in range(len(updates))]
    return Adapter.from_updates(
        {
            n: LowRankUpdate(n, u.A, u.B, u.scale, source=u.source)
            for n, u in zip(names, updates, strict=True)
        },
        name=name,
    )


def dense(update):
    return (
        update.A.double().cpu().numpy(),
        update.B.double().cpu().numpy(),
        float(update.scale),
    )


def planted(d, r_a, r_b, k, *, seed):
    """Two A factors that share exactly their k leading directions."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.standard_normal((d, max(k, 1))))[0][:, :k]

    def one(r):
        rest = rng.standard_normal((d, r - k))
        rest -= basis @ (basis.T @ rest)
        V = np.hstack([basis, np.linalg.qr(rest)[0]])
        mix = np.linalg.qr(rng.standard_normal((r, r)))[0]
        A = (mix * np.linspace(2.0, 1.0, r)) @ V.T
        B = rng.standard_normal((d, r))
        return LowRankUpdate("q", torch.tensor(A), torch.tensor(B), 1.0)

    return one(r_a), one(r_b)


def only_krylov(monkeypatch):
    """Let a small W go the way of a large one, and no other."""

    def refuse(*_):
        raise AssertionError("the Gram was taken")

    monkeypatch.setattr(krylov, "GRAM_TO", 0)
    monkeypatch.setattr(krylov, "_BLOCK", 8)
    monkeypatch.setattr(krylov, "_SHARE", 1)
    monkeypatch.setattr(krylov, "_by_gram", refuse)


def the_same(one: Any, other: Any) -> None:
    """Hold two adapters to the same updates: bits, dtype, scale."""
    assert list(one) == list(other)
    for name in one:
        a, b = one[name], other[name]
        assert (a.A.dtype, a.B.dtype) == (b.A.dtype, b.B.dtype)
        assert torch.equal(a.A, b.A)
        assert torch.equal(a.B, b.B)
        assert a.scale == b.scale
        same = ("kind", "kernel", "groups", "rank", "shape", "dtype")
        for part in same:
            assert getattr(one.updates[name], part) == getattr(other.updates[name], part), part


@dataclass(frozen=True)
class MemoryBase:
    """A base in memory: what `Pretrained` is to the measure."""

    weights: dict
    name: str = "base"

    def get(self, module, *, shape):
        W = self.weights[module]
        assert tuple(W.shape) == tuple(shape)
        return Weight(W)


@dataclass(frozen=True)
class Weight:
    W: torch.Tensor
    source: str = "model.safetensors (q.weight)"
