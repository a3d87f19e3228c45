"""Two full checkpoints: what tuning changed, module by module, and how few directions hold it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from subspace.results.base import ByModule, Part
from subspace.results.fields import HIDDEN, Field, Module, Shape, Vector, described
from subspace.results.numbers import number
from subspace.results.table import Column, some

if TYPE_CHECKING:
    from subspace.adapters import Adapter


@dataclass(frozen=True, eq=False, kw_only=True)
class ModuleDiff(Part):
    """One module's delta W = tuned - base, and its leading directions. NaN, None: see `note`."""

    module: Module
    kind: Annotated[str, Field("Kind of layer: linear, embedding, conv1d, conv2d or conv3d")]
    shape: Shape
    base_dtype: Annotated[str, Field("Stored dtype of the base's W")]
    tuned_dtype: Annotated[str, Field("Stored dtype of the tuned W")]
    unchanged: Annotated[float, Field("Share of the entries that are equal", low=0, high=1)]
    w_norm: Annotated[float, Field("Frobenius norm of the base's W", title="|W|", low=0)]
    delta_norm: Annotated[float, Field("Frobenius norm of delta W", title="|ΔW|", low=0)]
    rank: Annotated[
        int,
        Field(
            "Directions kept: those asked for, where they are told apart from zero",
            title="r",
            low=0,
        ),
    ]
    sigma: Annotated[Vector, Field("Their singular values, descending", title="σ1", low=0)]
    error: Annotated[Vector, Field("How close to each a singular value of delta W lies", low=0)]
    method: Annotated[
        Literal["gram", "krylov", "rough"],
        Field(
            "How they were found: gram all of them, krylov lower bounds, since one may be missed"
        ),
    ]
    energy: Annotated[
        float,
        Field(
            "Share of the squared norm of delta W in the kept directions",
            decimals=3,
            explain=True,
            low=0,
            high=1,
        ),
    ]
    stable: Annotated[
        float,
        Field(
            "Stable rank: the squared norm of delta W over that of its first direction",
            explain=True,
            low=0,
        ),
    ]
    rounding: Annotated[
        float,
        Field(
            "Frobenius norm of what storing both rounded away, root mean square",
            explain=True,
            low=0,
            undefined="where not known",
        ),
    ]
    level: Annotated[
        float,
        Field(
            "A singular value up to this may be rounding alone", low=0, undefined="where not known"
        ),
    ]
    real: Annotated[
        int | None,
        Field(
            "Leading directions beyond the level of rounding",
            explain=True,
            low=0,
            undefined="where not known",
        ),
    ]
    more: Annotated[bool, Field("Whether the last value computed is real too, so that more may be")]
    note: Annotated[str, Field("What is rounding, or not known; may be empty")] = ""

    @property
    def relative(
        self,
    ) -> Annotated[
        float,
        Field(
            "The norm of delta W over that of W",
            title="|ΔW|/|W|",
            low=0,
            undefined="where W is zero",
        ),
    ]:
        """|delta W|_F / |W|_F; NaN where W is zero."""
        return self.delta_norm / self.w_norm if self.w_norm else math.nan

    @property
    def real_text(self) -> str:
        """How many directions are real, at least where more may be."""
        return f"{'≥' if self.more else ''}{number(self.real)}"

    def to_row(self) -> dict[str, Any]:
        """Return one flat row; ``sigma_1`` is the first singular value."""
        return super().to_row() | {"sigma_1": float(self.sigma[0]) if self.rank else None}


@dataclass(frozen=True)
class TensorDiff(Part):
    """A tensor of both checkpoints that is no module's matrix: a bias, a norm, stacked experts."""

    tensor: Annotated[str, Field("Its name in the base")]
    shape: Annotated[tuple[int, ...], Field("Its shape in the tuned checkpoint", low=0)]
    changed: Annotated[bool, Field("Whether any number, or the shape, is another")]
    relative: Annotated[
        float,
        Field(
            "Norm of the change over that of the base's",
            low=0,
            undefined="where that is zero or shapes differ",
        ),
    ]


