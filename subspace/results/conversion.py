"""An adapter in another format: what was written where, module by module."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from subspace.results.base import ByModule, Part
from subspace.results.fields import Field, Module, Shape
from subspace.results.table import Column


@dataclass(frozen=True, kw_only=True)
class InspectedModule(Part):
    """One module's update, as the header says."""

    module: Module
    kind: Annotated[str, Field("Kind of layer: linear, embedding, conv1d, conv2d, conv3d")]
    shape: Shape
    rank: Annotated[int, Field("Stored rank", low=1)]
    scale: Annotated[
        float, Field("What B A is multiplied by: alpha / r, or what the format says", digits=6)
    ]
    dtype: Annotated[str, Field("Stored dtype of A and B; of two with a slash")]
    parameters: Annotated[int, Field("Stored values of A and B", low=0)]


@dataclass(frozen=True, eq=False, kw_only=True)
class Conversion(ByModule[InspectedModule]):
    """What `subspace convert` wrote: a read-only mapping from module path."""

    kind = "conversion"
    of_rows = InspectedModule

    name: Annotated[str, Field("Name of the adapter", key="adapter")]
    source_format: Annotated[str, Field("Format that was read, such as PEFT")]
    format: Annotated[str, Field("Format that was written")]
    out: Annotated[str, Field("File or folder that was written, as it was given")]
    modules: Annotated[
        Mapping[str, InspectedModule],
        Field("One entry per module, in the adapter's order, as it was read", at_least=1),
    ]
    notes: Annotated[
        tuple[str, ...],
        Field("What was folded, filled up or left out, and what else a reader must know"),
    ] = ()

    _lacks = ("was not written", "were")

    @property
    def parameters(self) -> Annotated[int, Field("Values in A and B of all modules", low=0)]:
        """Values in A and B of all modules."""
        return sum(m.parameters for m in self.modules.values())

    def __repr__(self) -> str:
        return f"Conversion({self.name!r}, {self.format!r}, {self.out!r}, {len(self)} modules)"

    def caption(self) -> str:
        """Say what was written where."""
        return f"{self.name} ({self.source_format}) as {self.format}: {self.out}"

    def columns(self) -> Sequence[Column]:
        """Shapes and scales."""
        return [
            Column("module"),
            Column("shape", "d_out", value=lambda m: m.shape[0]),
            Column("shape", "d_in", value=lambda m: m.shape[1]),
            *map(Column, ("rank", "scale", "dtype")),
        ]
