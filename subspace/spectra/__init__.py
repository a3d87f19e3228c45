"""Singular directions of an update, or of one of its factors, without ever forming delta W.

The *side* says whose directions, in which space (Hu et al. 2021, arXiv:2106.09685, section 7.2):

=========== ================================================ =========
side        directions                                       dimension
=========== ================================================ =========
``A``       right singular vectors of A (the paper's choice) d_in
``B``       left singular vectors of B                       d_out
``in``      right singular vectors of delta W = scale * B A  d_in
``out``     left singular vectors of delta W                 d_out
``delta-A`` right singular vectors of A - A_0                d_in
=========== ================================================ =========

Appendix G of the paper says *left* singular vectors of A; with A (r, d_in) only the d_in side can
be compared across ranks. ``A`` and ``B`` depend on the gauge: (G A, B G^-1) is the same update
with other leading directions, unless G is orthogonal or all r directions are taken. ``in`` and
``out`` belong to the update itself.
Start reading with `decomposition`.
"""

from __future__ import annotations

from subspace.spectra.batches import equal_chunks, over_chunks, usable
from subspace.spectra.decomposition import Spectrum, spectra, spectrum
from subspace.spectra.directions import is_zero, solve, solve_sides
from subspace.spectra.factors import require_finite
from subspace.spectra.solved import CELL_BOUND, Directions, Method, Solved

__all__ = [
    "CELL_BOUND",
    "Directions",
    "Method",
    "Solved",
    "Spectrum",
    "equal_chunks",
    "is_zero",
    "over_chunks",
    "require_finite",
    "solve",
    "solve_sides",
    "spectra",
    "spectrum",
    "usable",
]
