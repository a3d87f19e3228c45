"""The plain pair, A (r, d_in) and B (d_out, r), as most writers store it; an alpha asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from subspace.adapters.build import UpdateSpec
from subspace.adapters.source import read_factor_shape
from subspace.errors import FormatError

if TYPE_CHECKING:
    from subspace.adapters.source import AdapterSource


def require_alpha(source: AdapterSource, writer: str) -> float:
    """Return the alpha that the user gave, of a format that stores none.

    Raises
    ------
    FormatError
        None was given.
    """
    if source.alpha is None:
        raise FormatError(
            f"{source.weights}: {writer} stores no alpha, and the scale is alpha / r; give it with "
            "load(…, alpha=16) or --alpha 16, as the training script says"
        )
    return source.alpha


def specify_linear(
    source: AdapterSource, module: str, a: str, b: str, alpha: float, *, why: str = ""
) -> UpdateSpec:
    """Plan the update ``alpha / r * B @ A`` of a linear layer, from headers alone.

    Parameters
    ----------
    source
        The files.
    module
        The base's path.
    a, b
        Names of A (r, d_in) and B (d_out, r).
    alpha
        As the writer has it.
    why
        What it may mean if the ranks differ, for the message.

    Raises
    ------
    FormatError
        The shapes are no factors, or do not multiply.
    """
    (rank, d_in), (d_out, width) = read_factor_shape(source, a), read_factor_shape(source, b)
    if rank != width:
        raise FormatError(
            f"{source.text(a)} and {b!r} {(d_out, width)} have different ranks, {rank} and {width}"
            + why
        )
    return UpdateSpec(
        module=module,
        shape=(d_out, d_in),
        rank=rank,
        scale=alpha / rank,
        tensors=(a, b),
        factors=lambda tensors: (tensors[b], tensors[a]),
    )
