"""`Weight`: one module's W, and which way round the file holds it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from subspace.errors import ShapeError
from subspace.modules.words import list_words

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

# An embedding maps a one-hot of the vocabulary to a vector; all libraries store (vocab, dim).
EMBEDDINGS = frozenset(
    (*list_words("embeddings"), *list_words("positions"), *list_words("segments"))
)
# What transformers.pytorch_utils.Conv1D, which stores (in, out), goes by in GPT-2 and its kin.
CONV1D = frozenset({"c_attn", "c_fc", "c_proj", "q_attn"})


@dataclass(frozen=True, eq=False, kw_only=True)
class Weight:
    """One module's pretrained weight, read when `W` is asked for.

    Attributes
    ----------
    name
        The module, as it was asked for.
    source
        File and tensor, for messages.
    shape
        (d_out, d_in) of the map y = W x, known from the header.
    stored_transposed
        Whether the file holds (d_in, d_out).
    dtype
        torch's name of the stored dtype, without ``torch.``.
    kernel
        Of a convolution: what follows (out, in / groups) in its shape.
    tensors
        Names of the stored tensors that it is, or is a part of; without scales and the like.
    """

    name: str
    source: str
    shape: tuple[int, int]
    stored_transposed: bool
    dtype: str
    _read: Callable[[], torch.Tensor] = field(repr=False)  # W, the way round that the map has
    kernel: tuple[int, ...] = ()
    tensors: tuple[str, ...] = ()

    @property
    def W(self) -> torch.Tensor:
        """The (d_out, d_in) tensor, a view of the mapped file: treat it as read-only.

        It is a copy, made anew each time, only where no view exists: heads that are interleaved
        with others, projections that are stored apart, float8 (which becomes float32), quantised
        integers (which become floats of the dtype that the model computes with).

        Raises
        ------
        FormatError
            The file cannot be read, or its library cannot dequantise it.
        MissingExtraError
            That library cannot be imported.
        """
        return self._read()


def as_map(stored: torch.Tensor, *, transposed: bool) -> torch.Tensor:
    """View a stored tensor as the matrix of its map."""
    matrix = stored.flatten(1)
    return matrix.T if transposed else matrix


def orientation(
    module: str,
    stored: tuple[int, ...],
    *,
    conv1d: bool,
    wanted: tuple[int, int] | None,
    where: str,
) -> tuple[tuple[int, int], bool]:
    """Say what shape the map has, and whether that is the transpose of the stored tensor.

    The name decides (an embedding, a Conv1D); a shape that only the other way round fits
    overrules it.

    Parameters
    ----------
    module
        The module's path; its last component is looked at.
    stored
        Shape of the stored tensor; a convolution's (out, in/groups, kh, kw) is flattened.
    conv1d
        Whether the checkpoint is of a family that stores (in, out) in its c_attn, c_fc, c_proj.
    wanted
        (d_out, d_in) of the update that W is to be held against, if known.
    where
        File and tensor, for the message.

    Raises
    ------
    ShapeError
        Neither way round has the shape that is wanted.
    """
    last = module.removesuffix(".base_layer").rsplit(".", 1)[-1]
    rows, columns = stored[0], math.prod(stored[1:])
    matrix = len(stored) == 2
    transposed = matrix and (last in EMBEDDINGS or (conv1d and last in CONV1D))
    shape = (columns, rows) if transposed else (rows, columns)
    if wanted is None or wanted == shape:
        return shape, transposed
    if matrix and wanted == shape[::-1]:
        return wanted, not transposed
    raise misfit(module, wanted, shape, where)


def misfit(module: str, wanted: tuple[int, int], shape: tuple[int, int], where: str) -> ShapeError:
    """Word the error for an update that is not of W's shape."""
    return ShapeError(
        f"module {module!r}: the update is {wanted[0]} x {wanted[1]}, "
        f"W is {shape[0]} x {shape[1]} ({where}); is this the adapter's base model?"
    )
