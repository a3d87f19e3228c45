"""Products with a large W of any dtype, panel by panel: no copy of it, whatever its scale."""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from subspace.linalg.difference import Difference

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from subspace.linalg.difference import Matrix

    Pairs = Sequence[tuple[Tensor, Tensor]]

_ROWS = 256  # of a panel: 4 MB of float32 at 4096 columns, multiplied while it is in cache
_COLUMNS = 4096  # summed in float32 at a time: its rounding grows with the root of them
_SMALL = 1 << 21  # entries up to which float64 costs nothing to speak of
_NARROW = (torch.float32, torch.bfloat16, torch.float16)
# Root mean squares between which no square over- or underflows, nor is rounded as a subnormal.
_SAFE = {torch.float32: (1e-12, 1e12), torch.float64: (1e-120, 1e120)}


@contextmanager
def highest_precision() -> Iterator[None]:
    """Keep float32 products in float32, no TF32, and give the caller's setting back."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def panels(
    W: Matrix, dtype: torch.dtype, device: torch.device | str
) -> Iterator[tuple[slice, Tensor]]:
    """Yield W (m, n) as blocks of rows in another dtype, one after the other in one buffer.

    Converting a panel and multiplying it while it is in the cache costs no more than multiplying a
    W that lies converted in memory, and no copy of W.
    """
    m, n = W.shape
    rows = min(_ROWS, m)
    # A W that is stored transposed is read along its rows there: down the columns here.
    turned = W.stride(0) == 1 and n > 1
    buffer = torch.empty((n, rows) if turned else (rows, n), dtype=dtype, device=device)
    for start in range(0, m, rows):
        at = slice(start, min(start + rows, m))
        panel = buffer[:, : at.stop - start].T if turned else buffer[: at.stop - start]
        if isinstance(W, Difference):
            W.into(panel, at)
        else:
            panel.copy_(W[at])
        yield at, panel


def own_gram(W: Matrix, device: torch.device | str) -> Tensor:
    """Return ``W.T @ W`` (n, n) in float64, one pass over W.

    >>> own_gram(torch.tensor([[1.0, 2.0]]), "cpu").tolist()
    [[1.0, 2.0], [2.0, 4.0]]
    """
    n = W.shape[1]
    out = torch.zeros(n, n, dtype=torch.float64, device=device)
    for _, panel in panels(W, torch.float64, device):
        out.addmm_(panel.T, panel)
    return out


def gram_times(W: Matrix, X: Tensor, dtype: torch.dtype, *, norm: float = 1.0) -> Tensor:
    """Return ``W.T @ W @ X / norm**2`` for X (n, k), products in `dtype`; one pass over W.

    >>> gram_times(torch.tensor([[1.0, 1.0]]), torch.eye(2), torch.float64).tolist()
    [[1.0, 1.0], [1.0, 1.0]]
    """
    columns = (X / norm).to(dtype)
    out = torch.zeros_like(columns)
    for _, panel in panels(W, dtype, X.device):
        out.addmm_(panel.T, panel @ columns)
    return out.to(X.dtype) / norm


def sweep_dtype(W: Tensor) -> torch.dtype:
    """Return the dtype that `sweep` multiplies in: float32 where W is large and stored in 32 bits.

    An entry of a projection is then off by 3e-7 of what a random pair of directions has of W,
    root mean square, and the norm by 1e-8 of itself.
    """
    return torch.float32 if W.numel() > _SMALL and W.dtype in _NARROW else torch.float64


def sweep(
    W: Tensor,
    pairs: Pairs,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
) -> tuple[float, list[Tensor]]:
    """Read W once: its Frobenius norm, and ``U.T @ W @ V`` for every pair (U, V).

    The directions of all pairs are set side by side, so that one product with each panel of W
    serves them all. Beyond W as it lies there, memory is one panel and the directions.

    Parameters
    ----------
    W : (m, n)
        Of any float dtype, on any device; bfloat16 is converted panel by panel.
    pairs
        U (m, p) and V (n, q) in float64.
    dtype
        Of the products; None: what `sweep_dtype` says.
    device
        Where to multiply.

    Returns
    -------
    The norm, and the projections (p, q) float64 on the CPU. NaN and infinities in W make the norm
    non-finite; nothing else does.

    >>> norm, (P,) = sweep(torch.ones(2, 2), [(torch.eye(2, 1), torch.eye(2, 1))])
    >>> norm, P.tolist()
    (2.0, [[1.0]])
    """
    dtype = dtype or sweep_dtype(W)
    norm, inside = _sweep(W, pairs, dtype, 1.0, device)
    low, high = _SAFE[dtype]
    if low <= norm / math.sqrt(max(W.numel(), 1)) <= high:
        return norm, inside
    # Weights of such a size are rare enough to be read twice more.
    largest = max((float(panel.abs().amax()) for _, panel in panels(W, dtype, device)), default=0.0)
    if largest == 0 or not math.isfinite(largest):
        return largest, inside
    exponent = math.frexp(largest)[1]
    norm, inside = _sweep(W, pairs, torch.float64, math.ldexp(1.0, -exponent), device)
    return math.ldexp(norm, exponent), [torch.ldexp(P, torch.tensor(exponent)) for P in inside]


def _sweep(
    W: Tensor, pairs: Pairs, dtype: torch.dtype, factor: float, device: torch.device | str
) -> tuple[float, list[Tensor]]:
    """Sweep ``factor * W``."""
    right = [V.to(device, dtype) for _, V in pairs]
    columns = torch.cat(right, dim=1) if right else None
    left = [U.to(device, torch.float64) for U, _ in pairs]
    widths = [V.shape[1] for V in right]
    out = [
        torch.zeros(U.shape[1], width, dtype=torch.float64, device=device)
        for U, width in zip(left, widths, strict=True)
    ]
    squares = torch.zeros((), dtype=torch.float64, device=device)
    with highest_precision():
        for at, panel in panels(W, dtype, device):
            if factor != 1.0:
                panel.mul_(factor)
            # Row by row in the panel's dtype, over rows in float64: 2e-8 off at 4096 columns.
            squares += torch.linalg.vecdot(panel, panel).sum(dtype=torch.float64)
            if columns is None:
                continue
            images = torch.split(_times(panel, columns), widths, dim=1)
            for total, U, image in zip(out, left, images, strict=True):
                total.addmm_(U[at].T, image)
    return math.sqrt(float(squares)), [total.cpu() for total in out]


def _times(panel: Tensor, columns: Tensor) -> Tensor:
    """``panel @ columns``, added up in float64 over blocks of columns of the panel."""
    n = panel.shape[1]
    total = (panel[:, :_COLUMNS] @ columns[:_COLUMNS]).to(torch.float64)
    for start in range(_COLUMNS, n, _COLUMNS):
        total += panel[:, start : start + _COLUMNS] @ columns[start : start + _COLUMNS]
    return total
