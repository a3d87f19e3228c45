"""The leading singular values and directions of a large dense matrix W, and how sure they are.

A matrix with a short side is decomposed whole, by the float64 Gram of that side. A larger one by
block Krylov (Golub, Luk & Overton 1981, ACM TOMS 7; Musco & Musco 2015, arXiv:1504.05477): a few
dozen products with W instead of a cubic number of steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from subspace.linalg.factored import EPS, gram
from subspace.linalg.products import gram_times, highest_precision, own_gram

if TYPE_CHECKING:
    from subspace.linalg.difference import Matrix

GRAM_TO = 2048  # length of the short side up to which the Gram costs half a second
TOLERANCE = 1e-6  # relative, of a value
_FIRST = 1e-5  # relative residual at which float32 stops: a value is off by its square over a gap
_BLOCK = 32
_SHARE = 3  # of the short side: a larger basis costs more than the Gram
_GLANCE = 24  # columns of each of the two blocks of a rough look
_PROBES = 8
_EPS32 = 2.0**-24
_SPENT = 1e-10  # of W's Gram: a new direction that is smaller is made of rounding
_GROWTH = 1.2  # of the basis between two looks at the Ritz values

Device = torch.device | str


@dataclass(frozen=True, eq=False)
class Leading:
    """The leading part of W (m, n), with d = min(m, n).

    Attributes
    ----------
    S : (k,) float64
        Singular values, descending, on the CPU; k may be more than was asked for.
    V : (d, k) float64
        Singular vectors of the short side (the right ones where n <= m); (d, 0) if not asked for.
    error : (k,) float64
        A singular value of W lies this close to each of S. From Krylov this speaks of the values
        found: S is a lower bound of the leading ones, and no residual proves that none was missed.
    fourth
        Sum of the fourth powers of all singular values of W over the square of the sum of their
        squares. Beyond S it is estimated by random probes, without bias and to about a percent of
        what S leaves.
    method
        ``"gram"``: all of them were computed. ``"krylov"``: converged. ``"rough"``: stopped early
        on request: the last ones may be a third too low.
    """

    S: Tensor
    V: Tensor
    error: Tensor
    fourth: float
    method: Literal["gram", "krylov", "rough"]


def leading(
    W: Matrix,
    k: int,
    *,
    norm: float,
    vectors: bool = False,
    tolerance: float = TOLERANCE,
    rough: bool = False,
    device: Device = "cpu",
) -> Leading:
    """Find W's k leading singular values; all of them where W is small.

    Parameters
    ----------
    W : (m, n)
        Finite, of any float dtype; or a `Difference` of two such.
    k
        How many are wanted.
    norm
        W's Frobenius norm, as `sweep` gives it: all is computed of W / norm, so that no square
        over- or underflows.
    vectors
        Keep the directions too.
    tolerance
        Relative error at which a value counts as found: by its residual, or by the square of that
        over the gap behind the last value (Parlett 1980, section 11.7). Of a cluster that is
        tighter than this the larger values may be missed, and of that size is the error then.
    rough
        Stop after two blocks: a glance at the spectrum for the price of three passes over W.
    device
        Where to compute: any torch device with float64.

    Notes
    -----
    Memory, in units of a square W in float32: 4.5 for the Gram, 8.5 with vectors; for Krylov 0.6 to
    2.5; W itself is read panel by panel. Products are in float32 first, and in float64 from where
    that ends: the square of the smallest value wanted, beside that of the largest, may drown in
    float32's rounding.

    >>> W = torch.diag(torch.tensor([2.0, 2.0, 1.0]))
    >>> leading(W, 2, norm=3.0).S.round(decimals=12).tolist()
    [2.0, 2.0, 1.0]
    """
    tall = W if W.shape[0] >= W.shape[1] else W.mT
    d = tall.shape[1]
    k = min(k, d)
    if norm == 0:
        nothing = torch.zeros(d, dtype=torch.float64)
        V = torch.eye(d, k if vectors else 0, dtype=torch.float64)
        return Leading(nothing, V, nothing, 0.0, "gram")
    with highest_precision():
        most = d // _SHARE
        if d <= GRAM_TO or most < k + 1 + 2 * _BLOCK:
            return _scale_back(_by_gram(tall, norm, vectors, device), norm)
        normed = _Normed(tall.to(device), norm)
        narrow = tall.dtype != torch.float64
        dtype = torch.float32 if narrow else torch.float64
        if rough:
            start = _gaussian(d, _GLANCE, 0, device)
            V = _krylov(normed, start, min(k, _GLANCE), tolerance, 2 * _GLANCE, dtype)
            return _scale_back(_check_values(normed, V, vectors, "rough", dtype), norm)
        # One more than is wanted: how far the last one is from those behind it.
        first = max(tolerance, _FIRST) if narrow else tolerance
        start = _gaussian(d, _BLOCK, 0, device)
        V = _krylov(normed, start, k + 1, first, most, dtype)
        result = _check_values(normed, V, vectors, "krylov", torch.float64)
        if not _is_certain(result, k, tolerance, vectors) and narrow:
            V = _krylov(normed, V, k + 1, tolerance, most, torch.float64)
            result = _check_values(normed, V, vectors, "krylov", torch.float64)
        if not _is_certain(result, k, tolerance, vectors):
            result = _by_gram(tall, norm, vectors, device)
        return _scale_back(result, norm)


@dataclass(frozen=True, eq=False)
class _Normed:
    """``W / norm``, tall, as what its Gram does to columns."""

    tall: Matrix
    norm: float

    def gram_times(self, X: Tensor, dtype: torch.dtype) -> Tensor:
        return gram_times(self.tall, X, dtype, norm=self.norm)


def _scale_back(result: Leading, norm: float) -> Leading:
    return replace(result, S=result.S * norm, error=result.error * norm)


def _is_certain(result: Leading, k: int, tolerance: float, vectors: bool) -> bool:
    """Whether the first k values are: directions by their residuals alone."""
    S, error = result.S[:k], result.error[:k]
    # Nothing in float64 resolves a square below the rounding of the largest one.
    wanted = torch.maximum(tolerance * S, 8 * EPS * S[0] ** 2 / S.clamp(min=1e-150))
    gap = (S[-1] - result.S[k]).clamp(min=1e-300)
    bound = error if vectors else torch.minimum(error, error.square() / gap)
    return bool((bound <= wanted).all())


def _gaussian(d: int, count: int, seed: int, device: Device) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(d, count, generator=generator, dtype=torch.float64).to(device)


def _by_gram(tall: Matrix, norm: float, vectors: bool, device: Device) -> Leading:
    tall = tall.to(device)
    # Of a tensor in panels that fit the cache; two tensors are bound by memory anyway.
    whole = gram([tall]) if isinstance(tall, Tensor) else own_gram(tall, device)
    square = whole / norm / norm
    fourth = float(square.square().sum())
    if vectors:
        values, V = torch.linalg.eigh(square)
    else:
        values, V = torch.linalg.eigvalsh(square), square[:, :0]
    S = values.flip(0).clamp(min=0).sqrt().cpu()
    # Eigenvalues of the Gram are sure to m eps sigma_1^2, whatever their own size.
    level = len(tall) * EPS * float(S[0]) ** 2
    error = torch.minimum(level / S.clamp(min=1e-150), S.new_tensor(math.sqrt(level)))
    return Leading(S, V.flip(1).cpu(), error, fourth, "gram")


def _krylov(
    W: _Normed, start: Tensor, k: int, tolerance: float, most: int, dtype: torch.dtype
) -> Tensor:
    """Return k Ritz vectors (d, k) of W's Gram, orthonormal.

    The basis is float64 and fully orthogonalised; products with W are in `dtype`. Ends
    when the residuals are under the tolerance or what `dtype` can resolve, or at `most` columns.
    """
    d, width = start.shape
    floor = 4 * _EPS32 if dtype == torch.float32 else 4 * EPS
    basis = torch.empty(most + width, d, dtype=torch.float64, device=start.device).T
    projected = basis.new_zeros(most + width, most + width)  # basis.T @ W.T @ W @ basis
    block, check_at, size = torch.linalg.qr(start).Q, max(2 * k, k + width), 0
    while True:
        basis[:, size : size + width] = block
        size += width
        image = W.gram_times(block, dtype)
        # What an exact recurrence has is in the last two blocks; a second round, over the whole
        # basis, takes out what rounding has let in.
        for since in (max(0, size - 2 * width), 0):
            latest = basis[:, since:size]
            part = latest.T @ image
            image.addmm_(latest, part, alpha=-1)
            projected[since:size, size - width : size] += part
        block, last = torch.linalg.qr(image)
        if float(last.diagonal().abs().min()) < _SPENT * float(projected[0, 0]):
            # Nothing new came (W has no more rank, or equal values): go on with what is orthogonal.
            block = torch.linalg.qr(block - latest @ (latest.T @ block)).Q
        if size < check_at and size + width <= most:
            continue
        check_at = max(size + width, int(_GROWTH * size))
        upper = projected[:size, :size].triu()
        values, mix = torch.linalg.eigh(upper + upper.triu(1).T)
        top = values.flip(0)[:k].clamp(min=0)
        residual = torch.linalg.vector_norm(last @ mix.flip(1)[-width:, :k], dim=0)
        enough = torch.maximum(tolerance * top, floor * top[:1])
        if size + width > most or bool((residual <= enough).all()):
            vectors: Tensor = torch.linalg.qr(latest @ mix.flip(1)[:, :k]).Q
            return vectors


def _check_values(
    W: _Normed, V: Tensor, vectors: bool, method: Literal["krylov", "rough"], dtype: torch.dtype
) -> Leading:
    """Rayleigh-Ritz in the span of V with the residuals, products in `dtype`; W is read once more.

    An eigenvalue of W's Gram lies within the residual of each Ritz value (Weyl).
    """
    d, k = V.shape
    probes = _gaussian(d, _PROBES, 1, V.device)
    probes -= V @ (V.T @ probes)
    image = W.gram_times(torch.cat([V, probes], dim=1), dtype)
    inside = V.T @ image[:, :k]
    values, mix = torch.linalg.eigh((inside + inside.T) / 2)
    values, mix = values.flip(0).clamp(min=0), mix.flip(1)
    V, image_V = V @ mix, image[:, :k] @ mix
    outside = image_V - V * values
    residual = torch.linalg.vector_norm(outside, dim=0)
    S = values.sqrt().cpu()
    error = torch.minimum(residual.cpu() / S.clamp(min=1e-150), residual.cpu().sqrt())
    # |G|_F^2 by blocks: within V, twice across, and what is left beyond V by Hutchinson's probes.
    rest = image[:, k:] - V @ (V.T @ image[:, k:])
    fourth = values.square().sum() + 2 * outside.square().sum() + rest.square().sum() / _PROBES
    return Leading(S, V.cpu() if vectors else V.cpu()[:, :0], error, float(fourth), method)
