"""The order in which adapters that are alike stand together: average linkage."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Row = tuple[int, int, float, int]

_DIGITS = 12  # of a distance: a tie must not be broken by rounding


def order_by_linkage(
    distances: NDArray[np.float64], names: Sequence[str]
) -> tuple[tuple[int, ...], tuple[Row, ...]]:
    """Cluster by average linkage, the leaves in the order that keeps near ones side by side.

    Average linkage (UPGMA; Sokal & Michener 1958) needs no more than distances, and its heights are
    means of them; the order of the leaves is that of the shortest path through them (Bar-Joseph,
    Gifford & Jaakkola 2001, Bioinformatics 17). Ties fall by name, not by the order given.

    Parameters
    ----------
    distances : (n, n)
        Symmetric, n >= 2; NaN counts as 1, the largest there is. The diagonal is not read.
    names
        What the n things are called.

    Returns
    -------
    The order of the leaves, and scipy's linkage: a row a merger of two clusters, each a thing or,
    from n on, an earlier row; their distance; how many things are in both.

    >>> far = np.array([[0, 0.9, 0.1], [0.9, 0, np.nan], [0.1, np.nan, 0]])
    >>> order_by_linkage(far, "abc")
    ((1, 0, 2), ((0, 2, 0.1, 2), (1, 3, 0.95, 3)))
    """
    from scipy.cluster.hierarchy import leaves_list, linkage

    n = len(names)
    by_name = sorted(range(n), key=lambda at: (names[at], at))
    square = np.where(np.isnan(distances), 1.0, distances)[np.ix_(by_name, by_name)]
    condensed = np.round(square[np.triu_indices(n, 1)], _DIGITS)
    tree = linkage(condensed, method="average", optimal_ordering=True)

    def given(cluster: float) -> int:
        return by_name[int(cluster)] if cluster < n else int(cluster)

    rows = tuple(
        (given(a), given(b), round(float(height), _DIGITS), int(size))
        for a, b, height, size in tree
    )
    return tuple(by_name[leaf] for leaf in leaves_list(tree)), rows
