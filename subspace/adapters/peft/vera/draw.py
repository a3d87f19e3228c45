"""VeRA's projections where the file leaves them out: drawn again from their seed, as PEFT does.

peft 0.21.2, ``tuners/vera/model.py``: on the CPU, from one generator with ``projection_prng_key``,
first vera_A (r, widest d_in), then vera_B (widest d_out, r), each uniform within
± sqrt(6 / columns), float32. Their shape takes every adapted layer's d_in.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from subspace.adapters.factors.products import LARGEST
from subspace.errors import FormatError
from subspace.tensorfiles import short

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from subspace.adapters.source import AdapterSource

NOTE = (
    "the projections are not in the file; they are drawn again from projection_prng_key as PEFT "
    "does, which PEFT warns may not give the same numbers on every system"
)


def require_seed(
    config: Mapping[str, Any], source: AdapterSource, shape: tuple[int, int, int]
) -> int:
    """Check what the projections are to be drawn from.

    Parameters
    ----------
    config
        Of the adapter.
    source
        The files.
    shape
        r, the widest d_in and the widest d_out.

    Raises
    ------
    FormatError
        No seed, or projections too large to be drawn.
    """
    seed = config.get("projection_prng_key", 0)
    if type(seed) is not int or not -(2**63) <= seed < 2**64:
        raise FormatError(f"{source.where}: projection_prng_key = {short(seed)} is not a seed")
    rank, d_in, d_out = shape
    if rank * (d_in + d_out) > LARGEST:
        raise FormatError(
            f"{source.weights}: VeRA's projections of rank {rank} would have "
            f"{rank * (d_in + d_out):_} values, and at most {LARGEST:_} are drawn"
        )
    return seed


@lru_cache(maxsize=2)
def draw_projections(
    seed: int, rank: int, d_in: int, d_out: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw vera_A (rank, d_in) and vera_B (d_out, rank).

    >>> A, B = draw_projections(0, 2, 6, 3)
    >>> A.shape, B.shape, bool((A.abs() <= 1).all()), A is draw_projections(0, 2, 6, 3)[0]
    (torch.Size([2, 6]), torch.Size([3, 2]), True, True)
    """
    import torch

    generator = torch.Generator().manual_seed(seed)

    def uniform(rows: int, columns: int) -> torch.Tensor:
        # In PEFT's own order of roundings: sqrt(3) * (sqrt(2) / sqrt(columns)).
        bound = math.sqrt(3.0) * (math.sqrt(2.0) / math.sqrt(columns))
        return torch.empty(rows, columns).uniform_(-bound, bound, generator=generator)

    return uniform(rank, d_in), uniform(d_out, rank)
