"""DoRA's magnitude: what the rows of the adapted weight, or its columns, are brought to.

``W' = m (W + s B A) / |W + s B A|``, norms of rows (DoRA, arXiv:2402.09353, eq. 5). Writers differ
in what a row is: PEFT, torchtune, Megatron and MLX-LM have an entry an output, MLX-LM an entry a
word of an embedding, which here is a column. LyCORIS' ``dora_scale`` is (d_out, 1, …) with
``wd_on_output``, else (1, inputs, …): a norm over outputs and kernel.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from subspace.adapters.set_aside import SetAside, SetAsideReason
from subspace.adapters.source import FLOATS
from subspace.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from subspace.adapters.build import UpdateSpec
    from subspace.adapters.source import AdapterSource


def set_magnitude_aside(update: UpdateSpec, source: AdapterSource) -> SetAside:
    """Check a magnitude against its update, from headers alone.

    Raises
    ------
    FormatError
        It fits neither side of the module, or holds no floats.
    """
    header = source.tensors.headers[update.magnitude]
    count, (d_out, d_in) = math.prod(header.shape), update.shape
    over_outputs = _over_outputs(update, header.shape)
    fits = count == d_out if over_outputs else count > 0 and d_in % count == 0
    if not fits or header.dtype not in FLOATS:
        raise FormatError(
            f"{source.text(update.magnitude)} is no magnitude of module {update.module!r}, "
            f"{d_out} x {d_in}"
        )
    return SetAside.of(update.magnitude, header, SetAsideReason.MAGNITUDE, module=update.module)


def read_magnitude(update: UpdateSpec, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor | None:
    """Read it, as `LowRankUpdate.magnitude` has it."""
    if not update.magnitude:
        return None
    tensor = tensors[update.magnitude]
    if _over_outputs(update, tuple(tensor.shape)):
        return update.rows(tensor.reshape(-1)).reshape(-1, 1)
    return tensor.reshape(1, -1)


def _over_outputs(update: UpdateSpec, shape: tuple[int, ...]) -> bool:
    if update.magnitude.endswith("dora_scale"):
        return shape[:1] != (1,) or update.shape[0] == 1
    return math.prod(shape) == update.shape[0]
