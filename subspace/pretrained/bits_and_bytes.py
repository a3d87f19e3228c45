"""4-bit and 8-bit weights as transformers saves them with bitsandbytes.

A weight that was a Conv1D is stored the way round of a Linear: transformers turns it before it
quantises.
"""

from __future__ import annotations

import logging
import math
import sys
from threading import Lock
from typing import TYPE_CHECKING, Any, cast

from subspace.errors import FormatError
from subspace.pretrained.libraries import WAY_OUT, using
from subspace.tensorfiles import short
from subspace.tensorfiles.untrusted import parse_json_object

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from subspace.tensorfiles import TensorFile

_TYPES = ("nf4", "fp4")
_STATE = frozenset({"quant_type", "blocksize", "dtype", "shape"})
_NESTED = frozenset({"nested_blocksize", "nested_dtype", "nested_offset"})
_DTYPES = frozenset({"float16", "bfloat16", "float32"})
_BLOCKSIZES = frozenset(2**n for n in range(5, 13))
_LONGEST_STATE = 4096
_IMPORTING = Lock()
_ROW = 0  # the one weight_format that is read; others are of GPUs' tiles, no longer written


def four_bit(
    tensor: str, tensors: TensorFile, where: str
) -> tuple[tuple[int, int], Callable[[], torch.Tensor]]:
    """Check an nf4 or fp4 weight; return its map's shape and what reads it.

    Its numbers are of the dtype that its quant_state names, which the model computes in.

    Raises
    ------
    FormatError
        A tensor of it is missing, or of another dtype or size than the packed bytes need.
    """
    state = _state(tensor, tensors, where)
    rows, columns = shape = _shape(state, where)
    numbers, size = rows * columns, state["blocksize"]
    blocks = math.ceil(numbers / size)
    bad = f"{where}: its quant_state says {rows} x {columns} in blocks of {size}"
    packed = tensors.headers[tensor]
    if packed.dtype != "uint8" or math.prod(packed.shape) != (numbers + 1) // 2:
        raise FormatError(
            f"{bad}, two numbers a uint8; stored is {packed.dtype} of shape {packed.shape}; "
            f"{WAY_OUT}"
        )
    nested = f"{tensor}.nested_absmax" in tensors.headers
    wanted: dict[str, tuple[str, int]] = {
        "absmax": ("uint8" if nested else "float32", blocks),
        "quant_map": ("float32", 16),
    }
    if nested:
        outer = math.ceil(blocks / state["nested_blocksize"])
        wanted |= {"nested_absmax": ("float32", outer), "nested_quant_map": ("float32", 256)}
    for name, (dtype, length) in wanted.items():
        header = tensors.headers.get(f"{tensor}.{name}")
        layout = None if header is None else (header.dtype, math.prod(header.shape))
        if layout != (dtype, length):
            has = f"{layout[1]} of {layout[0]}" if layout else "none"
            raise FormatError(
                f"{bad}, which takes {length} {name} of {dtype}, and has {has}; {WAY_OUT}"
            )

    def read() -> torch.Tensor:
        parts = {name: tensors[f"{tensor}.{name}"] for name in wanted}
        return _dequantised_4bit(tensors[tensor], state | parts, shape, where)

    return shape, read


def _state(tensor: str, tensors: TensorFile, where: str) -> dict[str, Any]:
    """Read and check the small JSON that holds what is not a tensor."""
    names = {kind: f"{tensor}.quant_state.bitsandbytes__{kind}" for kind in _TYPES}
    kinds = [kind for kind, name in names.items() if name in tensors.headers]
    if len(kinds) != 1:
        raise FormatError(
            f"{where}: 4-bit of bitsandbytes with {len(kinds)} tensors quant_state beside it, one "
            f"is wanted; {WAY_OUT}"
        )
    name = names[kinds[0]]
    header = tensors.headers[name]
    if header.dtype != "uint8" or math.prod(header.shape) > _LONGEST_STATE:
        raise FormatError(f"{where}: {short(name)} is not the few bytes of JSON that it should be")
    state = parse_json_object(bytes(tensors[name].flatten().tolist()), f"{where}: {short(name)}")
    nested = f"{tensor}.nested_absmax" in tensors.headers
    keys = _STATE | _NESTED if nested else _STATE
    sound = (
        set(state) == keys
        and state["quant_type"] == kinds[0]
        and state["dtype"] in _DTYPES
        and _is_blocksize(state["blocksize"])
    )
    if sound and nested:
        offset = state["nested_offset"]
        sound = (
            _is_blocksize(state["nested_blocksize"])
            and state["nested_dtype"] == "float32"
            and type(offset) in {int, float}
            and abs(offset) < math.inf
        )
    if not sound:
        raise FormatError(f"{where}: its quant_state {short(state)} is not understood; {WAY_OUT}")
    return state


