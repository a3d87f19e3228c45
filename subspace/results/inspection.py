"""What ``subspace inspect`` says: what is in adapters, from headers alone."""

from dataclasses import dataclass
from typing import Annotated, Any

from subspace.results.base import Part, Result
from subspace.results.conversion import InspectedModule
from subspace.results.fields import Field


@dataclass(frozen=True, kw_only=True)
class SetAsideTensor(Part):
    """A tensor that is part of no A or B."""

    tensor: Annotated[str, Field("Name in the file")]
    module: Annotated[
        str | None, Field("Path of the module that it belongs to", undefined="where unknown")
    ]
    shape: Annotated[tuple[int, ...], Field("Shape as stored", low=0)]
    dtype: Annotated[str, Field("Stored dtype")]
    reason: Annotated[str, Field("Why it is set aside")]
    known: Annotated[bool, Field("Whether the loader understands it")]


@dataclass(frozen=True, kw_only=True)
class Inspected(Part):
    """One adapter as its files say."""

    name: Annotated[str, Field("Name of the adapter")]
    path: Annotated[str, Field("File or folder that was read, as it was given")]
    format: Annotated[str, Field("Format, such as PEFT")]
    method: Annotated[str, Field("Method, such as LoRA or rsLoRA")]
    base_model: Annotated[
        str | None, Field("Base model that the adapter names", undefined="where it names none")
    ]
    parameters: Annotated[int, Field("Stored values of all A and B", low=0)]
    initial_a: Annotated[bool, Field("Whether the initial A is stored too", key="initial_A")]
    modules: Annotated[
        tuple[InspectedModule, ...], Field("One entry per module, in the model's order")
    ]
    set_aside: Annotated[
        tuple[SetAsideTensor, ...], Field("One entry per tensor that is part of no A or B")
    ]
    notes: Annotated[tuple[str, ...], Field("What else a reader must know of the adapter")]


@dataclass(frozen=True)
class Inspection(Result):
    """`subspace inspect`: what is in adapters, from headers alone."""

    kind = "inspect"
    of_rows = Inspected
    row_name = "adapters"

    adapters: Annotated[
        tuple[Inspected, ...], Field("One entry per adapter, in the order given", at_least=1)
    ]

    def to_rows(self) -> list[dict[str, Any]]:
        """Return one flat row per adapter and module."""
        return [
            {"adapter": adapter.name} | module.to_row()
            for adapter in self.adapters
            for module in adapter.modules
        ]
