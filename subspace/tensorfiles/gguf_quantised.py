"""Quantised tensors of GGUF as floats, through the ``gguf`` package: what llama.cpp computes with.

The bytes were counted against the file before they come here; the package sees whole blocks alone.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from subspace.errors import FormatError, MissingExtraError, install

if TYPE_CHECKING:
    import torch

_WAY_OUT = "convert it again with --outtype f16 or f32"


def dequantise(raw: torch.Tensor, kind: str, shape: tuple[int, ...], where: str) -> torch.Tensor:
    """Return float32 numbers (shape) of a tensor's bytes.

    Raises
    ------
    MissingExtraError
        The package is not installed.
    FormatError
        It does not know the type.
    """
    import torch

    try:
        import gguf
        import numpy as np
    except ImportError as error:
        raise MissingExtraError(
            f"{where} is quantised ({kind}), and reading it needs the package gguf: "
            f"{install('quantised')}, or {_WAY_OUT}"
        ) from error
    try:
        type_ = gguf.GGMLQuantizationType[kind.upper()]
        rows = raw.reshape(*shape[:-1], -1).numpy()
        # Who takes the numbers refuses what is not finite, by its place.
        with np.errstate(all="ignore"):
            numbers = gguf.dequantize(rows, type_)
    except (KeyError, NotImplementedError):
        raise FormatError(
            f"{where} is quantised ({kind}), which the package gguf does not dequantise; {_WAY_OUT}"
        ) from None
    return torch.from_numpy(numbers).reshape(shape)


def bound_rounding(elements: int, width: int) -> float:
    """Estimate what quantising rounded off, as a share of the tensor's norm.

    Of a block whose largest number is three times their root mean square m, as of a few dozen
    Gaussian ones, b bits make steps of 6 m / 2^b, and a step has the standard deviation 1/sqrt(12):
    sqrt(3) / 2^b in all.

    Parameters
    ----------
    elements, width
        Of a block: how many numbers in how many bytes. Half a bit a number is given to scales, and
        b is the whole part of what is left.

    >>> round(bound_rounding(32, 34), 4)  # q8_0
    0.0068
    """
    return math.ldexp(math.sqrt(3), -((16 * width - elements) // (2 * elements)))
