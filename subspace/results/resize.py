"""What an adapter keeps and loses by fewer directions: module by module, and over all of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal

from subspace.results.base import ByModule, Part
from subspace.results.fields import HIDDEN, Field, Module, Shape, described
from subspace.results.numbers import number
from subspace.results.table import Column, Table, make_table

if TYPE_CHECKING:
    from subspace.adapters import Adapter


Budget = Literal["module", "all"]
Asked = Literal["rank", "energy", "error"]


@dataclass(frozen=True, kw_only=True)
class ModuleResize(Part):
    """One module before and after; delta W = scale * B A in both."""

    module: Module
    shape: Shape
    before: Annotated[int, Field("Rank as it was stored", title="r", low=1)]
    after: Annotated[
        int,
        Field(
            "Directions that are kept; of a module with 0 the new adapter has nothing",
            title="kept",
            low=0,
        ),
    ]
    energy: Annotated[
        float,
        Field(
            "Kept share of |dW|_F^2",
            decimals=4,
            explain=True,
            low=0,
            high=1,
            undefined="where delta W is zero",
        ),
    ]
    error: Annotated[
        float,
        Field(
            "|dW - kept|_F / |dW|_F, the least at that rank",
            explain=True,
            low=0,
            high=1,
            undefined="where delta W is zero",
        ),
    ]
    norm: Annotated[float, Field("Frobenius norm of delta W as it was", low=0)]
    parameters_before: Annotated[int, Field("Values in A and B as it was", low=0)]
    parameters_after: Annotated[int, Field("Values in its new factors", title="parameters", low=0)]


@dataclass(frozen=True, eq=False, kw_only=True)
class Resize(ByModule[ModuleResize]):
    """A truncated adapter and what that costs: a read-only mapping from module path."""

    kind = "resize"
    of_rows = ModuleResize

    name: Annotated[str, Field("Name of the adapter", key="adapter")]
    asked: Annotated[Asked, Field("What decided how many directions are kept")]
    value: Annotated[
        float,
        Field(
            "How much of that: directions a module, a share of the energy, or a relative error",
            low=0,
        ),
    ]
    budget: Annotated[
        Budget, Field("Whether each module was cut by itself, or all share one budget")
    ]
    dtype: Annotated[str, Field("In what the new factors are stored")]
    modules: Annotated[
        Mapping[str, ModuleResize], Field("One entry per module, in the model's order")
    ]
    energy: Annotated[
        float,
        Field("Kept share of the sum of |delta W|_F^2 over all modules", decimals=4, low=0, high=1),
    ]
    error: Annotated[
        float, Field("Norm of what is lost over the norm of all, over all modules", low=0, high=1)
    ]
    notes: Annotated[tuple[str, ...], Field("What else a reader must know of the new adapter")] = ()
    adapter: Annotated["Adapter", HIDDEN] = field(kw_only=True, repr=False)
    """What is left: in memory, ready for `subspace.save`."""

    _lacks = ("is not in the adapter", "are")

    @property
    def parameters_before(self) -> Annotated[int, Field("Values in A and B of all modules", low=0)]:
        """Values in A and B of all modules."""
        return sum(m.parameters_before for m in self.modules.values())

    @property
    def parameters_after(self) -> Annotated[int, Field("The same of the new factors", low=0)]:
        """Values in A and B of all modules that are kept."""
        return sum(m.parameters_after for m in self.modules.values())

    def __repr__(self) -> str:
        return (
            f"Resize({self.name!r}, {self.asked}={self.value:g}, budget={self.budget!r}, "
            f"{len(self)} modules, error {number(self.error)})"
        )

    def caption(self) -> str:
        """Say what decided how many directions are kept."""
        of = "all modules together" if self.budget == "all" else "each module"
        return f"{self.name} resized by {self.asked} {self.value:g} of {of}"

    def columns(self) -> Sequence[Column]:
        """Ranks before and after, and what that costs."""
        return list(
            map(Column, ("module", "before", "after", "energy", "error", "parameters_after"))
        )

    def table(self) -> Table:
        """Return one row per module, and a last one of all."""
        about = described(Resize)
        whole = (
            "all",
            number(sum(m.before for m in self.values())),
            number(sum(m.after for m in self.values())),
            *(
                about[n].field.text(getattr(self, n))
                for n in ("energy", "error", "parameters_after")
            ),
        )
        return make_table(
            self.of_rows,
            self.columns(),
            self.row_parts(),
            caption=self.caption(),
            notes=self.remarks(),
            total=whole,
        )
