"""Pure tensor mathematics of tall factors, in float64. Knows nothing of adapters.

A *tall* factor F is (..., d, r): the columns of B, or the rows of A as columns. It is split as
``F = scale * Q @ R`` with orthonormal ``Q = columns @ transform``. By Cholesky
``columns`` is F itself, so Q is never formed: everything that this package wants is a function of
the r x r matrices and of Gram blocks ``F_a.T @ F_b``.

The methods, cheapest first; the caller takes the next one while `Orthogonal.sound` is False:

- ``cholesky``: Cholesky of the diagonally scaled float64 Gram.
- ``cholesky_qr2``: CholeskyQR2 (Yamamoto et al. 2015, ETNA 44), for CUDA, where batched
  Householder QR is slow.
- ``householder_qr``: Householder QR.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

QRMethod = Literal["cholesky", "cholesky_qr2", "householder_qr"]

EPS = torch.finfo(torch.float64).eps
GRAM_BOUND = 1e-9  # Cholesky is sound while eps * kappa**2 stays below: kappa < 2.1e3
CHOLESKY_QR2_KAPPA = 1e7  # beyond it the first Cholesky of CholeskyQR2 loses orthogonality
_PANEL = 1 << 17  # entries of a panel of `gram`: 1 MB of float64, within a core's own cache


@dataclass(frozen=True, eq=False, kw_only=True)
class Orthogonal:
    """``F = scale * Q @ R`` of tall factors F (..., d, r), with k = min(d, r).

    Attributes
    ----------
    columns : (..., d, m)
        F / scale in its stored dtype (Cholesky, m = r) or Q in float64 (the others, m = k).
        By Cholesky also a sequence of (d, r): large factors are never copied into one batch.
    transform : (..., m, k) float64
        ``Q = columns @ transform``; the identity but for Cholesky.
    R : (..., k, r) float64
    scale : (...) float64
        What F was divided by, so that squares neither overflow nor vanish.
    kappa : (...) float64
        ``|L|_F |L^-1|_F`` of the scaled Gram's Cholesky factor, an upper bound of F's scaled
        condition number; NaN by Householder QR, which does not depend on it.
    sound : (...) bool
        Whether this method can be trusted for this factor.
    """

    columns: Tensor | Sequence[Tensor]
    transform: Tensor
    R: Tensor
    scale: Tensor
    kappa: Tensor
    sound: Tensor
    method: QRMethod


def gram(talls: Sequence[Tensor]) -> Tensor:
    """Float64 Gram of tall factors set side by side: every own and cross Gram at once.

    Parameters
    ----------
    talls
        N tensors (..., d, r_n) of any float dtype, equal but for r_n.

    Returns
    -------
    (..., R, R) float64 with R = sum of r_n. A non-finite entry of a factor stored in 32 bits or
    fewer makes its diagonal entry non-finite, and only then: such squares cannot overflow here.

    >>> gram([torch.eye(3, 2), torch.ones(3, 1)]).tolist()
    [[1.0, 0.0, 1.0], [0.0, 1.0, 1.0], [1.0, 1.0, 3.0]]
    """
    if talls[0].dim() > 2:
        stacked = torch.cat([t.to(torch.float64) for t in talls], dim=-1)
        return stacked.mT @ stacked
    # One module at a time: convert panels into one reused buffer, multiply while it is in cache.
    d, width = talls[0].shape[0], sum(t.shape[1] for t in talls)
    height = min(d, max(64, _PANEL // max(width, 1)))
    out = torch.zeros(width, width, dtype=torch.float64, device=talls[0].device)
    # The buffer is laid out as the factors are stored, so that both sides are read in sequence.
    by_rows = talls[0].stride(0) == 1 and talls[0].shape[1] > 1
    shape = (width, height) if by_rows else (height, width)
    buffer = torch.empty(shape, dtype=torch.float64, device=out.device)
    for start in range(0, d, height):
        stop = min(start + height, d)
        panel = buffer[:, : stop - start].T if by_rows else buffer[: stop - start]
        at = 0
        for tall in talls:
            panel[:, at : at + tall.shape[1]].copy_(tall[start:stop])
            at += tall.shape[1]
        out.addmm_(panel.T, panel)
    return out


def from_gram(tall: Tensor | Sequence[Tensor], own: Tensor) -> Orthogonal:
    """Cholesky: read Q and R of `tall` (..., d, r) out of its Gram `own` (..., r, r).

    `tall` may be a sequence of n factors (d, r) with `own` (n, r, r).

    Cholesky of the Gram scaled to a unit diagonal is accurate to eps * kappa**2 where kappa is
    the condition number *after* the best column scaling, nearly (van der Sluis 1969).
    """
    norms = own.diagonal(dim1=-2, dim2=-1).sqrt()  # (..., r)
    safe = torch.where(norms > 0, norms, 1.0)
    scaled = own / safe[..., :, None] / safe[..., None, :]
    L, info = torch.linalg.cholesky_ex(scaled)
    eye = torch.eye(own.shape[-1], dtype=own.dtype, device=own.device).expand_as(own)
    d = tall.shape[-2] if isinstance(tall, Tensor) else tall[0].shape[-2]
    good = (info == 0) & (norms > 0).all(-1) & (d >= own.shape[-1])
    L = torch.where(good[..., None, None], L, eye)
    inverse = torch.linalg.solve_triangular(L, eye, upper=False)
    kappa = torch.linalg.matrix_norm(L) * torch.linalg.matrix_norm(inverse)
    sound = good & (EPS * kappa.square() <= GRAM_BOUND)
    return Orthogonal(
        columns=tall,
        transform=inverse.mT / safe[..., :, None],
        R=L.mT * safe[..., None, :],
        scale=torch.ones_like(kappa),
        kappa=kappa,
        sound=sound,
        method="cholesky",
    )


def unit_scale(tall: Tensor) -> tuple[Tensor, Tensor]:
    """Divide `tall` (..., d, r) by the power of two at its largest entry; zero stays zero."""
    largest = tall.abs().amax(dim=(-2, -1)).to(torch.float64)
    exponent = torch.where(largest > 0, torch.frexp(largest).exponent, 0)
    half = torch.div(exponent, 2, rounding_mode="floor")  # 2**1074 is itself no float64
    scaled = tall.to(torch.float64)
    for part in (half, exponent - half):
        scaled = scaled * torch.exp2(-part.to(torch.float64))[..., None, None]
    return scaled, torch.exp2(exponent.to(torch.float64))


def orthogonalise(tall: Tensor, method: QRMethod) -> Orthogonal:
    """Split tall factors (..., d, r) by one given method."""
    scaled, scale = unit_scale(tall)
    if method == "cholesky":
        result = from_gram(scaled, scaled.mT @ scaled)
    elif method == "cholesky_qr2":
        result = _cholesky_qr2(scaled)
    else:
        Q, R = torch.linalg.qr(scaled)
        result = _solve_explicitly(
            Q, R, torch.full_like(scale, torch.nan), scale == scale, "householder_qr"
        )
    return replace(result, scale=scale)


def _solve_explicitly(
    Q: Tensor, R: Tensor, kappa: Tensor, sound: Tensor, method: QRMethod
) -> Orthogonal:
    eye = torch.eye(Q.shape[-1], dtype=Q.dtype, device=Q.device)
    eye = eye.expand(*Q.shape[:-2], *eye.shape)
    return Orthogonal(
        columns=Q,
        transform=eye,
        R=R,
        scale=torch.ones_like(kappa),
        kappa=kappa,
        sound=sound,
        method=method,
    )


def _cholesky_qr2(tall: Tensor) -> Orthogonal:
    """CholeskyQR2: the Gram way twice; the second pass repairs what the first lost."""
    first = from_gram(tall, tall.mT @ tall)
    once = tall @ first.transform
    second = from_gram(once, once.mT @ once)
    # `from_gram` marks as unsound what Cholesky refused: kappa is 1-like there only by stand-in.
    refused = ~first.sound & (EPS * first.kappa.square() <= GRAM_BOUND)
    sound = ~refused & second.sound & (first.kappa < CHOLESKY_QR2_KAPPA)
    return _solve_explicitly(
        once @ second.transform, second.R @ first.R, first.kappa, sound, "cholesky_qr2"
    )


def svd(core: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """SVD of small float64 cores (..., m, n): X (..., m, k), S (..., k), Z (..., n, k)."""
    X, S, Zh = torch.linalg.svd(core, full_matrices=False)
    return X, S, Zh.mT


def orthonormal(columns: Tensor, coefficients: Tensor) -> Tensor:
    """Form ``columns @ coefficients`` (..., d, k) and repair its orthonormality to rounding.

    After Cholesky the product is orthonormal to eps * kappa**2 <= 1e-9; one Newton-Schulz step
    squares that error away.
    """
    U = columns.to(torch.float64) @ coefficients
    eye = torch.eye(U.shape[-1], dtype=U.dtype, device=U.device)
    return U @ (1.5 * eye - 0.5 * (U.mT @ U))


def principal_angles(U: Tensor, V: Tensor) -> Tensor:
    """Principal angles between the spans of orthonormal U (d, p) and V (d, q).

    Angles under 45 degrees come from sines, the others from cosines: arccos alone loses half the
    digits of a small angle (Bjorck & Golub 1973, Math. Comp. 27; Knyazev & Argentati 2002).

    Returns
    -------
    (min(p, q),) float64, radians, ascending.

    >>> U = torch.eye(3, 1, dtype=torch.float64)
    >>> V = torch.tensor([[1.0], [1e-9], [0.0]], dtype=torch.float64)
    >>> principal_angles(U, V).tolist()
    [1e-09]
    """
    if U.shape[1] < V.shape[1]:
        U, V = V, U
    X, cosines, Zh = torch.linalg.svd(U.mT @ V, full_matrices=False)
    near = int((cosines.square() >= 0.5).sum())  # the cosines descend
    # Of V's principal vectors under 45 degrees what lies outside of U. Their cosines are 1 to
    # rounding, so that which vectors these are is arbitrary: their lengths are not the sines,
    # the singular values of all of them together are.
    outside = V @ Zh[:near].mT - U @ (X[:, :near] * cosines[:near])
    sines = torch.linalg.svdvals(outside).flip(0).clamp(max=1.0)
    return torch.cat([torch.asin(sines), torch.acos(cosines[near:].clamp(-1.0, 1.0))])
