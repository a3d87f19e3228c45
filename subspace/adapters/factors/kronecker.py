"""LoKr: the Kronecker product of two small matrices, each full or of two factors.

``kron(B1 @ A1, B2 @ A2) = kron(B1, B2) @ kron(A1, A2)``, so the update's rank is the product of
the two; a block that is full, or whose own rank is no less than a side of it, has an identity on
its shorter side. KronA, arXiv:2212.10650; LyCORIS, arXiv:2309.14859, section 3.

Layouts as peft 0.21.2 (``tuners/lokr/layer.py``) and lycoris-lora (``modules/lokr.py``) write
them, for d_out = a * k and d_in = b * n:

- ``lokr_w1`` (a, b), or ``lokr_w1_a`` (a, r) and ``lokr_w1_b`` (r, b);
- ``lokr_w2`` (k, n), of a convolution (k, n, kh, kw), or ``lokr_w2_a`` (k, r) and ``lokr_w2_b``
  (r, n), of a convolution (r, n * kh * kw);
- with a core ``lokr_t2`` (r, r, kh, kw), ``lokr_w2_a`` is (r, k) and ``lokr_w2_b`` (r, n).

The kernel stays innermost: the first matrix acts on channels alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from subspace.adapters.factors.products import Extent, multiply_core, require_small, split_matrix
from subspace.adapters.source import read_factor_shape, require_factors
from subspace.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from subspace.adapters.build import Factors
    from subspace.adapters.source import AdapterSource

_CORE = "lokr_t2"
SLOTS = ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", _CORE)


@dataclass(frozen=True, eq=False)
class Kronecker:
    """The factors of ``kron(B_1, B_2) @ kron(A_1, A_2)``, block by block."""

    first: tuple[torch.Tensor, torch.Tensor]  # B_1 (a, s), A_1 (s, b)
    second: tuple[torch.Tensor, torch.Tensor]  # B_2 (k, t), A_2 (t, n)

    def multiplied(self) -> tuple[torch.Tensor, torch.Tensor]:
        """B (a * k, s * t) and A (s * t, b * n)."""
        (B1, A1), (B2, A2) = self.first, self.second
        return _kron(B1, B2), _kron(A1, A2)


def read_extent(source: AdapterSource, module: str, slots: Mapping[str, str]) -> Extent:
    """Read shape and rank of one module off its tensors' headers.

    Parameters
    ----------
    source
        The files.
    module
        For messages.
    slots
        `SLOTS` -> tensor name.

    Returns
    -------
    Extent
        Its `dim` is None where both matrices are full: LyCORIS then does not scale at all.

    Raises
    ------
    FormatError
        A factor is missing or there twice, shapes that do not multiply, or a product too large.
    """
    blocks = [_block(source, module, slots, n) for n in "12"]
    (a, b, first), (k, n, second) = ((*size, dim) for size, dim in blocks)
    if first is not None and second is not None and first != second:
        raise FormatError(
            f"{source.text(slots['lokr_w1_b'])} and {source.text(slots['lokr_w2_b'])} have "
            f"different ranks, {first} and {second}, in module {module!r}"
        )
    ranks = [min(*size, *(() if dim is None else (dim,))) for size, dim in blocks]
    dim = second if first is None else first
    tensors = tuple(slots[slot] for slot in SLOTS if slot in slots)
    multiplied = 4 if _CORE in slots else 2
    last = slots.get(_CORE, slots.get("lokr_w2"))
    kernel = source.tensors.headers[last].shape[2:] if last else ()
    rank = ranks[0] * ranks[1]
    extent = Extent(
        shape=(a * k, b * n),
        rank=rank,
        dim=dim,
        tensors=tensors,
        multiplied=multiplied,
        kernel=kernel,
    )
    return require_small(source, module, extent)


def _block(
    source: AdapterSource, module: str, slots: Mapping[str, str], n: str
) -> tuple[tuple[int, int], int | None]:
    """Return the sides of one of the two matrices, and the width of its factors if it has any."""
    full, left, right = f"lokr_w{n}", f"lokr_w{n}_a", f"lokr_w{n}_b"
    has_core = n == "2" and _CORE in slots
    parts = [slot for slot in (left, right) if slot in slots] + [_CORE] * has_core
    if full in slots:
        if parts:
            raise FormatError(
                f"{source.weights}: module {module!r} has {slots[full]!r} and {slots[parts[0]]!r}, "
                "a matrix and factors for the same place"
            )
        shape = read_factor_shape(source, slots[full], (2,) if n == "1" else (2, 3, 4, 5))
        return (shape[0], math.prod(shape[1:])), None
    if not parts:
        require_factors(source, module, slots, full)
    require_factors(source, module, slots, left, right)
    shape_a, shape_b = (
        read_factor_shape(source, slots[left]),
        read_factor_shape(source, slots[right]),
    )
    if not has_core:
        p, width = shape_a
        kernel: tuple[int, ...] = (width, width)
    else:
        width, p = shape_a
        kernel = read_factor_shape(source, slots[_CORE], (3, 4, 5))
    dim, q = shape_b
    if width != dim or kernel[:2] != (dim, dim):
        beside = f" with {source.text(slots[_CORE])}" if has_core else ""
        raise FormatError(
            f"{source.text(slots[left])} and {slots[right]!r} {shape_b}{beside} do not multiply in "
            f"module {module!r}"
        )
    return (p, q * math.prod(kernel[2:])), dim


def build_factors(slots: Mapping[str, str]) -> Factors:
    """Return what makes the two blocks of the tensors, in float64."""
    return lambda tensors: _factors(
        {slot: tensors[slots[slot]].double() for slot in SLOTS if slot in slots}
    )


def _factors(tensors: Mapping[str, torch.Tensor]) -> Kronecker:
    return Kronecker(_thin(tensors, "1"), _thin(tensors, "2"))


def _kron(one: torch.Tensor, two: torch.Tensor) -> torch.Tensor:
    # torch.kron fails on some strides of a side of length 1.
    product = one[:, None, :, None] * two[None, :, None, :]  # (p, p', q, q')
    return product.flatten(0, 1).flatten(1)


def _thin(tensors: Mapping[str, torch.Tensor], n: str) -> tuple[torch.Tensor, torch.Tensor]:
    full = tensors.get(f"lokr_w{n}")
    if full is not None:
        return split_matrix(None, None, full.flatten(1))
    left, right = tensors[f"lokr_w{n}_a"], tensors[f"lokr_w{n}_b"]
    core = tensors.get(_CORE) if n == "2" else None
    return (
        split_matrix(left, right)
        if core is None
        else split_matrix(left.T, multiply_core(core, right))
    )