def _is_blocksize(value: object) -> bool:
    return type(value) is int and value in _BLOCKSIZES


def _shape(state: dict[str, Any], where: str) -> tuple[int, int]:
    shape = state["shape"]
    if not (
        isinstance(shape, list) and len(shape) == 2 and all(type(n) is int and n > 0 for n in shape)
    ):
        raise FormatError(
            f"{where}: its quant_state's shape {short(shape)} is not that of a matrix"
        )
    return shape[0], shape[1]


def _dequantised_4bit(
    packed: torch.Tensor, state: dict[str, Any], shape: tuple[int, int], where: str
) -> torch.Tensor:
    import torch

    kind, size = state["quant_type"], state["blocksize"]
    with using("bitsandbytes", where):
        functional = _functional()
        table = functional.get_4bit_type(kind, device="cpu")
        # Its kernels have the table built in: another one would be left out without a word.
        if not torch.allclose(state["quant_map"].flatten(), table, rtol=0, atol=1e-6):
            raise FormatError(f"{where}: its quant_map is not that of {kind}; {WAY_OUT}")
        # Native code wants aligned floats, which a view of a mapped file need not be.
        parts = {
            key: value.flatten().clone() if isinstance(value, torch.Tensor) else value
            for key, value in state.items()
        }
        quant_state = functional.QuantState.from_dict(parts, device=torch.device("cpu"))
        # The blocks run through the matrix without regard to its rows. bitsandbytes 0.50 takes
        # another block's absmax on a CPU with AVX-512 where a row is not whole blocks, so that it
        # is given one block a row.
        numbers = math.prod(shape)
        rows = numbers // size if numbers % size == 0 else 1
        quant_state.shape = torch.Size((rows, numbers // rows))
        # One row of bytes would be taken for a transpose.
        flat = functional.dequantize_4bit(packed.reshape(-1, 1), quant_state)
        matrix: torch.Tensor = flat.reshape(shape)
    return matrix


def eight_bit(
    tensor: str, tensors: TensorFile, where: str
) -> tuple[tuple[int, int], Callable[[], torch.Tensor]]:
    """Check an LLM.int8() weight; return its map's shape and what reads it, as float32.

    Raises
    ------
    FormatError
        Not a matrix of int8 with one float32 a row, or in a layout of GPUs' tiles.
    """
    module = tensor.removesuffix("weight")
    weight, scb = tensors.headers[tensor], tensors.headers[f"{module}SCB"]
    if (
        (weight.dtype, scb.dtype) != ("int8", "float32")
        or len(weight.shape) != 2
        or math.prod(scb.shape) != weight.shape[0]
    ):
        raise FormatError(
            f"{where}: 8-bit of bitsandbytes is int8 with one float32 SCB a row; found "
            f"{weight.dtype} of shape {weight.shape} with {scb.dtype} of shape {scb.shape}; "
            f"{WAY_OUT}"
        )
    layout = tensors.headers.get(f"{module}weight_format")
    if layout is not None and (
        layout.dtype != "uint8"
        or math.prod(layout.shape) != 1
        or int(tensors[f"{module}weight_format"]) != _ROW
    ):
        raise FormatError(f"{where}: its weight_format is not that of plain rows; {WAY_OUT}")

    def read() -> torch.Tensor:
        with using("bitsandbytes", where):
            functional = _functional()
            rows = tensors[f"{module}SCB"].flatten()
            matrix: torch.Tensor = functional.int8_vectorwise_dequant(tensors[tensor], rows)
        return matrix

    return (weight.shape[0], weight.shape[1]), read


def _functional() -> Any:  # noqa: ANN401  a module that publishes no types
    """Import bitsandbytes.functional, quietly and from this machine alone."""
    log, modules = logging.getLogger("bitsandbytes"), cast("dict[str, Any]", sys.modules)
    with _IMPORTING:
        level, kernels = log.level, modules.get("kernels")
        try:
            # On a CPU with AVX512-BF16 the import downloads code from a hub if `kernels` is there,
            # for a product that is not used here. Without it, it warns and uses its own.
            modules["kernels"] = None
            log.setLevel(logging.ERROR)
            from bitsandbytes import functional
        finally:
            log.setLevel(level)
            modules["kernels"] = kernels
            if kernels is None:
                del modules["kernels"]
    return functional
