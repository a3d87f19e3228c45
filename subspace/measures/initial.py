"""The initial A of several adapters, and whether two of them are one."""

from __future__ import annotations

import itertools
import math
from statistics import median
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

SAME_ROWS = 6.0
"""Standard errors from which rows that lie along one another row by row began as one A.

On runs of 600 steps from one initial A a module has 13 at least and 22 to 41 in the median; of 360
modules of other pairs none has more than 2.6.
"""
_LOOKED_AT = 8  # modules of a pair, evenly spread: a seed gives all of them their A
_ORTHOGONAL = 1e-4  # rows that are so near to it were made by a decomposition, and have no start
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


def align_rows(A: torch.Tensor, other: torch.Tensor) -> float:
    """Say how far row i of A (r, d) lies along row i of another A, in standard errors.

    The mean cosine of rows of one index, less that of rows of two, over the standard error of such
    a mean. Training moves the rows of A little from where they began, each from its own place;
    what two runs learn has no reason to lie in rows of one index. NaN for fewer than two rows, for
    two shapes, and where the rows of either are orthogonal: those are a decomposition's, whose
    order is that of strength.

    >>> rows = torch.randn(4, 100, generator=torch.Generator().manual_seed(0))
    >>> align_rows(rows, rows) > 6 > abs(align_rows(rows, rows.flip(0)))
    True
    """
    if A.shape != other.shape or len(A) < 2:
        return math.nan
    one, two = (torch.nn.functional.normalize(x.double(), dim=1) for x in (A, other))
    apart = ~torch.eye(len(A), dtype=torch.bool)
    if any(float((x @ x.mT)[apart].abs().max()) < _ORTHOGONAL for x in (one, two)):
        return math.nan
    cosines = one @ two.mT
    others = cosines[apart]
    spread = float(others.std()) if len(others) > 2 else 1 / math.sqrt(A.shape[1])
    if spread == 0 or not math.isfinite(spread):
        return math.nan
    error = spread / math.sqrt(len(A))
    return (float(cosines.diagonal().mean()) - float(others.mean())) / error


def note_same_rows(adapters: Sequence[Adapter], labels: Sequence[str]) -> tuple[str, ...]:
    """Warn of pairs that began from one initial A, as their weights alone tell."""
    notes = []
    rows: dict[tuple[int, str], torch.Tensor] = {}  # each is read once, however many pairs

    def read(n: int, name: str) -> torch.Tensor:
        if (n, name) not in rows:
            rows[n, name] = adapters[n][name].A
        return rows[n, name]

    for (n, a), (m, b) in itertools.combinations(enumerate(labels), 2):
        first, second = adapters[n], adapters[m]
        names = [
            name
            for name, info in first.updates.items()
            if name in second
            and (info.rank, info.shape[1])
            == (second.updates[name].rank, second.updates[name].shape[1])
            and info.stored is None  # multiplied-out factors have no rows of their own
        ]
        step = -(-len(names) // _LOOKED_AT) or 1
        if first is second:
            continue
        every = [align_rows(read(n, name), read(m, name)) for name in names[::step]]
        defined = [z for z in every if math.isfinite(z)]
        if defined and median(defined) >= SAME_ROWS:
            notes.append(
                f"caution: the rows of A of {a} and of {b} lie along one another, row by row "
                f"({median(defined):.0f} standard errors in the median of {len(defined)} modules): "
                "the two began from the same initial A, and share it unlearned"
            )
    return tuple(notes)


def share_initial_a(initial: Solved, a: int, b: int) -> bool:
    """Whether two initial A span one space: phi(r_a, r_b) lies far above its null mean."""
    i, j = (initial.directions[n].rank for n in (a, b))
    null_mean = float(chance.phi_mean(i, j, initial.directions[a].dimension))
    if not i or not j or null_mean >= 1:
        return False
    phi = float(initial.overlap(a, b)[:i, :j].square().sum()) / min(i, j)
    return (phi - null_mean) / (1 - null_mean) >= SAME_INITIAL_A
