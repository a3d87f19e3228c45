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
_ROWS = 32  # of each: forty adapters are 780 pairs
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
    if A.shape != other.shape:
        return math.nan
    return _compare_rows(_take_rows(A, len(A)), _take_rows(other, len(A)))


def _take_rows(A: torch.Tensor, most: int) -> torch.Tensor | None:
    """Return the first rows at unit length; None where they are too few or a decomposition's."""
    rows = torch.nn.functional.normalize(A[:most].float(), dim=1)
    cosines = (rows @ rows.mT).fill_diagonal_(0.0)
    return None if len(rows) < 2 or float(cosines.abs().max()) < _ORTHOGONAL else rows


def _compare_rows(one: torch.Tensor | None, two: torch.Tensor | None) -> float:
    if one is None or two is None or one.shape != two.shape:
        return math.nan
    cosines = (one @ two.mT).double()
    others = cosines[~torch.eye(len(one), dtype=torch.bool)]
    spread = float(others.std()) if len(others) > 2 else 1 / math.sqrt(one.shape[1])
    if spread == 0 or not math.isfinite(spread):
        return math.nan
    error = spread / math.sqrt(len(one))
    return (float(cosines.diagonal().mean()) - float(others.mean())) / error


def note_same_rows(adapters: Sequence[Adapter], labels: Sequence[str]) -> tuple[str, ...]:
    """Warn of pairs that began from one initial A, as their weights alone tell."""
    notes = []
    rows: dict[tuple[int, str], torch.Tensor | None] = {}  # read once, however many pairs

    def read(n: int, name: str) -> torch.Tensor | None:
        if (n, name) not in rows:
            rows[n, name] = _take_rows(adapters[n][name].A, _ROWS)
        return rows[n, name]

    for (n, a), (m, b) in itertools.combinations(enumerate(labels), 2):
        first, second = adapters[n], adapters[m]
        if first is second:
            continue
        names = [
            name
            for name, info in first.updates.items()
            if name in second
            and (info.rank, info.shape[1])
            == (second.updates[name].rank, second.updates[name].shape[1])
            and info.stored is None  # multiplied-out factors have no rows of their own
        ]
        step = -(-len(names) // _LOOKED_AT) or 1
        every = [_compare_rows(read(n, name), read(m, name)) for name in names[::step]]
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
