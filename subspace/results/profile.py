"""Where an update's energy lies over the whole singular index of W."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from subspace.results.base import SCHEMA_VERSION, ByModule, Part
from subspace.results.notebook import html_table, of, probability

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

LEAST = 1e-4  # p-value shown: further out the Beta of two moments is off by several times


@dataclass(frozen=True)
class TopEnergy(Part):
    """The share of an update's energy in W's leading k directions, beside chance. NaN: unknown."""

    k: int
    energy: float  # in [0, 1]
    error: float  # bound on |energy - exact|
    chance: float  # what a random update has in the mean: k / d
    chance_low: float  # central 95 % of it
    chance_high: float
    p: float  # two-sided: of chance being as far from its middle


@dataclass(frozen=True, eq=False)
class ModuleProfile(Part):
    """One module's update spread over W's singular directions k = 1 ... d. NaN: see `note`."""

    module: str
    side: Literal["in", "out"]
    shape: tuple[int, int]  # (d_out, d_in)
    d: int  # the dimension of the side: d_in or d_out
    rank: int  # of the update, as stored
    resolved: int  # leading directions of W whose singular value is told apart from zero
    sigma: Array  # (min(d_out, d_in),) singular values of W, descending
    energy: Array  # (d,) |delta W v_k|^2 / |delta W|_F^2; sums to 1; even where W has no order
    cumulative: Array  # (d,) its running sum: the share within W's leading k directions
    error: Array  # (d,) bound on |cumulative - exact|; infinite where k cuts a cluster
    chance_low: Array  # (d,) central 95 % of `cumulative` by chance, whose mean is k / d
    chance_high: Array
    concentration: float  # sum of squares of the update's own energies: 1/r even, 1 one direction
    top: TopEnergy  # in W's leading `rank` directions
    tenth: TopEnergy  # in the leading tenth of W's min(d_out, d_in) directions
    median: float  # k / d at which `cumulative` reaches 1/2; 0.5 by chance
    median_between: tuple[int, int]  # k before and after which the median surely does not lie
    median_p: float  # two-sided
    note: str = ""


@dataclass(frozen=True, eq=False)
class Profile(ByModule[ModuleProfile]):
    """An adapter over the whole singular index of its base: a read-only mapping from module."""

    adapter: str
    base: str
    side: Literal["in", "out"]
    modules: Mapping[str, ModuleProfile]

    _lacks = ("has no profile here", "have")

    def __repr__(self) -> str:
        return (
            f"Profile({self.adapter!r}, base={self.base!r}, side={self.side!r}, "
            f"{len(self)} modules)"
        )

    def _repr_html_(self) -> str:
        header = [
            "module",
            "of d",
            "top r",
            "chance",
            "p",
            "top 10%",
            "chance",
            "p",
            "half at",
            "p",
        ]
        rows = [
            [
                name,
                of(m.resolved, m.d),
                *(m.top.energy, m.top.chance, probability(m.top.p, LEAST)),
                *(m.tenth.energy, m.tenth.chance, probability(m.tenth.p, LEAST)),
                *(m.median, probability(m.median_p, LEAST)),
            ]
            for name, m in self.modules.items()
        ]
        caption = f"energy of {self.adapter} over W of {self.base}, side {self.side}"
        return html_table(caption, header, rows)

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python for strict JSON, schema version 1."""
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": "profile",
            "adapter": self.adapter,
            "base": self.base,
            "side": self.side,
            "modules": [result.to_dict() for result in self.modules.values()],
        }

    def to_frame(self) -> pd.DataFrame:
        """Return tidy rows: one a module and index k; sigma is NaN where W has none."""
        import numpy as np
        import pandas as pd

        columns = ("energy", "cumulative", "error", "chance_low", "chance_high")
        frames = []
        for name, m in self.modules.items():
            sigma = np.full(m.d, np.nan)
            sigma[: len(m.sigma)] = m.sigma
            index = np.arange(1, m.d + 1)
            frame = {"module": name, "k": index, "sigma": sigma}
            frame |= {c: getattr(m, c) for c in columns} | {"chance": index / m.d}
            frames.append(pd.DataFrame(frame))
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