@dataclass(frozen=True, eq=False, kw_only=True)
class Diff(ByModule[ModuleDiff]):
    """What tuning changed: a read-only mapping from the modules that are not equal."""

    kind = "diff"
    of_rows = ModuleDiff

    base: Annotated[str, Field("Name of the checkpoint before tuning")]
    tuned: Annotated[str, Field("Name of the checkpoint after it")]
    rank: Annotated[
        int | None,
        Field("Directions asked for of each module", low=1, undefined="where an energy was"),
    ]
    energy: Annotated[
        float | None,
        Field(
            "Share of each module's energy asked for", high=1, above=0, undefined="where a rank was"
        ),
    ]
    modules: Annotated[
        Mapping[str, ModuleDiff], Field("One entry per module that changed, in the model's order")
    ]
    equal: Annotated[tuple[str, ...], Field("Modules that are the same number by number")]
    only_base: Annotated[
        tuple[str, ...],
        Field("Modules, and tensors of none, that the tuned checkpoint has no counterpart of"),
    ]
    only_tuned: Annotated[
        tuple[str, ...], Field("Modules, and tensors of none, that the base has no counterpart of")
    ]
    tensors: Annotated[
        tuple[TensorDiff, ...],
        Field("Tensors of both that are no module's matrix, and so are in no update"),
    ]
    notes: Annotated[tuple[str, ...], Field("What else a reader must know of the two")] = ()
    adapter: Annotated["Adapter | None", HIDDEN] = field(default=None, repr=False)
    """The kept directions as an adapter of the base, B A = U S V^T; None where not asked for."""

    _lacks = ("did not change, or is not in both", "did")

    @property
    def delta_norm(
        self,
    ) -> Annotated[float, Field("Frobenius norm of delta W over all modules", low=0)]:
        """|delta W|_F over all modules."""
        return math.hypot(*(m.delta_norm for m in self.modules.values()))

    @property
    def kept(
        self,
    ) -> Annotated[
        float,
        Field(
            "Share of its square in the kept directions",
            decimals=3,
            low=0,
            high=1,
            undefined="where no module changed",
        ),
    ]:
        """Share of the whole |delta W|_F^2 in the kept directions; NaN where nothing changed."""
        whole = self.delta_norm
        parts = (m.energy * (m.delta_norm / whole) ** 2 for m in self.modules.values())
        return sum(parts) if whole else math.nan

    def __repr__(self) -> str:
        return f"Diff(base={self.base!r}, tuned={self.tuned!r}, {len(self)} modules changed)"

    def caption(self) -> str:
        """Say how many modules changed."""
        all_of = len(self) + len(self.equal)
        return f"{self.tuned} - {self.base}: {len(self)} of {all_of} modules changed"

    def columns(self) -> Sequence[Column]:
        """Norms, and how few directions hold the change."""
        names = ("module", "rank", "w_norm", "delta_norm", "relative")
        return [
            *map(Column, names),
            Column("sigma", value=lambda m: float(m.sigma[0]) if m.rank else None),
            *map(Column, ("energy", "stable", "rounding")),
            Column("real", text=lambda m: m.real_text),
        ]

    def legend(self) -> Sequence[str]:
        """Say what the kept directions hold of the whole."""
        if not self:
            return ()
        share = described(Diff)["kept"].field.text(self.kept)
        whole = f"|ΔW| {number(self.delta_norm)}"
        return [f"whole: {whole}, of whose square the kept directions hold {share}"]

    def remarks(self) -> Sequence[str]:
        """Add what is in no row."""
        lists = {
            "equal": self.equal,
            f"only in {self.base}": self.only_base,
            f"only in {self.tuned}": self.only_tuned,
        }
        lines = [f"{what}: {len(names)} ({some(names)})" for what, names in lists.items() if names]
        if self.tensors:
            other = [tensor.tensor for tensor in self.tensors if tensor.changed]
            named = f": {some(other)}" if other else ""
            lines.append(
                f"in no update: {len(other)} of {len(self.tensors)} tensors that are no matrices "
                f"changed{named}"
            )
        return [*lines, *super().remarks()]
