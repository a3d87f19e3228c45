"""Two factors with or without a kernel: (r, in, kh, kw) and (d_out, r, 1, 1), as matrices.

A convolution with a kernel, and then one of size 1, is one convolution with the product of the two
as matrices (``networks/lora.py`` of kohya-ss/sd-scripts; ``tuners/lora/layer.py`` of peft).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from subspace.adapters.source import read_factor_shape
from subspace.errors import FormatError

if TYPE_CHECKING:
    from subspace.adapters.build import Factors
    from subspace.adapters.source import AdapterSource

KINDS = ("linear", "conv1d", "conv2d", "conv3d")  # by the kernel's dimensions


class Pair(NamedTuple):
    """What the headers tell of two factors, and how they are made."""

    shape: tuple[int, int]  # (d_out, d_in) of the map
    rank: int
    tensors: tuple[str, str]
    factors: Factors
    kernel: tuple[int, ...]

    @property
    def kind(self) -> str:
        """``"linear"``, ``"conv2d"``, …."""
        return KINDS[len(self.kernel)]


def read_pair(source: AdapterSource, a: str, b: str) -> Pair:
    """Plan B (d_out, r) and A (r, d_in) from the headers of two tensors.

    Parameters
    ----------
    source
        The files.
    a, b
        Names of (r, in, …) and (d_out, r, 1, …), each of 2 to 5 dimensions.

    Raises
    ------
    FormatError
        A shape that no factor has, a kernel in the second, or different ranks.
    """
    (rank, *inputs), (d_out, width, *ones) = (
        read_factor_shape(source, x, (2, 3, 4, 5)) for x in (a, b)
    )
    both = f"{source.text(a)} and {b!r} {source.tensors.headers[b].shape}"
    if any(n != 1 for n in ones):
        raise FormatError(f"{both}: the kernel of the second should be of size 1")
    if rank != width:
        raise FormatError(f"{both} have different ranks, {rank} and {width}")
    return Pair((d_out, math.prod(inputs)), rank, (a, b), _matrices(a, b), tuple(inputs[1:]))


def _matrices(a: str, b: str) -> Factors:
    return lambda tensors: (tensors[b].flatten(1), tensors[a].flatten(1))
