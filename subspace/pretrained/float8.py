"""float8 and int8 weights and the scales that make them W."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Any

from subspace.errors import FormatError
from subspace.tensorfiles import short

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from subspace.tensorfiles import TensorHeader

_FLOAT8 = frozenset({"float8_e4m3fn", "float8_e5m2"})
# Both are multiplied by: DeepSeek's "inv" is the inverse of the scale that the weight was given.
_SCALES = ("_scale_inv", "_scale")
_SCALE_DTYPES = frozenset({"bfloat16", "float16", "float32", "float64", "float8_e8m0fnu"})


def is_scaled(tensor: str, headers: Mapping[str, TensorHeader], config: Mapping[str, Any]) -> bool:
    """Say whether a weight is float8, or int8 that only has to be multiplied by its scale."""
    if headers[tensor].dtype != "int8":
        return headers[tensor].dtype in _FLOAT8
    quantization = config.get("quantization_config")
    # int-quantized of compressed-tensors; what others mean by the same names is not known.
    return (
        isinstance(quantization, dict)
        and quantization.get("quant_method") == "compressed-tensors"
        and f"{tensor}_scale" in headers
        and f"{tensor}_zero_point" not in headers
    )


def scale_of(
    tensor: str, headers: Mapping[str, TensorHeader], config: Mapping[str, Any], where: str
) -> str | None:
    """Name the tensor that holds such a weight's scales; None for a plain cast.

    Raises
    ------
    FormatError
        The weight has a scale that is not understood, or ought to have one and does not.
    """
    name = next((tensor + end for end in _SCALES if tensor + end in headers), None)
    if name is not None:
        if headers[name].dtype not in _SCALE_DTYPES:
            raise FormatError(
                f"{where}: its scale {short(name)} is stored as {headers[name].dtype}, which is "
                "not read; give the model in bfloat16"
            )
        return name
    module = tensor.removesuffix("weight")
    other = next((n for n in headers if n.startswith(module) and "scale" in n[len(module) :]), None)
    if other is not None or config.get("quantization_config"):
        what = f"beside {short(other)}" if other else "of a model that config.json calls quantised"
        raise FormatError(
            f"{where}: float8 without {short(tensor + _SCALES[0])}, {what}; "
            "give the model in bfloat16"
        )
    return None


def block_size(
    shape: tuple[int, ...], grid: tuple[int, ...], config: Mapping[str, Any], where: str
) -> tuple[int, int]:
    """Say how many rows and columns share one scale.

    Parameters
    ----------
    shape
        Of the stored weight.
    grid
        Of the scales: one, one a row, or one a block. Only config.json's ``weight_block_size``
        tells the block where the last one is not full.

    Raises
    ------
    FormatError
        The scales do not cover the weight.
    """
    rows, columns = shape[0], shape[-1]
    if not grid or set(grid) == {1}:
        return rows, columns
    if len(shape) == 2 and grid in {(rows,), (rows, 1)}:
        return 1, columns
    quantization = config.get("quantization_config")
    block = quantization.get("weight_block_size") if isinstance(quantization, dict) else None
    if len(shape) == len(grid) == 2:
        if (
            isinstance(block, list)
            and [type(n) for n in block] == [int, int]
            and min(block) > 0
            and grid == (ceil(rows / block[0]), ceil(columns / block[1]))
        ):
            return block[0], block[1]
        if min(grid) > 0 and rows % grid[0] == columns % grid[1] == 0:
            return rows // grid[0], columns // grid[1]
    raise FormatError(
        f"{where}: scales of shape {grid} do not cover a weight of shape {shape} "
        f"(weight_block_size {short(block)} in config.json)"
    )


def dequantised(
    stored: torch.Tensor, scales: torch.Tensor | None, block: tuple[int, int]
) -> torch.Tensor:
    """Return the float32 numbers that a tensor and its scales stand for, as a copy.

    Parameters
    ----------
    stored : (rows, columns) tensor
        Or of any shape, where it has one scale or none.
    scales
        None for a plain cast.
    block
        Rows and columns that share one scale.
    """
    import torch

    numbers = stored.to(torch.float32)
    if scales is None:
        return numbers
    rows, columns = block
    factors = scales.to(torch.float32)
    if factors.numel() == 1:
        return numbers.mul_(factors.reshape(()))
    if block == (1, stored.shape[-1]):
        return numbers.mul_(factors.reshape(-1, 1))
    # A strip at a time: the only full-size memory is the result.
    for n, first in enumerate(range(0, stored.shape[0], rows)):
        strip = numbers[first : first + rows]
        strip.mul_(factors[n].repeat_interleave(columns)[: strip.shape[1]])
    return numbers
