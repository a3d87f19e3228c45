"""Products with a large W, panel by panel, and random directions."""

from __future__ import annotations

import torch
from torch import Tensor

_PANEL = 1 << 17


def project(U: Tensor, W: Tensor, V: Tensor) -> Tensor:
    """Form ``U.T @ W @ V`` in float64, W (m, n) of any dtype read panel by panel.

    Parameters
    ----------
    U, V
        (m, p) and (n, q) float64.

    Returns
    -------
    (p, q) float64.

    >>> project(torch.eye(3, 1).double(), torch.ones(3, 2), torch.ones(2, 1).double()).tolist()
    [[2.0]]
    """
    out = torch.zeros(U.shape[1], V.shape[1], dtype=torch.float64, device=U.device)
    height = max(64, _PANEL // max(W.shape[1], 1))
    for start in range(0, W.shape[0], height):
        panel = W[start : start + height].to(U.device, torch.float64)
        out.addmm_(U[start : start + height].T, panel @ V)
    return out


def haar(d: int, k: int, count: int, *, seed: int) -> Tensor:
    """Draw orthonormal bases (count, d, k), float64, of uniformly random subspaces.

    QR of Gaussian matrices with the sign of R's diagonal fixed (Mezzadri 2007, Notices AMS 54).

    >>> U = haar(5, 2, 3, seed=0)
    >>> torch.allclose(U.mT @ U, torch.eye(2, dtype=torch.float64).expand(3, 2, 2))
    True
    """
    generator = torch.Generator().manual_seed(seed)
    gaussian = torch.randn(count, d, k, generator=generator, dtype=torch.float64)
    Q, R = torch.linalg.qr(gaussian)
    basis: Tensor = Q * R.diagonal(dim1=-2, dim2=-1).sign()[:, None, :]
    return basis
