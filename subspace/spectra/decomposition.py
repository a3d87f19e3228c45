"""The singular value decomposition of one update, from its factors alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING

import torch

from subspace.spectra.batches import equal_chunks, over_chunks, usable
from subspace.spectra.directions import solve

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from subspace.adapters import Adapter, LowRankUpdate
    from subspace.spectra.solved import Directions, Method


@dataclass(frozen=True, eq=False, kw_only=True)
class Spectrum:
    """Thin SVD of one update: ``delta W = U @ diag(S) @ V.T``.

    Attributes
    ----------
    S : (k,) float64 tensor
        Singular values of delta W, its scale included, descending; k = min(r, d_out, d_in).
    rank
        How many of S are real: above `level` and above `error`.
    level
        What the rounding of the *stored* factors can make of a zero singular value (Weyl).
    error
        Bound on the absolute error of S.
    method
        How the factors were split, see `subspace.linalg`: ``cholesky`` (of the Gram),
        ``cholesky_qr2`` or ``householder_qr``; ``none``: the update is exactly zero.
    """

    name: str
    S: Tensor
    rank: int
    level: float
    error: float
    method: Method
    _left: Directions = field(repr=False)
    _right: Directions = field(repr=False)

    @cached_property
    def U(self) -> Tensor:
        """Left singular vectors, (d_out, k) float64, orthonormal columns; formed on first use."""
        return self._left.form()

    @cached_property
    def V(self) -> Tensor:
        """Right singular vectors, (d_in, k) float64, orthonormal columns; formed on first use."""
        return self._right.form()

    def cut_errors(self) -> Tensor:
        """Bound sin(Theta) of the leading i directions of U or V, for i = 1 ... k, (k,) float64.

        Infinite where i cuts a cluster of equal singular values.
        """
        return self._left.angle_errors()[: len(self.S)]

    def direction_errors(self) -> Tensor:
        """Bound sin(angle) by which each single direction of U or V may be off, (k,) float64.

        A direction is as sure as the cuts before and after it; infinite within a cluster.
        """
        cuts = self.cut_errors()
        return cuts + torch.nn.functional.pad(cuts[:-1], (1, 0))


def spectrum(update: LowRankUpdate, *, device: str | torch.device = "cpu") -> Spectrum:
    """Thin SVD of one low-rank update, from its factors alone; delta W is never formed.

    Parameters
    ----------
    update
        A (r, d_in), B (d_out, r) and scale.
    device
        Where to compute: any torch device with float64.

    Raises
    ------
    NonFiniteError
        A factor holds NaN or infinity.

    >>> import torch
    >>> from subspace import LowRankUpdate
    >>> B, A = torch.tensor([[3.0], [0.0]]), torch.tensor([[0.0, 4.0, 0.0]])
    >>> update = LowRankUpdate("q", A, B, scale=2.0)
    >>> result = spectrum(update)
    >>> result.S.tolist(), result.rank
    ([24.0], 1)
    >>> torch.allclose(result.U * result.S @ result.V.T, update.delta())
    True
    """
    return _spectra([update], usable(device))[0]


def spectra(adapter: Adapter, *, device: str | torch.device = "cpu") -> dict[str, Spectrum]:
    """`spectrum` of every module of an adapter, modules of equal shape computed together."""
    device = usable(device)
    chunks = equal_chunks(
        adapter, lambda name: (*adapter.updates[name].shape, adapter.updates[name].rank)
    )
    parts = over_chunks(chunks, lambda names: _spectra([adapter[n] for n in names], device))
    # By the adapter's own paths: an update that was made in memory may be called otherwise.
    by_name = dict(zip(chain(*chunks), chain(*parts), strict=True))
    return {name: by_name[name] for name in adapter}


def _spectra(updates: Sequence[LowRankUpdate], device: str | torch.device) -> list[Spectrum]:
    results = []
    for update, solved in zip(updates, solve([[u] for u in updates], "out", device), strict=True):
        left, right = solved.directions[0], solved.partners[0]
        S = left.S[: min(update.rank, *update.shape)]
        results.append(
            Spectrum(
                name=update.name,
                S=S,
                rank=left.rank,
                level=left.level,
                error=left.error,
                method=left.method,
                _left=left,
                _right=right,
            )
        )
    return results
