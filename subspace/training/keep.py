"""Adapters to keep: a run's folder with every tensor in float16, small enough to travel."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from subspace.errors import AnalysisError
from subspace.training.folder import (
    CONFIG,
    INITIAL_A,
    RECORD,
    WEIGHTS,
    appearing,
    read_record,
)

if TYPE_CHECKING:
    from pathlib import Path

    from subspace.training.sweep import Cell

_FILES = (CONFIG, INITIAL_A, RECORD, WEIGHTS)


def kept(cell: Cell, store: Path) -> Path | None:
    """Return this run's folder within `store`; written where the run's own weights are there.

    The copy is of the record that it stands beside, so that a run trained anew is copied anew.

    Parameters
    ----------
    cell
        A finished LoRA run.
    store
        The folder of the copies; each is named like its run (``r8-seed0``).

    Returns
    -------
    None where neither the run nor an earlier copy has the weights.

    Raises
    ------
    AnalysisError
        A factor has values beyond float16's range.
    """
    copy = store / cell.config.cell
    if _holds(copy) and (copy / RECORD).read_bytes() == (cell.folder / RECORD).read_bytes():
        return copy
    if not _holds(cell.folder):
        return None
    with appearing(copy, {"copy": read_record(cell.folder)}) as work:
        new = work / "new"
        for name in (CONFIG, RECORD):
            shutil.copyfile(cell.folder / name, new / name)
        for name in (WEIGHTS, INITIAL_A):
            _halve(cell.folder / name, new / name)
            (new / name).chmod(
                (new / CONFIG).stat().st_mode & 0o777
            )  # safetensors shuts others out
    return copy


def _holds(folder: Path) -> bool:
    return all((folder / name).is_file() for name in _FILES)


def _halve(source: Path, target: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    tensors = {name: t.to(torch.float16).contiguous() for name, t in load_file(source).items()}
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise AnalysisError(f"{source}: {name} has values beyond float16's range")
    save_file(tensors, target, metadata={"format": "pt", "rounded_to": "float16"})
