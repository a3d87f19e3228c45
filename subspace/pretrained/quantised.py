"""Weights that are stored as packed integers: which scheme wrote them, and who turns them into W.

Nothing here unpacks: bitsandbytes and compressed-tensors do, one module at a time, where they are
installed. What they are given was checked first, because native code believes the sizes.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from subspace.errors import MissingExtraError
from subspace.pretrained.bits_and_bytes import eight_bit, four_bit
from subspace.pretrained.libraries import INSTALL, WAY_OUT
from subspace.pretrained.packed_groups import awq, gptq, pack_quantized
from subspace.tensorfiles import short

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch

    from subspace.tensorfiles import TensorFile

_BITSANDBYTES, _COMPRESSED = "bitsandbytes", "compressed-tensors"
# Ending of a tensor's name -> the scheme that writes it and the package that undoes it; in the
# order that tells them apart.
_SCHEMES = {
    ".g_idx": ("GPTQ", _COMPRESSED),
    ".qweight": ("GPTQ or AWQ", _COMPRESSED),
    ".absmax": ("4-bit bitsandbytes", _BITSANDBYTES),
    ".quant_state.bitsandbytes__nf4": ("4-bit bitsandbytes", _BITSANDBYTES),
    ".quant_state.bitsandbytes__fp4": ("4-bit bitsandbytes", _BITSANDBYTES),
    ".SCB": ("8-bit bitsandbytes", _BITSANDBYTES),
    ".weight_packed": ("compressed-tensors", _COMPRESSED),
}


def need_library(tensors: TensorFile, config: Mapping[str, Any]) -> None:
    """Refuse a quantised checkpoint whose library is not installed, before any work.

    Raises
    ------
    MissingExtraError
        With the scheme, the package and the way out.
    """
    quantization = config.get("quantization_config")
    method = quantization.get("quant_method") if isinstance(quantization, dict) else None
    for ending, (scheme, package) in _SCHEMES.items():
        name = next((n for n in tensors if n.endswith(ending)), None)
        if name is not None and find_spec(package.replace("-", "_")) is None:
            called = method if isinstance(method, str) else scheme
            raise MissingExtraError(
                f"{tensors.path}: a quantised base ({short(called)}: tensor {short(name)}); "
                f"to dequantise it, install {package} ({INSTALL}), or {WAY_OUT}"
            )


def quantised(
    tensor: str, tensors: TensorFile, config: Mapping[str, Any], where: str
) -> tuple[tuple[int, int], Callable[[], torch.Tensor]] | None:
    """Find the scheme of one stored weight.

    Parameters
    ----------
    tensor
        Name of the stored weight.
    where
        File and tensor, for messages.

    Returns
    -------
    tuple or None
        (d_out, d_in) of the map, and what reads its W that way round; None for a weight that is
        stored as numbers.

    Raises
    ------
    FormatError
        The scheme's tensors are not all there, do not fit, or are laid out in a way not known.
    """
    headers = tensors.headers
    if tensor.endswith(".weight_packed"):
        return pack_quantized(tensor, tensors, where)
    if tensor.endswith(".qweight"):
        module = tensor.removesuffix("qweight")
        scheme = gptq if f"{module}g_idx" in headers else awq
        return scheme(module, tensors, config, where)
    states = (".absmax", ".quant_state.bitsandbytes__nf4", ".quant_state.bitsandbytes__fp4")
    if any(tensor + state in headers for state in states):
        return four_bit(tensor, tensors, where)
    if tensor.removesuffix("weight") + "SCB" in headers:
        return eight_bit(tensor, tensors, where)
    return None
