"""Null distributions: what independent random directions give, in closed form or drawn.

`overlap` is of random subspaces, `energy` of an update in given directions, `cosine` of two random
updates, `projection` of |U^T W V|_F, `paired` of a few seeds; `discovery` finds the significant
ones of many p-values.
Start reading with `overlap`.
"""

from subspace.chance.discovery import fdr_threshold
from subspace.chance.energy import (
    energy_mean,
    energy_pvalue,
    energy_range,
    energy_std,
    energy_two_sided,
    two_sided,
)
from subspace.chance.overlap import (
    distance_rms,
    overlap_pvalue,
    phi_mean,
    phi_pvalue,
    phi_quantile,
    phi_std,
    smallest_angle,
)
from subspace.chance.paired import paired_interval
from subspace.chance.projection import projection_draws, projection_moments, projection_range

__all__ = [
    "distance_rms",
    "energy_mean",
    "energy_pvalue",
    "energy_range",
    "energy_std",
    "energy_two_sided",
    "fdr_threshold",
    "overlap_pvalue",
    "paired_interval",
    "phi_mean",
    "phi_pvalue",
    "phi_quantile",
    "phi_std",
    "projection_draws",
    "projection_moments",
    "projection_range",
    "smallest_angle",
    "two_sided",
]
