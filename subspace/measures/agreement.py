"""How many leading directions two adapters share beyond chance, direction by direction."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from subspace import chance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from subspace.results import ModuleSimilarity

LEVEL = 0.01  # at which directions are said to agree beyond chance


def count_agreeing(
    modules: Sequence[ModuleSimilarity], level: float = LEVEL
) -> list[ModuleSimilarity]:
    """Fill ``.agreeing``: how many leading directions two adapters share beyond chance.

    phi(k, k) is cumulative, so one shared direction lifts every later k. Here each direction is
    asked alone: the energy of a's k-th direction within all of b's is exactly Beta under
    independence. Count the leading k that pass at level/r, stopping at the first failure or tie, a
    in b and b in a, and take the smaller; None where not even the first direction is defined. Over
    the M modules where it is, Benjamini-Hochberg (1995) selects R by their first directions, and
    the directions of those are tested at level * R / M.
    """
    tails = [_tails(m) for m in modules]
    first = np.sort([max(in_b[0], in_a[0]) for in_b, in_a in filter(None, tails)])
    tests = len(first)
    passed = np.nonzero(first <= level * np.arange(1, tests + 1) / max(tests, 1))[0]
    bar = level * (passed[-1] + 1) / tests if len(passed) else 0.0
    return [
        replace(m, agreeing=None if pair is None else min(_leading(p <= bar) for p in pair))
        for m, pair in zip(modules, tails, strict=True)
    ]


def _tails(m: ModuleSimilarity) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Give p of each direction, a in b and b in a, times the number of directions (Bonferroni)."""
    ra, rb = m.numerical_rank_a, m.numerical_rank_b
    if not ra or not rb or np.isnan(m.overlap_a[0]) or np.isnan(m.overlap_b[0]):
        return None
    return (
        chance.overlap_pvalue(m.overlap_a[:ra], rb, m.d) * ra,
        chance.overlap_pvalue(m.overlap_b[:rb], ra, m.d) * rb,
    )


def _leading(passes: NDArray[np.bool_]) -> int:
    return len(passes) if passes.all() else int(np.argmin(passes))
