"""Adapters to keep: the runs that figures are drawn from, copied out of a sweep."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from subspace.errors import ArgumentError
from subspace.training.folder import FILES, RECORD, fill_folder, find_record, read_record

if TYPE_CHECKING:
    from pathlib import Path

    from subspace.training.sweep.run import SweepRun

_FILES = (*FILES["lora"], RECORD)


def copy_run(run: SweepRun, store: Path) -> Path | None:
    """Return this run's folder within `store`; written where the run's own weights are there.

    The copy is of the record that it stands beside, so that a run trained anew is copied anew. It
    has every tensor as it was trained: in float16 the factors' rounding would hide all of delta W
    but its largest directions (4 of 64 in a module of data/adapters).

    Parameters
    ----------
    run
        A finished LoRA run.
    store
        The folder of the copies; each is named like its run (``r8-seed0``).

    Returns
    -------
    None where neither the run nor an earlier copy has the weights.

    Raises
    ------
    ArgumentError
        In the copy's place is what is no copy of this run.
    """
    copy = store / run.config.run_name
    if _holds(copy) and (copy / RECORD).read_bytes() == (run.folder / RECORD).read_bytes():
        return copy
    if not _holds(run.folder):
        return None
    record = read_record(run.folder)
    try:
        identity = {part: record[part] for part in ("options", "model", "data")}
        find_record(copy, identity, overwrite=False, records_only=True)
    except ArgumentError as error:  # someone's own adapter, perhaps, that is nowhere else
        raise ArgumentError(
            f"{copy}: in the place of a copy of {run.folder}, and none of it; move or delete it, "
            "or choose another folder"
        ) from error
    with fill_folder(copy, {"copy": record}) as work:
        for name in _FILES:
            shutil.copyfile(run.folder / name, work / "new" / name)
    return copy


def _holds(folder: Path) -> bool:
    return all((folder / name).is_file() for name in _FILES)
