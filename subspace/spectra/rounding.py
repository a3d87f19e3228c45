"""What storing numbers to the nearest of a dtype rounds away, as noise: its spectral norm.

A number that is stored to the nearest of its dtype is off by at most half a spacing q; where the
matrix moved by more than about a spacing, or was not on that grid to begin with, by noise that is
independent from entry to entry and uniform on +-q/2, of variance v = q^2/12 (Bennett 1948, Bell
System Technical J. 27). q is known for each entry from what is stored.

The rule of a numerical rank, sigma_k > u |F|_F (Weyl), asks for the spectral norm of the rounding
and takes its Frobenius norm as a bound: right in every case, and far too high for a matrix over all
of whose directions that noise spreads. In the mean the spectral norm of independent noise of
variances v_ij is at most about

    sqrt(max_i sum_j v_ij) + sqrt(max_j sum_i v_ij)

(of Gaussian entries by Chevet's inequality where all v are equal, by Bandeira & van Handel 2016,
Annals of Probability 44, theorem 3.1, elsewhere; uniform noise is strictly sub-Gaussian). Above
that it is by t s with a probability of exp(-t^2/2) (concentration of a function of Lipschitz
constant s). s^2 is at most the largest v, whose noise has its own bound, and we take the mean of v
weighted by itself, sum v^2 / sum v: what directions spread as that noise is have of it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_T = math.sqrt(2 * math.log(1e6))  # noise alone exceeds the level once in a million modules
_EXPONENT = 0x7FF0000000000000
# Bits of the significand, and the exponent of the smallest normal number.
FORMATS = {
    torch.bfloat16: (8, -126),
    torch.float16: (11, -14),
    torch.float32: (24, -126),
    torch.float64: (53, -1022),
}


def spacing(numbers: Tensor, grid: torch.dtype) -> Tensor:
    """Return the distance between neighbours at each number (float64) of a dtype.

    >>> spacing(torch.tensor([1.0, -3.0, 0.0], dtype=torch.float64), torch.bfloat16)[:2].tolist()
    [0.0078125, 0.015625]
    """
    bits, least = FORMATS[grid]
    power = (numbers.contiguous().view(torch.int64) & _EXPONENT).view(torch.float64)
    return power.clamp_(min=math.ldexp(1.0, least)).mul_(math.ldexp(1.0, 1 - bits))


def edge(rows: float, columns: float, typical: float) -> float:
    """Return what the spectral norm of independent noise stays below.

    Parameters
    ----------
    rows, columns
        The largest sum of variances over a row, and over a column.
    typical
        sum v^2 / sum v over all entries.
    """
    return math.sqrt(rows) + math.sqrt(columns) + _T * math.sqrt(typical)


def noise_level(stored: Tensor) -> float:
    """Return what the spectral norm of the rounding of one stored matrix (m, n) stays below.

    In units of its entries. Entries that are exactly zero were not rounded.

    >>> one = torch.ones(100, 100, dtype=torch.bfloat16)
    >>> bound = 2.0**-9 * 100  # half a spacing in every entry, all of one sign
    >>> noise_level(one) < bound / 3
    True
    """
    numbers = stored.to(torch.float64)
    variances = spacing(numbers, stored.dtype).square_().div_(12).masked_fill_(numbers == 0, 0.0)
    total = float(variances.sum())
    if not total:
        return 0.0
    typical = float(torch.linalg.vecdot(variances, variances).sum()) / total
    return edge(float(variances.sum(1).max()), float(variances.sum(0).max()), typical)
