"""Which of many p-values are discoveries, at a false discovery rate."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def fdr_threshold(pvalues: ArrayLike, level: float) -> float:
    """Return the p-value up to which tests pass at this false discovery rate; 0: none does.

    Benjamini & Hochberg 1995, J. R. Statist. Soc. B 57. NaN is no test.

    >>> fdr_threshold([0.001, 0.8, 0.02], 0.05)
    0.03333333333333333
    """
    p = np.asarray(pvalues, dtype=np.float64)
    p = np.sort(p[~np.isnan(p)])
    passed = np.nonzero(p <= level * np.arange(1, len(p) + 1) / max(len(p), 1))[0]
    return level * (int(passed[-1]) + 1) / len(p) if len(passed) else 0.0
