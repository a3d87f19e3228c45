"""What factors that are multiplied out share: their size, its limit, and a kernel's core.

`hadamard` and `kronecker` make the B and A of a product of small factors exactly. Each is a
`Product`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from subspace.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from subspace.adapters.build import Factors
    from subspace.adapters.source import AdapterSource

# Values of B and A together, 1 GiB in float64: all layers of a 7B model are below it at full rank.
LARGEST = 2**27
GAUGE = (
    "A and B are multiplied out of smaller factors, so the sides A and B are of no meaning; "
    "compare on the sides in and out"
)


@dataclass(frozen=True, kw_only=True)
class Extent:
    """What the headers tell of one module's product."""

    shape: tuple[int, int]  # (d_out, d_in) of the map
    rank: int  # width of B
    dim: int | None  # the r that alpha is divided by; None where no factor has one
    tensors: tuple[str, ...]  # that it is made of
    multiplied: int = 2  # how many stored numbers are multiplied in an entry of B or A
    kernel: tuple[int, ...] = ()  # where a tensor shows one: a convolution may be stored flat


class Product(Protocol):
    """What a file of such products holds. `slots` may have others, such as an alpha."""

    @property
    def SLOTS(self) -> tuple[str, ...]:
        """The last parts of its tensors' names."""

    def read_extent(self, source: AdapterSource, module: str, slots: Mapping[str, str]) -> Extent:
        """Read one module's extent off headers alone; `slots` is slot -> tensor name."""

    def build_factors(self, slots: Mapping[str, str]) -> Factors:
        """Return what `UpdateSpec.factors` wants: tensor name -> tensor to (B, A), float64."""


def require_small(source: AdapterSource, module: str, extent: Extent) -> Extent:
    """Refuse factors that are too large to be multiplied out.

    Raises
    ------
    FormatError
        B and A together have more than `LARGEST` values.
    """
    d_out, d_in = extent.shape
    # A core multiplied into its factor has as many rows as alpha's r, however small the rank.
    values = max(extent.rank, extent.dim or 0) * (d_out + d_in)
    if values > LARGEST:
        raise FormatError(
            f"{source.weights}: module {module!r} is {d_out}x{d_in} of rank {extent.rank}: its "
            f"factors would have {values:_} values and at most {LARGEST:_} are laid out; take it "
            "out of the file, or merge the adapter and run subspace diff BASE MERGED"
        )
    return extent


def multiply_core(core: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Multiply a Tucker core (r, r, k, …) by a factor (r, d): (r, d * k * …), kernel innermost.

    Proposition 3 of FedPara, arXiv:2108.06098: ``W[p, q, …] = sum_ij core[i, j, …] a[i, p]
    b[j, q]``, which is ``a.T @ with_core(core, b)`` once the kernel is laid beside the inputs.
    """
    import torch

    return torch.einsum("ijk,jq->iqk", core.flatten(2), b).flatten(1)


def split_matrix(
    left: torch.Tensor | None, right: torch.Tensor | None, full: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Write a small matrix as two factors whose inner width is no larger than its sides.

    Parameters
    ----------
    left, right
        (p, r) and (r, q), or None where there is only
    full
        (p, q).

    Returns
    -------
    (p, s) and (s, q) tensors with s = min(r, p, q): as they are, or the matrix beside an identity.
    """
    import torch

    if full is None:
        assert left is not None
        assert right is not None
        if left.shape[1] < min(left.shape[0], right.shape[1]):
            return left, right
        full = left @ right
    p, q = full.shape
    identity = torch.eye(min(p, q), dtype=full.dtype)
    return (identity, full) if p <= q else (full, identity)
