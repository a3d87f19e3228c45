"""Which runs of a sweep the gallery compares, and the adapters of them that it keeps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from subspace.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from subspace.adapters import Adapter
    from subspace.training.sweep.run import SweepRun

SMALL, LARGE = 8, 64
"""The ranks that the paper compares; where a sweep lacks them, its two largest."""


@dataclass(frozen=True)
class Compared:
    """Cells of one data set and target set."""

    small: SweepRun
    large: tuple[SweepRun, ...]  # one rank, by seed; the first has the seed of `small` if any has
    controls: tuple[SweepRun, ...]  # as `large`, but on shuffled labels


@dataclass(frozen=True)
class Runs:
    """Their adapters, by what they stand for in a comparison."""

    task: str  # what they were trained on
    targets: str
    small: Adapter
    large: Adapter  # another seed than `small`
    other: Adapter  # a third start where there are three seeds, else `large` again
    twin: Adapter  # the seed of `small` if any has it
    controls: tuple[Adapter, ...]
    same_rank: tuple[Adapter, ...]  # all seeds of the larger rank
    control_of_ranks: Adapter | None  # of another seed than `small`: one seed is one start
    control_of_seeds: Adapter | None  # of another seed than `other`


def compared(cells: Sequence[SweepRun], targets: str | None) -> Compared:
    """Choose the runs to compare: two ranks, and all seeds of the larger one.

    Parameters
    ----------
    cells
        Of a sweep, or of several: the first data set counts. Those without a record do not.
    targets
        A target set as its folder is named (``"query+value"``); None: the query and value
        matrices, as in the paper, or else the first set.

    Raises
    ------
    ArgumentError
        There is no such set, fewer than two ranks, or no two seeds of the larger one.
    """
    from subspace.findings.paper import matrices
    from subspace.training.sweep.grid import target_word

    lora = [
        c for c in cells if c.config.method == "lora" and c.record is not None and not c.searched
    ]
    lora = [c for c in lora if c.config.data == lora[0].config.data]
    sets = list(dict.fromkeys(target_word(c.config.targets) for c in lora))
    if targets is not None and targets not in sets:
        raise ArgumentError(f"no runs of the targets {targets!r}; there are {', '.join(sets)}")
    both = next((word for word in sets if matrices(word) == "Wq, Wv"), None)
    wanted = targets or both or (sets[0] if sets else None)
    here = [c for c in lora if target_word(c.config.targets) == wanted]
    learned = [c for c in here if not c.config.shuffle_labels]
    ranks = sorted({c.config.rank for c in learned})
    where = f" on {lora[0].config.data}, {wanted}" if lora else ""
    if len(ranks) < 2:
        raise ArgumentError(
            f"the gallery compares two ranks, and there are runs of {len(ranks)}{where}: "
            "train with --ranks 8,64 --seeds 0,1"
        )
    big = LARGE if LARGE in ranks[1:] else ranks[-1]
    little = SMALL if SMALL in ranks and big > SMALL else ranks[ranks.index(big) - 1]
    large = sorted((c for c in learned if c.config.rank == big), key=lambda c: c.config.seed)
    if len(large) < 2:
        raise ArgumentError(
            f"the gallery compares two seeds of r = {big}, and there is one{where}: train another"
        )
    seeds = [c.config.seed for c in large]
    of_little = sorted((c for c in learned if c.config.rank == little), key=lambda c: c.config.seed)
    small = next((c for c in of_little if c.config.seed in seeds), of_little[0])
    large.sort(key=lambda c: (c.config.seed != small.config.seed, c.config.seed))
    control = replace(large[0].config, shuffle_labels=True)
    controls = [c for c in here if c.config == replace(control, seed=c.config.seed)]
    return Compared(small, tuple(large), tuple(controls))


def adapters_of(chosen: Compared, folders: dict[Path, Path]) -> Runs:
    """Load the kept adapters of the chosen runs; `folders` says where each run's copy is."""
    from subspace.adapters import load
    from subspace.training.sweep.grid import target_word
    from subspace.training.tasks.load import stored_name

    def adapter(cell: SweepRun) -> Adapter:
        return load(folders[cell.folder])

    def control(seed: int) -> Adapter | None:
        return next((a for c, a in controls if c.config.seed != seed), None)

    large = tuple(adapter(cell) for cell in chosen.large)
    controls = [(cell, adapter(cell)) for cell in chosen.controls]
    config = chosen.small.config
    return Runs(
        task=stored_name(config.data),
        targets=target_word(config.targets),
        small=adapter(chosen.small),
        large=large[1],
        other=large[-1],
        twin=large[0],
        controls=tuple(found for _, found in controls),
        same_rank=large,
        control_of_ranks=control(chosen.small.config.seed),
        control_of_seeds=control(chosen.large[-1].config.seed),
    )
