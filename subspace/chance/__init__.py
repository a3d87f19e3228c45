"""Null distributions: what independent random directions give, in closed form or drawn.

`overlap` is of random subspaces, `cosine` of two random updates, `projection` of |U^T W V|_F.
Start reading with `overlap`; its functions are names of this package.
"""

from subspace.chance.overlap import (
    energy_pvalue,
    energy_range,
    energy_std,
    overlap_pvalue,
    phi_mean,
    phi_pvalue,
    phi_quantile,
    phi_std,
    projection_draws,
    projection_moments,
    projection_range,
    smallest_angle,
)

__all__ = [
    "energy_pvalue",
    "energy_range",
    "energy_std",
    "overlap_pvalue",
    "phi_mean",
    "phi_pvalue",
    "phi_quantile",
    "phi_std",
    "projection_draws",
    "projection_moments",
    "projection_range",
    "smallest_angle",
]
