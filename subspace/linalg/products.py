"""Products with a large W of any dtype, panel by panel, and random directions."""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_ROWS = 256  # of a panel: 4 MB of float32 at 4096 columns, multiplied while it is in cache
_SMALL = 1 << 21  # entries up to which float64 costs nothing to speak of
_NARROW = (torch.float32, torch.bfloat16, torch.float16)


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
    W: Tensor, dtype: torch.dtype, device: torch.device | str
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
        panel.copy_(W[at])
        yield at, panel


def gram_times(W: Tensor, X: Tensor, dtype: torch.dtype) -> Tensor:
    """Return ``W.T @ W @ X`` for X (n, k), products in `dtype`, the result in X's; one pass over W.

    >>> gram_times(torch.tensor([[1.0, 1.0]]), torch.eye(2), torch.float64).tolist()
    [[1.0, 1.0], [1.0, 1.0]]
    """
    columns = X.to(dtype)
    out = torch.zeros_like(columns)
    for _, panel in panels(W, dtype, X.device):
        out.addmm_(panel.T, panel @ columns)
    return out.to(X.dtype)


def sweep_dtype(W: Tensor) -> torch.dtype:
    """Return the dtype that `sweep` multiplies in: float32 where W is large and stored in 32 bits.

    An entry of a projection is then off by 3e-7 of what a random pair of directions has of W,
    root mean square, and the norm by 1e-8 of itself.
    """
    return torch.float32 if W.numel() > _SMALL and W.dtype in _NARROW else torch.float64


def sweep(
    W: Tensor,
    pairs: Sequence[tuple[Tensor, Tensor]],
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
) -> tuple[float, list[Tensor]]:
    """Read W once: its squared Frobenius norm, and ``U.T @ W @ V`` for every pair (U, V).

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
    The sum of squares, and the projections (p, q) float64 on the CPU. NaN and infinities in W make
    the sum non-finite; nothing else does.

    >>> squares, (P,) = sweep(torch.ones(3, 2), [(torch.eye(3, 1), torch.eye(2, 1))])
    >>> squares, P.tolist()
    (6.0, [[1.0]])
    """
    squares, inside = _sweep(W, pairs, dtype or sweep_dtype(W), device)
    if not math.isfinite(squares):  # float32 squares overflow at 1e19, which is no weight's fault
        return _sweep(W, pairs, torch.float64, device)
    return squares, inside


def _sweep(
    W: Tensor,
    pairs: Sequence[tuple[Tensor, Tensor]],
    dtype: torch.dtype,
    device: torch.device | str,
) -> tuple[float, list[Tensor]]:
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
            # Row by row in the panel's dtype, over rows in float64: 2e-8 off at 4096 columns.
            squares += torch.linalg.vecdot(panel, panel).sum(dtype=torch.float64)
            if columns is None:
                continue
            images = torch.split((panel @ columns).to(torch.float64), widths, dim=1)
            for total, U, image in zip(out, left, images, strict=True):
                total.addmm_(U[at].T, image)
    return float(squares), [total.cpu() for total in out]
