"""Pure tensor mathematics: tall factors, products with a large W. Knows nothing of adapters.

Start reading with `factored`.
"""

from subspace.linalg.difference import Difference
from subspace.linalg.factored import (
    CHOLESKY_QR2_KAPPA,
    EPS,
    GRAM_BOUND,
    Orthogonal,
    QRMethod,
    from_gram,
    gram,
    orthogonalise,
    orthonormal,
    principal_angles,
    svd,
    unit_scale,
)
from subspace.linalg.krylov import Leading, leading
from subspace.linalg.products import highest_precision, panels, sweep, sweep_dtype

__all__ = [
    "CHOLESKY_QR2_KAPPA",
    "EPS",
    "GRAM_BOUND",
    "Difference",
    "Leading",
    "Orthogonal",
    "QRMethod",
    "from_gram",
    "gram",
    "highest_precision",
    "leading",
    "orthogonalise",
    "orthonormal",
    "panels",
    "principal_angles",
    "svd",
    "sweep",
    "sweep_dtype",
    "unit_scale",
]
