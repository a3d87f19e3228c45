"""Many adapters compared two by two: a matrix, and the order in which alike ones stand together."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, get_args

from subspace.errors import ArgumentError
from subspace.results.base import SCHEMA_VERSION, Part, Side, strict
from subspace.results.notebook import html_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

By = Literal["phi", "agreeing", "distance"]
BY: tuple[By, ...] = get_args(By)


@dataclass(frozen=True)
class PairSimilarity(Part):
    """Two adapters over all the modules that both have."""

    adapters: tuple[str, str]
    value: float  # median over the modules where it is defined; NaN: in none
    chance: float  # the same median of what independent random subspaces give
    largest: float  # that the value could be: 1, or for agreeing the directions of the smaller
    modules: int  # that both have
    undefined: int  # of those without a value
    beyond: int  # of those beyond chance at the matrix's level
    same_start: int | None  # of those begun with the same A; None: not stored with both

    @property
    def finding(self) -> bool | None:
        """Whether any module is beyond chance; None: undefined."""
        return None if math.isnan(self.value) else self.beyond > 0


@dataclass(frozen=True, eq=False)
class SimilarityMatrix:
    """Every pair of several adapters by one measure, with what chance gives beside."""

    adapters: tuple[str, ...]  # as they were given
    by: By
    side: Side
    k: int | None  # leading directions of each; None for agreeing, which asks all
    level: float  # false discovery rate over modules, a pair each
    pairs: tuple[PairSimilarity, ...]  # (0, 1), (0, 2), … (1, 2), … as the adapters were given
    order: tuple[int, ...]  # of the adapters, so that alike ones are neighbours
    linkage: tuple[tuple[int, int, float, int], ...]  # scipy's: two clusters, distance, members
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        many = f"{len(self.adapters)} adapters"
        return f"SimilarityMatrix({many}, by={self.by!r}, side={self.side!r})"

    def _repr_html_(self) -> str:
        header = ["a", "b", "median", "chance", "modules", "beyond", "undefined", "same start"]
        rows = [
            [
                *(*pair.adapters, pair.value, pair.chance),
                *(pair.modules, pair.beyond, pair.undefined, pair.same_start),
            ]
            for pair in self.pairs
        ]
        what = self.by if self.k is None else f"{self.by} of the leading {self.k} directions"
        return html_table(
            f"{what} of {len(self.adapters)} adapters, side {self.side}", header, rows
        )

    @property
    def clustered_on(self) -> str:
        """The distance that `linkage` and `order` rest on, an undefined pair's being 1."""
        return {"phi": "1 - phi", "distance": "the distance"}.get(
            self.by, "1 - agreeing / directions of the smaller"
        )

    def pair(self, a: int | str, b: int | str) -> PairSimilarity:
        """Return what is known of two adapters, in either order.

        Parameters
        ----------
        a, b
            Names, or places in `adapters` from 0.

        Raises
        ------
        ArgumentError
            There is no such adapter, or it is one and the same.
        """
        i, j = sorted((self._place(a), self._place(b)))
        if i == j:
            raise ArgumentError(f"{self.adapters[i]!r} is one adapter; a pair is of two")
        n = len(self.adapters)
        return self.pairs[i * n - i * (i + 1) // 2 + j - i - 1]

    def _place(self, adapter: int | str) -> int:
        places: Sequence[int | str] = (
            self.adapters if isinstance(adapter, str) else range(len(self.adapters))
        )
        if adapter not in places:
            have = ", ".join(map(repr, self.adapters[:4]))
            more = ", …" if len(self.adapters) > 4 else ""
            raise ArgumentError(f"no adapter {adapter!r} in this matrix; it has {have}{more}")
        return places.index(adapter)

    def square(self, of: str = "value", *, clustered: bool = False) -> NDArray[np.float64]:
        """Return one number of every pair as a symmetric (n, n) array, the diagonal NaN.

        Parameters
        ----------
        of
            A field of `PairSimilarity`: value, chance, largest, modules, undefined, beyond or
            same_start. None becomes NaN.
        clustered
            Rows and columns in the order of `order` instead of `adapters`.

        Raises
        ------
        ArgumentError
            There is no such number.

        Examples
        --------
        >>> pair = PairSimilarity(("a", "b"), 0.25, 0.1, 1.0, 2, 0, 1, None)
        >>> matrix = SimilarityMatrix(("a", "b"), "phi", "A", 4, 0.01, (pair,), (0, 1),
        ...                           ((0, 1, 0.75, 2),))
        >>> matrix.square().tolist(), matrix.pair("b", "a").beyond
        ([[nan, 0.25], [0.25, nan]], 1)
        """
        import numpy as np

        names = [f.name for f in fields(PairSimilarity) if f.name != "adapters"]
        if of not in names:
            raise ArgumentError(f"a pair has no {of!r}; it has {', '.join(names)}")
        n = len(self.adapters)
        out = np.full((n, n), np.nan)
        upper = np.triu_indices(n, 1)  # row by row: the order of `pairs`
        out[upper] = [math.nan if (x := getattr(p, of)) is None else x for p in self.pairs]
        out.T[upper] = out[upper]
        return out[np.ix_(self.order, self.order)] if clustered else out

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python for strict JSON, schema version 1; undefined is None."""
        out: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "kind": "similarity-matrix",
            "by": self.by,
            "side": self.side,
            "k": self.k,
            "level": self.level,
            "adapters": list(self.adapters),
            "order": list(self.order),
            "linkage": [list(row) for row in self.linkage],
            "clustered_on": self.clustered_on,
            "notes": list(self.notes),
            "pairs": [pair.to_dict() for pair in self.pairs],
        }
        plain: dict[str, Any] = strict(out)
        return plain

    def to_rows(self) -> list[dict[str, Any]]:
        """Return one flat row a pair."""
        return [
            {
                "a": pair.adapters[0],
                "b": pair.adapters[1],
                **{f.name: getattr(pair, f.name) for f in fields(pair) if f.name != "adapters"},
            }
            for pair in self.pairs
        ]

    def to_frame(self) -> pd.DataFrame:
        """Return tidy rows, one a pair; undefined is missing."""
        import pandas as pd

        return pd.DataFrame(self.to_rows())
