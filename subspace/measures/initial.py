"""The initial A of several adapters, and whether two of them are one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from subspace import chance
from subspace.adapters import LowRankUpdate
from subspace.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from subspace.adapters import Adapter
    from subspace.results import Side
    from subspace.spectra import Solved

    InitialA = Mapping[str, list[torch.Tensor]]  # of each module that of every adapter

SAME_INITIAL_A = 0.9  # excess of phi(r, r) over its null mean from which two initial A are the same


def collect_initial_a(adapters: Sequence[Adapter], names: Sequence[str]) -> InitialA | None:
    """Return the initial A of every module and adapter; None unless all are stored."""
    if any(name not in x.initial for x in adapters for name in names):
        return None
    return {name: [x.initial[name] for x in adapters] for name in names}


def require_initial_a(
    adapters: Sequence[Adapter], names: Sequence[str], side: Side
) -> InitialA | None:
    """Return `collect_initial_a`, which the side delta-A cannot do without.

    Raises
    ------
    ArgumentError
        The side is delta-A, and an adapter does not hold the initial A of every module.
    """
    initial = collect_initial_a(adapters, names)
    if side == "delta-A" and initial is None:
        missing = next(x for x in adapters if any(n not in x.initial for n in names))
        raise ArgumentError(
            f"side delta-A needs the initial A of every module, and adapter {missing.name!r} does "
            "not hold it: `subspace train` stores it as initial_A.safetensors; choose another side"
        )
    return initial


def wrap_initial_a(name: str, A0: torch.Tensor, adapter: str) -> LowRankUpdate:
    """Return an initial A as an update, to compare its side A.

    A B of ones stands where the real B was zero before training.
    """
    return LowRankUpdate(name, A0, torch.ones(1, len(A0)), 1.0, source=f"initial A of {adapter}")


def share_initial_a(initial: Solved, a: int, b: int) -> bool:
    """Whether two initial A span one space: phi(r_a, r_b) lies far above its null mean."""
    i, j = (initial.directions[n].rank for n in (a, b))
    null_mean = float(chance.phi_mean(i, j, initial.directions[a].dimension))
    if not i or not j or null_mean >= 1:
        return False
    phi = float(initial.overlap(a, b)[:i, :j].square().sum()) / min(i, j)
    return (phi - null_mean) / (1 - null_mean) >= SAME_INITIAL_A
