"""LoHa: the entrywise product of two low-rank matrices, as one pair of factors.

``(B1 @ A1) * (B2 @ A2)``, FedPara, arXiv:2108.06098, eq. 2, has the factors whose rows (of B) and
columns (of A) are Kronecker products of those of the two: ``B[p, i * r + j] = B1[p, i] B2[p, j]``.
Their rank is r², or a side of the matrix where that is less: then one of them is an identity.

Layouts as peft 0.21.2 (``tuners/loha/layer.py``) and lycoris-lora (``modules/loha.py``) write them:

- ``hada_w1_a`` (d_out, r), ``hada_w1_b`` (r, d_in), ``hada_w2_a``, ``hada_w2_b`` likewise; of a
  convolution d_in is in / groups * kh * kw, which OneTrainer keeps apart: ``hada_w1_a``
  (d_out, r, 1, 1) and ``hada_w1_b`` (r, in, kh, kw);
- with a core, ``hada_t1`` and ``hada_t2`` (r, r, kh, kw): ``hada_w1_a`` is (r, d_out) and
  ``hada_w1_b`` (r, in / groups).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from subspace.adapters.factors.products import Extent, multiply_core, require_small, split_matrix
from subspace.adapters.source import read_factor_shape, require_factors
from subspace.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from subspace.adapters.build import Factors
    from subspace.adapters.source import AdapterSource

_FOUR = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
_CORES = ("hada_t1", "hada_t2")
SLOTS = (*_FOUR, *_CORES)


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

    Raises
    ------
    FormatError
        A factor is missing, shapes that do not multiply, or a product that is too large.
    """
    cores = _CORES if any(core in slots for core in _CORES) else ()
    require_factors(source, module, slots, *_FOUR, *cores)
    # With a core the kernel is the core's, and the factors are matrices.
    dimensions = (2,) if cores else (2, 3, 4, 5)
    stored = {slot: read_factor_shape(source, slots[slot], dimensions) for slot in _FOUR}
    shapes = {slot: (shape[0], math.prod(shape[1:])) for slot, shape in stored.items()}
    apart = stored["hada_w1_b"][2:]  # a kernel that was not laid flat
    if stored["hada_w2_b"][2:] != apart:
        raise FormatError(
            f"{source.text(slots['hada_w2_b'])} does not fit {slots['hada_w1_b']!r} "
            f"{stored['hada_w1_b']}: their kernels differ"
        )
    kernels = [read_factor_shape(source, slots[core], (3, 4, 5)) for core in cores]
    if cores:  # (r, d_out) and (r, in)
        d_out, dim, d_in = shapes["hada_w1_a"][1], *shapes["hada_w1_b"]
        wanted = {"hada_w1_a": (dim, d_out), "hada_w1_b": (dim, d_in)}
    else:
        d_out, dim, d_in = shapes["hada_w1_a"][0], *shapes["hada_w1_b"]
        wanted = {"hada_w1_a": (d_out, dim), "hada_w1_b": (dim, d_in)}
    wanted |= {slot.replace("1", "2"): shape for slot, shape in wanted.items()}
    for slot, shape in shapes.items():
        if shape != wanted[slot]:
            raise FormatError(
                f"{source.text(slots[slot])} does not fit {slots['hada_w1_b']!r} "
                f"{shapes['hada_w1_b']}: module {module!r} wants {wanted[slot]}"
            )
    for core, kernel in zip(cores, kernels, strict=True):
        if kernel[:2] != (dim, dim) or kernel != kernels[0]:
            raise FormatError(
                f"{source.text(slots[core])} is not the core of factors of rank {dim} in module "
                f"{module!r}"
            )
    kernel = kernels[0][2:] if kernels else apart
    d_in *= math.prod(kernel) if kernels else 1
    tensors = tuple(slots[slot] for slot in (*_FOUR, *cores))
    rank = min(dim * dim, d_out, d_in)
    multiplied = 4 if rank < dim * dim or cores else 2
    return require_small(
        source,
        module,
        Extent(
            shape=(d_out, d_in),
            rank=rank,
            dim=dim,
            tensors=tensors,
            multiplied=multiplied,
            kernel=kernel,
        ),
    )


def build_factors(slots: Mapping[str, str]) -> Factors:
    """Return what makes B (d_out, rank) and A (rank, d_in) of the tensors, in float64."""
    return lambda tensors: _factors(
        {
            slot: t.flatten(1) if slot in _FOUR else t
            for slot in SLOTS
            if slot in slots
            for t in (tensors[slots[slot]].double(),)
        }
    )


def _factors(tensors: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    (B1, A1), (B2, A2) = (_pair(tensors, n) for n in "12")
    dim = len(A1)
    if dim * dim >= min(len(B1), A1.shape[1]):
        return split_matrix(None, None, (B1 @ A1) * (B2 @ A2))
    B = (B1[:, :, None] * B2[:, None, :]).flatten(1)  # (d_out, r²)
    A = (A1[:, None, :] * A2[None, :, :]).flatten(0, 1)  # (r², d_in)
    return B, A


def _pair(tensors: Mapping[str, torch.Tensor], n: str) -> tuple[torch.Tensor, torch.Tensor]:
    a, b, core = tensors[f"hada_w{n}_a"], tensors[f"hada_w{n}_b"], tensors.get(f"hada_t{n}")
    return (a, b) if core is None else (a.T, multiply_core(core, b))
