"""What our time is held against: a competent float32 QR loop, the dense SVD, the machine's floor.

None of it imports `subspace`; everything takes plain pairs of factors.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from torch import Tensor

    Pair = tuple[Tensor, Tensor, float]  # A (r, d_in), B (d_out, r), scale

PANEL = 1 << 17  # float64 entries of a panel in the floor: 1 MB, within a core's cache


def phi(U: Tensor, V: Tensor) -> Tensor:
    """Eq. 4 of Hu et al. 2021 for orthonormal U (d, r_a), V (d, r_b): (r_a, r_b)."""
    return phi_grid(U.T @ V)


def phi_grid(overlap: Tensor) -> Tensor:
    """Phi from the overlap of two sets of directions."""
    i = torch.arange(1, overlap.shape[0] + 1)
    j = torch.arange(1, overlap.shape[1] + 1)
    smaller = torch.minimum(i[:, None], j[None, :])
    return overlap.square().cumsum(0).cumsum(1) / smaller


def qr_module(first: Pair, second: Pair, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Phi of sides A and B and both spectra of one module, by Householder QR.

    Two QRs an adapter serve all four: the factor's own directions come from the SVD of R, and the
    core of delta W is R_B R_A^T. Directions of length d are never formed: their overlap is
    X_a^T (Q_a^T Q_b) X_b.
    """
    bases: list[list[tuple[Tensor, Tensor]]] = []
    out: dict[str, Tensor] = {}
    for n, (A, B, scale) in enumerate((first, second)):
        Q_A, R_A = torch.linalg.qr(A.T.to(dtype))
        Q_B, R_B = torch.linalg.qr(B.to(dtype))
        out[f"S{n}"] = torch.linalg.svdvals(R_B @ R_A.T) * scale
        bases.append([(Q_A, torch.linalg.svd(R_A)[0]), (Q_B, torch.linalg.svd(R_B)[0])])
    for side, (Q1, X1), (Q2, X2) in zip("AB", *bases, strict=True):
        out[side] = phi_grid(X1.T @ (Q1.T @ Q2) @ X2)
    return out


def qr_exact(first: Pair, second: Pair) -> dict[str, Tensor]:
    """Phi of all four sides by float64 Householder QR, directions formed: what accuracy means."""
    out = qr_module(first, second, torch.float64)
    directions = []
    for A, B, scale in (first, second):
        Q_A, R_A = torch.linalg.qr(A.T.double())
        Q_B, R_B = torch.linalg.qr(B.double())
        X, _, Zh = torch.linalg.svd(scale * R_B @ R_A.T)
        directions.append((Q_A @ Zh.T, Q_B @ X))
    out["in"] = phi(directions[0][0], directions[1][0])
    out["out"] = phi(directions[0][1], directions[1][1])
    return out


def dense_svd(pair: Pair) -> Tensor:
    """Form delta W in float32 and take its thin SVD."""
    A, B, scale = pair
    return torch.linalg.svd(scale * (B.float() @ A.float()), full_matrices=False)[1]


def in_threads(work: Callable[[int], object], count: int) -> None:
    """Run `work` on 0 ... count - 1, one Python thread a core and one BLAS thread each."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(before) as pool:
            for _ in pool.map(work, range(count)):
                pass
    finally:
        torch.set_num_threads(before)


def read_bytes(tensors: Sequence[Tensor]) -> None:
    """Read every mapped byte once: a float32 sum, whose arithmetic hides behind the memory."""
    in_threads(lambda n: tensors[n].view(torch.int32).amax(), len(tensors))


def gram_gemms(shapes: Iterable[tuple[int, int]], *, rows: bool) -> None:
    """Multiply float64 Grams of stacked factors (d, R), one a shape, on a buffer in the cache.

    The least arithmetic that phi and both spectra of a pair need on the Gram way: every own and
    cross Gram once, with nothing converted and nothing read from memory.
    """
    listed = list(shapes)

    def work(n: int) -> None:
        d, width = listed[n]
        height = min(d, max(64, PANEL // width))
        buffer = torch.ones((width, height) if rows else (height, width), dtype=torch.float64)
        panel = buffer.T if rows else buffer
        out = torch.zeros(width, width, dtype=torch.float64)
        for at in range(0, d, height):
            part = panel[: min(height, d - at)]
            out.addmm_(part.T, part)

    in_threads(work, len(listed))
