"""GPTQ, AWQ and pack-quantized: small integers in 32-bit words, one scale and zero a group.

All three mean W = (q - zero) * scale with q, zero and scale of a group of columns, and differ in
how the words hold q and zero. compressed-tensors takes the words apart. Its q and zero are both
less by half the range, which the difference does not see.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from subspace.errors import FormatError
from subspace.pretrained.libraries import WAY_OUT, using
from subspace.tensorfiles import short

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch

    from subspace.tensorfiles import TensorFile

_PACKAGE = "compressed-tensors >= 0.20"
_WORD = 32
_BITS = (2, 4, 8)  # whole numbers of integers a word; in the others they straddle two
_SCALES = frozenset({"float16", "bfloat16", "float32"})


def gptq(
    module: str, tensors: TensorFile, config: Mapping[str, Any], where: str
) -> tuple[tuple[int, int], Callable[[], torch.Tensor]]:
    """Check a GPTQ weight: qweight packed along d_in, qzeros along d_out, g_idx a group a column.

    Raises
    ------
    FormatError
        config.json names no known layout, or the tensors do not fit one another.
    """
    quantization = _read_quantization(config, "gptq", where)
    layout = quantization.get("checkpoint_format") or quantization.get("format") or "gptq"
    if layout not in ("gptq", "gptq_v2"):
        raise FormatError(f"{where}: GPTQ in the layout {short(layout)} is not read; {WAY_OUT}")
    words, out = _matrix(f"{module}qweight", tensors, where)
    groups, _ = _matrix(f"{module}scales", tensors, where, scales=True)
    index = tensors.headers[f"{module}g_idx"]
    d_in = math.prod(index.shape)
    bits = next((b for b in _BITS if words * _WORD == d_in * b), 0)
    _fit(
        bits
        and index.dtype in {"int32", "int64"}
        and tensors.headers[f"{module}scales"].shape == (groups, out)
        and _matrix(f"{module}qzeros", tensors, where) == (groups, math.ceil(out * bits / _WORD)),
        module,
        tensors,
        where,
        "qweight qzeros scales g_idx",
    )

    def read() -> torch.Tensor:
        import torch

        zeros = tensors[f"{module}qzeros"]
        if layout == "gptq":
            # The first layout stores zero - 1. Its writer subtracts from whole words; so is this.
            zeros = zeros + sum(1 << at for at in range(0, _WORD, bits))
        columns = tensors[f"{module}g_idx"].flatten().to(torch.int64)
        with using(_PACKAGE, where):
            from compressed_tensors.compressors.pack_quantized import unpack_from_int32 as unpack

            q = unpack(tensors[f"{module}qweight"], bits, torch.Size((d_in, out)), packed_dim=0)
            zero = unpack(zeros, bits, torch.Size((groups, out)), packed_dim=1)
        return _in_groups(q.T, zero.T, tensors[f"{module}scales"].T, columns, where)

    return (out, d_in), read


def awq(
    module: str, tensors: TensorFile, config: Mapping[str, Any], where: str
) -> tuple[tuple[int, int], Callable[[], torch.Tensor]]:
    """Check an AWQ weight of the GEMM layout: qweight and qzeros packed along d_out, interleaved.

    Raises
    ------
    FormatError
        config.json names another layout or width, or the tensors do not fit one another.
    """
    quantization = _read_quantization(config, "awq", where)
    layout = quantization.get("version") or quantization.get("format") or "gemm"
    if str(layout).lower() != "gemm" or quantization.get("bits", quantization.get("w_bit", 4)) != 4:
        raise FormatError(
            f"{where}: AWQ of {short(quantization.get('bits', 4))} bits in the layout "
            f"{short(layout)} is "
            f"not read, 4 bits in the layout gemm are; {WAY_OUT}"
        )
    d_in, words = _matrix(f"{module}qweight", tensors, where)
    groups, out = _matrix(f"{module}scales", tensors, where, scales=True)
    has_zeros = f"{module}qzeros" in tensors.headers
    _fit(
        out == words * 8
        and d_in % groups == 0
        and (not has_zeros or _matrix(f"{module}qzeros", tensors, where) == (groups, words)),
        module,
        tensors,
        where,
        "qweight qzeros scales",
    )

    def read() -> torch.Tensor:
        import torch

        names = ("qweight", "scales", "qzeros") if has_zeros else ("qweight", "scales")
        with using(_PACKAGE, where):
            from compressed_tensors.compressors.pack_quantized import unpack_from_int32 as unpack
            from compressed_tensors.entrypoints.convert.converters import AutoAWQConverter

            turned = AutoAWQConverter(
                group_size=d_in // groups, zero_point=has_zeros, ignore=()
            ).process({f"m.{name}": tensors[module + name] for name in names})
            q = unpack(turned["m.weight_packed"], 4, torch.Size((out, d_in)))
            zero = None
            if has_zeros:
                packed = turned["m.weight_zero_point"]
                zero = unpack(packed, 4, torch.Size((out, groups)), packed_dim=0)
        columns = torch.arange(d_in) // (d_in // groups)
        return _in_groups(q, zero, turned["m.weight_scale"], columns, where)

    return (out, d_in), read


def pack_quantized(
    tensor: str, tensors: TensorFile, where: str
) -> tuple[tuple[int, int], Callable[[], torch.Tensor]]:
    """Check a pack-quantized weight of compressed-tensors, which says its shape itself.

    Raises
    ------
    FormatError
        Another layout that calls its words so, or tensors that do not fit one another.
    """
    module = tensor.removesuffix("weight_packed")
    out, words = _matrix(tensor, tensors, where)
    _, groups = _matrix(f"{module}weight_scale", tensors, where, scales=True)
    shape = _read_stored_shape(f"{module}weight_shape", tensors, where)
    d_in = shape[1]
    widths = [b for b in _BITS if math.ceil(d_in * b / _WORD) == words]
    bits = widths[0] if len(widths) == 1 else 0
    zero_name, index_name = f"{module}weight_zero_point", f"{module}weight_g_idx"
    has_zeros, index = zero_name in tensors.headers, tensors.headers.get(index_name)
    _fit(
        bits
        and shape[0] == out
        and tensors.headers[f"{module}weight_scale"].shape == (out, groups)
        and (d_in % groups == 0 if index is None else index.shape == (d_in,))
        and (
            not has_zeros
            or _matrix(zero_name, tensors, where) == (math.ceil(out * bits / _WORD), groups)
        ),
        module,
        tensors,
        where,
        "weight_packed weight_scale weight_zero_point weight_g_idx",
    )

    def read() -> torch.Tensor:
        import torch

        with using(_PACKAGE, where):
            from compressed_tensors.compressors.pack_quantized import unpack_from_int32 as unpack

            q = unpack(tensors[tensor], bits, torch.Size(shape))
            zero = None
            if has_zeros:
                zero = unpack(tensors[zero_name], bits, torch.Size((out, groups)), packed_dim=0)
        if index is None:
            columns = torch.arange(d_in) // (d_in // groups)
        else:
            columns = tensors[index_name].to(torch.int64)
        return _in_groups(q, zero, tensors[f"{module}weight_scale"], columns, where)

    return shape, read


def _in_groups(
    q: torch.Tensor,
    zero: torch.Tensor | None,
    scale: torch.Tensor,
    columns: torch.Tensor,
    where: str,
) -> torch.Tensor:
    """Return (q - zero) * scale in the scale's dtype, as the model itself computes it.

    Parameters
    ----------
    q : (d_out, d_in) int8 tensor
    zero, scale : (d_out, groups) tensor
    columns : (d_in,) int64 tensor
        The group of each column.
    """
    if int(columns.min()) < 0 or int(columns.max()) >= scale.shape[1]:
        raise FormatError(
            f"{where}: g_idx names group {int(columns.max())} and {int(columns.min())} of "
            f"{scale.shape[1]}; {WAY_OUT}"
        )
    numbers = q.to(scale.dtype).contiguous()
    if zero is not None:
        numbers -= zero.to(scale.dtype)[:, columns]
    return numbers.mul_(scale[:, columns])


def _read_quantization(config: Mapping[str, Any], method: str, where: str) -> Mapping[str, Any]:
    """Return config.json's quantization_config: without it the layout would be a guess."""
    quantization = config.get("quantization_config")
    if not isinstance(quantization, dict) or quantization.get("quant_method") != method:
        stored_method = quantization.get("quant_method") if isinstance(quantization, dict) else None
        raise FormatError(
            f"{where}: looks like {method.upper()}, of which config.json beside it says "
            f"quant_method {short(stored_method)}; give the whole model folder, or {WAY_OUT}"
        )
    return quantization


