"""Pure tensor mathematics: tall factors, products with a large W. Knows nothing of adapters."""

from subspace.linalg.factored import (
    CHOLESKY_QR2_KAPPA,
    EPS,
    GRAM_BOUND,
    Orthogonal,
    Rung,
    from_gram,
    gram,
    orthogonalise,
    orthonormal,
    principal_angles,
    svd,
    unit_scale,
)
from subspace.linalg.products import haar, project

__all__ = [
    "CHOLESKY_QR2_KAPPA",
    "EPS",
    "GRAM_BOUND",
    "Orthogonal",
    "Rung",
    "from_gram",
    "gram",
    "haar",
    "orthogonalise",
    "orthonormal",
    "principal_angles",
    "project",
    "svd",
    "unit_scale",
]
