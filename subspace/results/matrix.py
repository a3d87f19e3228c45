"""Many adapters compared two by two: a matrix, and the order in which alike ones stand together."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from subspace.errors import ArgumentError
from subspace.results.base import SIDE_WORDS, Part, Result
from subspace.results.fields import Field, Level
from subspace.results.numbers import UNDEFINED, number
from subspace.results.similarity import SideOf
from subspace.results.table import Column, Table, make_table

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


By = Literal["phi", "agreeing", "distance"]
BY: tuple[By, ...] = get_args(By)


@dataclass(frozen=True, kw_only=True)
class PairSimilarity(Part):
    """Two adapters over all the modules that both have."""

    adapters: Annotated[tuple[str, str], Field("Names of the two", title="adapters")]
    value: Annotated[
        float,
        Field(
            "Median over modules of what `by` says",
            title="median",
            decimals=3,
            low=0,
            undefined="where it is defined in none",
        ),
    ]
    null_mean: Annotated[
        float,
        Field(
            "The same median of independent random subspaces",
            title="null mean",
            decimals=3,
            low=0,
            undefined="where value is",
        ),
    ]
    largest: Annotated[
        float, Field("Largest that the value could be", low=0, undefined="where undefined")
    ]
    modules: Annotated[int, Field("Modules that both have", low=0)]
    undefined: Annotated[int, Field("Of those the ones without a value", low=0)]
    significant: Annotated[
        int, Field("Modules that are significant", title="significant", explain=True, low=0)
    ]
    same_initial: Annotated[
        int | None,
        Field(
            "Of those the ones with the same initial A",
            title="same initial A",
            low=0,
            undefined="where it is not stored with both",
        ),
    ]

    @property
    def finding(self) -> bool | None:
        """Whether any module is significant; None: undefined."""
        return None if math.isnan(self.value) else self.significant > 0


@dataclass(frozen=True, eq=False, kw_only=True)
class SimilarityMatrix(Result):
    """Every pair of several adapters by one measure, with the null beside."""

    kind = "similarity-matrix"
    of_rows = PairSimilarity
    row_name = "pairs"

    adapters: Annotated[tuple[str, ...], Field("Names, in the order given", at_least=2)]
    by: Annotated[By, Field("Measure of a pair: phi(k, k), agreeing directions, or a distance")]
    side: SideOf
    k: Annotated[
        int | None,
        Field(
            "Leading directions of each that are compared",
            low=1,
            undefined="for agreeing, which asks all",
        ),
    ]
    level: Level
    pairs: Annotated[
        tuple[PairSimilarity, ...],
        Field(
            "One entry per pair: (0, 1), (0, 2), and so on to (1, 2), as the adapters were given"
        ),
    ]
    order: Annotated[
        tuple[int, ...],
        Field("Places of the adapters, from 0, so that alike ones are neighbours", low=0),
    ]
    linkage: Annotated[
        tuple[tuple[int, int, float, int], ...],
        Field(
            "Average linkage as scipy writes it: two clusters, their distance, number of members"
        ),
    ]
    notes: Annotated[tuple[str, ...], Field("What else a reader must know of the adapters")] = ()

    def __repr__(self) -> str:
        many = f"{len(self.adapters)} adapters"
        return f"SimilarityMatrix({many}, by={self.by!r}, side={self.side!r})"

    @property
    def clustered_on(self) -> Annotated[str, Field("Distance that linkage and order rest on")]:
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

    def square(self, of: str = "value", *, clustered: bool = False) -> "NDArray[np.float64]":
        """Return one number of every pair as a symmetric (n, n) array, the diagonal NaN.

        Parameters
        ----------
        of
            A field of `PairSimilarity`: value, null_mean, largest, modules, undefined,
            significant or same_initial. None becomes NaN.
        clustered
            Rows and columns in the order of `order` instead of `adapters`.

        Raises
        ------
        ArgumentError
            There is no such number.

        Examples
        --------
        >>> pair = PairSimilarity(
        ...     adapters=("a", "b"), value=0.25, null_mean=0.1, largest=1.0, modules=2, undefined=0,
        ...     significant=1, same_initial=None)
        >>> matrix = SimilarityMatrix(
        ...     adapters=("a", "b"), by="phi", side="A", k=4, level=0.01, pairs=(pair,),
        ...     order=(0, 1), linkage=((0, 1, 0.75, 2),))
        >>> matrix.square().tolist(), matrix.pair("b", "a").significant
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

    @property
    def measure(self) -> str:
        """What a pair's value is, in words."""
        if self.by == "phi":
            return f"φ({self.k},{self.k})"
        if self.by == "distance":
            return f"projection distance of the leading {self.k} directions"
        return "agreeing directions"

    def caption(self) -> str:
        """Say what was compared, on which side."""
        words = SIDE_WORDS[self.side]
        return f"{self.measure} of {len(self.adapters)} adapters, side {self.side}: {words}"

    def columns(self) -> Sequence[Column]:
        """Return a pair's value beside its null, and how many modules are significant."""
        columns = [
            Column("adapters", value=lambda pair: " + ".join(pair.adapters)),
            Column("value", text=self.value_text),
            Column("null_mean", text=lambda pair: self._number(pair.null_mean)),
            Column("significant", of=lambda pair: pair.modules - pair.undefined),
            Column("undefined"),
        ]
        if any(pair.same_initial is not None for pair in self.pairs):
            columns.append(Column("same_initial", of=lambda pair: pair.modules))
        return columns

    def _number(self, value: float) -> str:
        """Write whole directions as such."""
        return number(value, decimals=None if self.by == "agreeing" else 3)

    def value_text(self, pair: PairSimilarity) -> str:
        """Write a pair's value, of directions that agree out of how many."""
        text = self._number(pair.value)
        shown = text != UNDEFINED and self.by == "agreeing"
        return f"{text}/{number(pair.largest)}" if shown else text

    def legend(self) -> Sequence[str]:
        """Say what the numbers are over."""
        return [
            f"median: over the modules of a pair; *: at least one module is significant at FDR "
            f"{self.level:g}",
            *(
                ["distance: 0 the same subspace, 1 orthogonal ones"]
                if self.by == "distance"
                else []
            ),
        ]

    def table(self, pairs: Sequence[PairSimilarity] | None = None) -> Table:
        """Return one row per pair, of all pairs or of some."""
        rows = self.pairs if pairs is None else pairs
        return make_table(
            self.of_rows,
            self.columns(),
            rows,
            caption=self.caption(),
            legend=self.legend(),
            notes=self.remarks(),
        )

    def to_rows(self) -> list[dict[str, Any]]:
        """Return one flat row per pair."""
        return [
            {"a": pair.adapters[0], "b": pair.adapters[1], **pair.to_row()} for pair in self.pairs
        ]
