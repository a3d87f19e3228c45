"""Where an update's energy lies over the whole singular index of W."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from subspace.results.base import ByModule, Part
from subspace.results.fields import Field, Module, Shape, Vector
from subspace.results.numbers import number
from subspace.results.table import Column

LEAST = 1e-4  # p-value shown: further out the Beta of two moments is off by several times


@dataclass(frozen=True, kw_only=True)
class TopEnergy(Part):
    """The share of an update's energy in W's leading k directions, beside chance. NaN: unknown."""

    k: Annotated[int, Field("Number of W's directions", low=1)]
    energy: Annotated[
        float,
        Field(
            "Share of the energy, in [0, 1]",
            title="energy",
            decimals=3,
            low=0,
            high=1,
            undefined="where unknown",
        ),
    ]
    error: Annotated[float, Field("Bound on |energy - exact|", low=0, undefined="where unknown")]
    null_mean: Annotated[
        float,
        Field("Mean share of a random update: k / d", title="null mean", decimals=3, low=0, high=1),
    ]
    null_low: Annotated[
        float,
        Field(
            "Lower end of the central 95 % of chance", low=0, high=1, undefined="where undefined"
        ),
    ]
    null_high: Annotated[
        float,
        Field(
            "Upper end of the central 95 % of chance", low=0, high=1, undefined="where undefined"
        ),
    ]
    p: Annotated[
        float,
        Field(
            "Two-sided probability under the null, rough below 1e-4",
            form="pvalue",
            least_shown=LEAST,
            low=0,
            high=1,
            undefined="where unknown",
        ),
    ]


@dataclass(frozen=True, eq=False, kw_only=True)
class ModuleProfile(Part):
    """One module's update spread over W's singular directions k = 1 ... d. NaN: see `note`."""

    module: Module
    side: Annotated[Literal["in", "out"], Field("Right (in) or left (out) singular vectors of W")]
    shape: Shape
    d: Annotated[int, Field("Dimension of the side: d_in or d_out", low=1)]
    rank: Annotated[int, Field("Stored rank of the update", low=1)]
    resolved: Annotated[
        int,
        Field(
            "Leading directions of W that are told apart from zero; 0 where undefined",
            title="of d",
            explain=True,
            low=0,
        ),
    ]
    sigma: Annotated[
        Vector,
        Field(
            "Singular values of W, descending, min(d_out, d_in) of them",
            undefined="where undefined",
        ),
    ]
    energy: Annotated[
        Vector,
        Field(
            "Share of the energy along each of d directions, summing to 1",
            undefined="where undefined",
        ),
    ]
    cumulative: Annotated[
        Vector,
        Field(
            "Running sum of energy, d of them: the share within the leading k",
            undefined="where undefined",
        ),
    ]
    error: Annotated[
        Vector,
        Field(
            "Bound on |cumulative - exact|, d of them",
            undefined="where k cuts a cluster, or undefined",
        ),
    ]
    null_low: Annotated[
        Vector,
        Field(
            "Lower end of the central 95 % of cumulative by chance, d of them",
            undefined="where undefined",
        ),
    ]
    null_high: Annotated[
        Vector,
        Field(
            "Upper end of the central 95 % of cumulative by chance, d of them",
            undefined="where undefined",
        ),
    ]
    concentration: Annotated[
        float,
        Field(
            "Sum of squares of the update's own energies: 1/r even, 1 a single direction",
            low=0,
            undefined="where undefined",
        ),
    ]
    top: Annotated[
        TopEnergy,
        Field(
            "Share of the energy in W's leading directions, as many as the update's rank",
            title="top r",
        ),
    ]
    tenth: Annotated[
        TopEnergy,
        Field(
            "Share of the energy in the leading tenth of W's min(d_out, d_in) directions",
            title="top 10%",
        ),
    ]
    median: Annotated[
        float,
        Field(
            "k/d within which half of the energy lies, 0.5 under the null",
            title="half at",
            decimals=3,
            explain=True,
            low=0,
            high=1,
            undefined="where it cannot be told",
        ),
    ]
    median_between: Annotated[
        tuple[int, int], Field("First and last k at which the median may lie", low=1)
    ]
    median_p: Annotated[
        float,
        Field(
            "Two-sided probability under the null, rough below 1e-4",
            title="p",
            form="pvalue",
            least_shown=LEAST,
            low=0,
            high=1,
            undefined="where the median is",
        ),
    ]
    note: Annotated[
        str, Field("Why something is undefined, and what is known of sums alone; may be empty")
    ] = ""


@dataclass(frozen=True, eq=False)
class Profile(ByModule[ModuleProfile]):
    """An adapter over the whole singular index of its base: a read-only mapping from module."""

    kind = "profile"
    of_rows = ModuleProfile

    adapter: Annotated[str, Field("Name of the adapter")]
    base: Annotated[str, Field("Name of the base checkpoint")]
    side: Annotated[Literal["in", "out"], Field("Right (in) or left (out) singular vectors of W")]
    modules: Annotated[
        Mapping[str, ModuleProfile], Field("One entry per module, in the model's order")
    ]
    notes: Annotated[tuple[str, ...], Field("What else a reader must know of the adapter")] = ()

    _lacks = ("has no profile here", "have")

    def __repr__(self) -> str:
        return (
            f"Profile({self.adapter!r}, base={self.base!r}, side={self.side!r}, "
            f"{len(self)} modules)"
        )

    def caption(self) -> str:
        """Say whose energy lies over what."""
        words = {"in": "right", "out": "left"}[self.side]
        return (
            f"energy of {self.adapter} over the {words} singular vectors of W of {self.base}, side "
            f"{self.side}"
        )

    def columns(self) -> Sequence[Column]:
        """Shares of the energy; a null mean that all modules share is in the legend instead."""
        columns = [Column("module"), Column("resolved", of=lambda m: m.d)]
        for part, title, shared in self._tops():
            columns.append(Column(f"{part}.energy", title))
            columns += [] if shared else [Column(f"{part}.null_mean")]
            columns.append(Column(f"{part}.p"))
        return [*columns, Column("median", text=_median), Column("median_p")]

    def _tops(self) -> list[tuple[str, str, str]]:
        """Return name, title, and the null mean that all modules share, of both shares."""
        ranks = {m.rank for m in self.values()}
        titles = (f"top {next(iter(ranks))}" if len(ranks) == 1 else "top r", "top 10%")
        tops = []
        for part, title in zip(("top", "tenth"), titles, strict=True):
            means = {number(getattr(m, part).null_mean, decimals=3) for m in self.values()}
            tops.append((part, title, next(iter(means)) if len(means) == 1 else ""))
        return tops

    def legend(self) -> Sequence[str]:
        """Say what the shares are of, and their null means where all modules share them."""
        shared = ", ".join(f"{title} {mean}" for _, title, mean in self._tops() if mean)
        null = f"; null mean: {shared}" if shared else ""
        return [
            f"top: share of the energy in W's leading directions{null}",
            "p: two-sided probability under the null",
        ]

    def to_rows(self) -> list[dict[str, Any]]:
        """Return tidy rows: one per module and index k; sigma is NaN where W has none."""
        return [dict(row) for row in self._indices()]

    def _indices(self) -> Iterable[dict[str, Any]]:
        names = ("energy", "cumulative", "error", "null_low", "null_high")
        for name, m in self.items():
            sigma = [*m.sigma.tolist(), *[math.nan] * (m.d - len(m.sigma))]
            energy, cumulative, error, low, high = (getattr(m, each).tolist() for each in names)
            for k in range(m.d):
                yield {
                    "module": name,
                    "k": k + 1,
                    "sigma": sigma[k],
                    "energy": energy[k],
                    "cumulative": cumulative[k],
                    "error": error[k] if math.isfinite(error[k]) else math.nan,
                    "null_mean": (k + 1) / m.d,
                    "null_low": low[k],
                    "null_high": high[k],
                }


def _median(m: ModuleProfile) -> str:
    if m.resolved and math.isnan(m.median):
        return "-".join(number(k / m.d, decimals=2) for k in m.median_between)
    return number(m.median, decimals=3)