def _matrix(name: str, tensors: TensorFile, where: str, *, scales: bool = False) -> tuple[int, int]:
    """Return the shape of a matrix of words, or of scales, that has to be there."""
    header = tensors.headers.get(name)
    dtypes = _SCALES if scales else {"int32"}
    if header is None or header.dtype not in dtypes or len(header.shape) != 2 or 0 in header.shape:
        layout = "missing" if header is None else f"{header.dtype} of shape {header.shape}"
        raise FormatError(
            f"{where}: {short(name)} is {layout}; a matrix of {' or '.join(sorted(dtypes))} is "
            f"wanted; {WAY_OUT}"
        )
    return header.shape[0], header.shape[1]


def _read_stored_shape(name: str, tensors: TensorFile, where: str) -> tuple[int, int]:
    header = tensors.headers.get(name)
    if header is None or header.dtype not in {"int32", "int64"} or math.prod(header.shape) != 2:
        raise FormatError(f"{where}: {short(name)} does not hold two sizes; {WAY_OUT}")
    rows, columns = (int(n) for n in tensors[name].flatten())
    if min(rows, columns) < 1:
        raise FormatError(f"{where}: {short(name)} is {rows} x {columns}; {WAY_OUT}")
    return rows, columns


def _fit(sound: object, module: str, tensors: TensorFile, where: str, names: str) -> None:
    if not sound:
        shapes = {
            n: tensors.headers[module + n].shape for n in names.split() if module + n in tensors
        }
        raise FormatError(
            f"{where}: its tensors do not fit one another as 2, 4 or 8-bit groups: "
            f"{', '.join(f'{n} {s}' for n, s in shapes.items())}; {WAY_OUT}"
        )
