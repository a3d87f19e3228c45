"""Two adapters compared."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from subspace.results.base import SIDE_WORDS, ByModule, Part, Side
from subspace.results.fields import HIDDEN, Field, Grid, Level, Mask, Module, Note, Vector
from subspace.results.table import Column, some

if TYPE_CHECKING:
    import pandas as pd

Method = Literal["cholesky", "cholesky_qr2", "householder_qr", "none"]
"""How the factors were split (`subspace.linalg`); none: a zero update."""

BASE_WORDS = {
    "in": "right singular vectors of W (i) and of delta W = B A (j)",
    "out": "left singular vectors of W (i) and of delta W = B A (j)",
}
_PAPER = "Hu et al. 2021, arXiv:2106.09685"

SideOf = Annotated[
    Side,
    Field(
        "Whose directions were compared; delta-A is A minus its initial value",
        title="side",
        definition="A: right singular vectors of A, as in the paper. B: left ones of B. Both "
        "depend "
        "on how ΔW is split into B and A. in, out: right and left singular vectors of ΔW = s·BA, "
        "which do not. delta-A: of A minus its initial value.",
    ),
]
_OVERLAP = {"low": 0, "high": 1, "undefined": "where undefined"}


@dataclass(frozen=True, kw_only=True)
class Distances(Part):
    """Distances between two subspaces from their principal angles."""

    projection: Annotated[float, Field("Root of the sum of the squared sines", low=0)]
    geodesic: Annotated[
        float, Field("Root of the sum of the squared angles, in radians", unit="rad", low=0)
    ]
    procrustes: Annotated[
        float, Field("Twice the root of the sum of the squared sines of half the angles", low=0)
    ]


@dataclass(frozen=True, eq=False, kw_only=True)
class ModuleSimilarity(Part):
    """One module of two adapters; entry (i-1, j-1) of a grid belongs to the leading i and j.

    Every grid has the shape (rank_a, rank_b).
    """

    module: Module
    side: SideOf
    d: Annotated[int, Field("Dimension of the space in which directions are compared", low=1)]
    rank_a: Annotated[int, Field("Stored rank of the first adapter", title="r of a", low=1)]
    rank_b: Annotated[int, Field("Stored rank of the second adapter", title="r of b", low=1)]
    numerical_rank_a: Annotated[
        int, Field("Directions of the first that are told apart from rounding", low=0)
    ]
    numerical_rank_b: Annotated[
        int, Field("Directions of the second that are told apart from rounding", low=0)
    ]
    phi: Annotated[
        Grid,
        Field(
            "Overlap phi(i, j) of Eq. 4, in [0, 1]",
            title="φ(i, j)",
            decimals=3,
            low=0,
            high=1,
            undefined="beyond the numerical rank and where masked",
            definition="‖U_aᵀU_b‖² / min(i, j), with U_a the leading i directions of the first "
            "adapter and U_b the leading j of the second: 1 where they span the same space, "
            "0 where "
            "they are orthogonal. Undefined where a cut falls within a cluster of equal singular "
            "values, or beyond what the rounding of the stored factors leaves.",
            source=f"Eq. 4, section 7.2 and appendix G, {_PAPER}",
        ),
    ]
    error: Annotated[
        Grid,
        Field(
            "Bound on |phi - exact|",
            low=0,
            undefined="beyond the numerical rank, and where nothing is known",
        ),
    ]
    masked: Annotated[
        Mask,
        Field("Whether the cell cuts a cluster of equal singular values, so that phi is undefined"),
    ]
    null_mean: Annotated[
        Grid,
        Field(
            "Mean of phi between independent random subspaces: max(i, j) / d",
            title="null mean",
            decimals=3,
            low=0,
            high=1,
            definition="What two independent random subspaces of these sizes give: max(i, j)/d on "
            "average; p is the probability that they give as much or more. Above chance is not yet "
            "the task: any A picks up the large directions of a transformer's inputs, and a "
            "control "
            "trained on shuffled labels shows how much that is.",
            source="closed form for Haar-distributed subspaces; Beta tail",
        ),
    ]
    null_std: Annotated[
        Grid, Field("Standard deviation of phi between independent random subspaces", low=0)
    ]
    pvalue: Annotated[
        Grid,
        Field(
            "Probability that independent random subspaces have as large a phi",
            title="p",
            form="pvalue",
            low=0,
            high=1,
            undefined="where phi is",
            definition="The probability that two independent random subspaces of these sizes "
            "overlap as much or more.",
            source="closed form for Haar-distributed subspaces; Beta tail",
        ),
    ]
    agreeing: Annotated[
        int | None,
        Field(
            "Leading directions that both share above chance",
            title="agree",
            low=0,
            undefined="where undefined",
            explain=True,
            definition="Leading directions of either adapter that lie within the other's above "
            "chance, counted from the first until one does not, with Benjamini-Hochberg over "
            "modules. A lower bound on what is shared, and not owed to the task alone: runs on the "
            "same texts share directions whatever the labels.",
            source=f"after the reading of Figures 3 and 4, section 7.2, {_PAPER}",
        ),
    ]
    overlap_a: Annotated[
        Vector,
        Field(
            "Of each of the first's rank_a directions the share within all of the second's",
            **_OVERLAP,
        ),
    ]
    overlap_b: Annotated[
        Vector,
        Field(
            "Of each of the second's rank_b directions the share within all of the first's",
            **_OVERLAP,
        ),
    ]
    method_a: Annotated[
        Method,
        Field("Method that split the first's factors; none where its update is zero"),
    ]
    method_b: Annotated[
        Method,
        Field("Method that split the second's factors; none where its update is zero"),
    ]
    note: Note = ""
    shared: Annotated[
        int | None,
        Field(
            "Directions that both share above chance, in any order",
            low=0,
            undefined="where undefined",
        ),
    ] = None
    rest: Annotated[
        float,
        Field(
            "Mean share within the second of the first's directions after the agreeing ones",
            low=0,
            undefined="where none is left over",
        ),
    ] = math.nan
    rest_p: Annotated[
        float,
        Field(
            "Two-sided probability of `rest` between random subspaces",
            form="pvalue",
            low=0,
            high=1,
            undefined="where none is left over",
        ),
    ] = math.nan
    angles: Annotated[
        Vector | None,
        Field(
            "Principal angles in radians, ascending, one for each direction of the smaller",
            title="least angle",
            unit="rad",
            undefined="where not asked for or undefined",
        ),
    ] = None
    angle_edge: Annotated[
        float | None,
        Field(
            "Smallest principal angle of random subspaces at large d, in radians",
            title="null angle",
            unit="rad",
            low=0,
            undefined="where angles is",
        ),
    ] = None
    distances: Annotated[
        Distances | None,
        Field("Distances of the two spaces from their angles", undefined="where angles is"),
    ] = None

    @property
    def whole(self) -> tuple[int, int]:
        """Indices of the cell of all directions that are not rounding."""
        real = (self.numerical_rank_a, self.numerical_rank_b)
        return (real[0] - 1, real[1] - 1) if all(real) else (-1, -1)


@dataclass(frozen=True, eq=False, kw_only=True)
class Similarity(ByModule[ModuleSimilarity]):
    """Two adapters compared module by module: `subspace similarity` and `subspace placement`."""

    kind = "similarity"
    of_rows = ModuleSimilarity

    adapters: Annotated[
        tuple[str, str], Field("Names of the two; of placement the first is `W of` the base")
    ]
    side: SideOf
    modules: Annotated[
        Mapping[str, ModuleSimilarity],
        Field("One entry per module that both have, in the model's order"),
    ]
    level: Level
    unmatched: Annotated[
        tuple[tuple[str, ...], tuple[str, ...]],
        Field("Modules that the first alone has, and those that the second alone has"),
    ] = ((), ())
    initial: Annotated[
        "Similarity | None",
        Field(
            "The same of the two initial A",
            undefined="where one is not stored, or the side is not A or in",
        ),
    ] = None
    control: Annotated[
        "Similarity | None",
        Field("The first adapter against the control", undefined="where none was given"),
    ] = None
    notes: Annotated[tuple[str, ...], Field("What else a reader must know of the adapters")] = ()
    of_base: Annotated[bool, HIDDEN] = False  # the first is W itself; in JSON its name says so

    _lacks = ("was not compared", "were")

    def __repr__(self) -> str:
        a, b = self.adapters
        return f"Similarity({a!r}, {b!r}, side={self.side!r}, {len(self)} modules)"

    def caption(self) -> str:
        """Say what was compared, on which side."""
        a, b = self.adapters
        words = BASE_WORDS[self.side] if self.of_base else SIDE_WORDS[self.side]
        return f"phi of {a} (i) and {b} (j), side {self.side}: {words}"

    def _ranks_used(self) -> set[tuple[int, int]]:
        """Return the ranks of the last phi, of modules that have one."""
        ranks = {(m.numerical_rank_a, m.numerical_rank_b) for m in self.values()}
        return {pair for pair in ranks if all(pair)} or {
            (m.rank_a, m.rank_b) for m in self.values()
        }

    def columns(self) -> Sequence[Column]:
        """Phi at the first direction and at all real ones, and what was asked for beside."""
        used = self._ranks_used()
        last = "φ({},{})".format(*next(iter(used))) if len(used) == 1 else "φ(r,r)"
        columns = [
            Column("module"),
            Column("phi", "φ(1,1)", value=lambda m: m.phi[0, 0]),
            Column("null_mean", value=lambda m: m.null_mean[0, 0]),
            Column("pvalue", value=lambda m: m.pvalue[0, 0]),
            Column("phi", last, value=lambda m: m.phi[m.whole]),
            Column("null_mean", value=lambda m: m.null_mean[m.whole]),
            *([Column("numerical_rank_a", "r,r", text=_ranks)] if len(used) > 1 else []),
            Column("agreeing", of=_most),
        ]
        if any(m.angles is not None for m in self.values()):
            columns += [
                Column(
                    "angles", text=lambda m: _degrees(None if m.angles is None else m.angles[0])
                ),
                Column("angle_edge", text=lambda m: _degrees(m.angle_edge)),
            ]
        if self.initial is not None:
            at = self.initial.modules
            columns.append(Column("phi", "initial A", value=lambda m: _first(at.get(m.module))))
        if self.control is not None:
            there = self.control.modules
            columns += [
                Column("phi", "control", value=lambda m: _first(there.get(m.module))),
                Column(
                    "agreeing",
                    value=lambda m: getattr(there.get(m.module), "agreeing", None),
                    of=lambda m: _most(there[m.module]),
                ),
            ]
        return columns

    def legend(self) -> Sequence[str]:
        """Say at which level directions agree, and what stands beside."""
        lines = [f"above chance: level {self.level:g}, Benjamini-Hochberg over {len(self)} modules"]
        if len(self._ranks_used()) > 1:
            lines.append("φ(r,r): of all directions that count, r of each adapter beside it")
        if self.initial is not None:
            lines.append("initial A: φ(1,1) between the two initial A")
        if self.control is not None:
            lines.append(f"control: φ(1,1) of {self.adapters[0]} and {self.control.adapters[1]}")
        return lines

    def remarks(self) -> Sequence[str]:
        """Add the modules that only one has."""
        alone = zip(self.adapters, self.unmatched, strict=True)
        only = [f"only {adapter} has {some(names, 6)}" for adapter, names in alone if names]
        return [*super().remarks(), *only]

    def to_rows(self) -> list[dict[str, Any]]:
        """Return tidy rows: one per module and cell (i, j)."""
        return list(self._cells())

    def _cells(self) -> Iterable[dict[str, Any]]:
        for name, m in self.items():
            grids = [getattr(m, grid).tolist() for grid in GRIDS]
            for i in range(m.rank_a):
                for j in range(m.rank_b):
                    values = (grid[i][j] for grid in grids)
                    row = {"module": name, "i": i + 1, "j": j + 1}
                    yield row | dict(zip(GRIDS, values, strict=True))

    def to_frame(self) -> "pd.DataFrame":
        """Return tidy rows: one per module and cell (i, j); undefined is missing."""
        import pandas as pd

        return pd.DataFrame(self._cells(), columns=["module", "i", "j", *GRIDS])


GRIDS = ("phi", "error", "masked", "null_mean", "null_std", "pvalue")


def _most(m: ModuleSimilarity) -> int:
    return min(m.numerical_rank_a, m.numerical_rank_b)


def _ranks(m: ModuleSimilarity) -> str:
    return f"{m.numerical_rank_a},{m.numerical_rank_b}"


def _first(m: ModuleSimilarity | None) -> float:
    return math.nan if m is None else float(m.phi[0, 0])


def _degrees(angle: float | None) -> str:
    return "-" if angle is None else f"{math.degrees(angle):.1f}°"
