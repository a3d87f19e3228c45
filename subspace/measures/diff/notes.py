"""Notes of a difference of two checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from subspace.measures.diff.weights import PLAIN

if TYPE_CHECKING:
    import torch

    from subspace.results import Diff, ModuleDiff


def note_module(row: ModuleDiff, grids: tuple[torch.dtype, torch.dtype]) -> str:
    """Say what is undefined, or rounding alone, in one module.

    Parameters
    ----------
    found
        The module's numbers, without a note.
    grids
        The coarsest dtypes that hold the base's and the tuned one's numbers.
    """
    notes = []
    stored = (row.base_dtype, row.tuned_dtype)
    if row.real is None:
        odd = " and ".join(dict.fromkeys(d for d in stored if d not in PLAIN))
        notes.append(f"stored as {odd}: what that rounds away, and so what is real, is not known")
    elif row.real == 0:
        notes.append(
            "no direction is beyond what storing the numbers rounds away "
            f"(of Frobenius norm {row.rounding:.2g})"
        )
    elif row.real < row.rank:
        notes.append(
            f"{row.real} of {row.rank} directions are beyond the rounding of what is stored"
        )
    for which, dtype, grid in zip(("base", "tuned"), stored, grids, strict=True):
        numbers = str(grid).removeprefix("torch.")
        if dtype in PLAIN and numbers != dtype:
            notes.append(
                f"the {which} numbers are stored as {dtype} and are all of {numbers}, whose "
                "rounding counts"
            )
    return "; ".join(notes)


def note_adapter(result: Diff) -> tuple[str, ...]:
    """Say what an adapter that was cut from a difference is and is not."""
    asked = (
        f"rank {result.rank}" if result.energy is None else f"{result.energy:.0%} of each energy"
    )
    notes = [
        f"the leading directions of {result.tuned} - {result.base} ({asked}): {result.kept:.1%} of "
        "the energy of what tuning changed in matrices"
    ]
    changed = sum(tensor.changed for tensor in result.tensors)
    if changed:
        are = "tensors that are no matrices" if changed > 1 else "tensor that is no matrix"
        notes.append(f"{changed} {are} changed too, in no update")
    return tuple(notes)
