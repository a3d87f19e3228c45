"""The mean of paired differences, and the interval that it lies in: Student's t."""

from __future__ import annotations

import math
from statistics import mean, stdev
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def paired_interval(differences: Sequence[float], inside: float = 0.95) -> tuple[float, float]:
    """Return the ends of Student's interval of a mean; NaN below two differences.

    Parameters
    ----------
    differences
        One a pair, such as two ranks' accuracies at one seed. Taken for normal around one mean.
    inside
        Probability that the interval holds that mean (Student 1908, Biometrika 6).

    >>> [round(end, 3) for end in paired_interval([0.01, 0.03, 0.02])]
    [-0.005, 0.045]
    """
    from scipy.special import stdtrit

    n = len(differences)
    if n < 2:
        return math.nan, math.nan
    middle, error = mean(differences), stdev(differences) / math.sqrt(n)
    half = float(stdtrit(n - 1, (1 + inside) / 2)) * error
    return middle - half, middle + half
