"""Which runs of a sweep the gallery compares, and the adapters of them that it keeps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from subspace.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from subspace.adapters import Adapter
    from subspace.training.sweep.run import SweepRun

SMALL, LARGE = 8, 64
"""The ranks that the paper compares; where a sweep lacks them, its two largest."""


@dataclass(frozen=True)
class ComparedRuns:
    """Runs of one data set and target set."""

    small: SweepRun
    large: tuple[SweepRun, ...]  # one rank, by seed; the first has the seed of `small` if any has
    controls: tuple[SweepRun, ...]  # as `large`, but on shuffled labels
    absent: tuple[SweepRun, ...]  # of `large` and `controls`, those that have a record alone

    @property
    def runs(self) -> tuple[SweepRun, ...]:
        """All that are compared."""
        return (*self.large, self.small, *self.controls)


@dataclass(frozen=True, kw_only=True)
class ComparedAdapters:
    """Their adapters, by what they stand for in a comparison."""

    task: str  # what they were trained on
    targets: str
    small: Adapter
    large: Adapter  # another seed than `small`
    twin: Adapter  # the seed of `small` if any has it
    seeds: tuple[Adapter, Adapter]  # of `same_rank`; `large` is one where there are two alone
    controls: tuple[Adapter, ...]
    same_rank: tuple[Adapter, ...]  # all seeds of the larger rank
    control_of_ranks: Adapter | None  # of another seed than `small`: one seed gives one initial A
    control_of_seeds: Adapter | None  # of another seed than the first of `seeds`

    @property
    def adapters(self) -> tuple[Adapter, ...]:
        """All that are compared, each once."""
        return (*self.same_rank, self.small, *self.controls)


def choose_runs(
    runs: Sequence[SweepRun], targets: str | None, *, weights: bool = False
) -> ComparedRuns:
    """Choose the runs to compare: two ranks, and all seeds of the larger one.

    Parameters
    ----------
    runs
        Of a sweep, or of several: the first data set counts. Those without a record do not.
    targets
        A target set as its folder is named (``"query+value"``); None: the query and value
        matrices, as in the paper, or else the first set.
    weights
        Compare those alone that have their weights.

    Raises
    ------
    ArgumentError
        There is no such set, fewer than two ranks, or no two seeds of the larger one.
    """
    from subspace.findings.paper import matrices
    from subspace.training.sweep.grid import name_targets
    from subspace.training.sweep.read import has_weights

    lora = [
        c for c in runs if c.config.method == "lora" and c.record is not None and not c.searched
    ]
    lora = [c for c in lora if c.config.data == lora[0].config.data]
    sets = list(dict.fromkeys(name_targets(c.config.targets) for c in lora))
    if targets is not None and targets not in sets:
        raise ArgumentError(f"no runs of the targets {targets!r}; there are {', '.join(sets)}")
    both = next((word for word in sets if matrices(word) == "Wq, Wv"), None)
    wanted = targets or both or (sets[0] if sets else None)
    every = [c for c in lora if name_targets(c.config.targets) == wanted]
    here = [c for c in every if has_weights(c)] if weights else every
    learned = [c for c in here if not c.config.shuffle_labels]
    ranks = sorted({c.config.rank for c in learned})
    where = f" on {lora[0].config.data}, {wanted}" if lora else ""
    where = " with weights" * weights + where
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
    absent = [
        c
        for c in every
        if c not in here and replace(c.config, seed=control.seed, shuffle_labels=True) == control
    ]
    return ComparedRuns(small, tuple(large), tuple(controls), tuple(absent))


def load_adapters(chosen: ComparedRuns, folders: Mapping[Path, Path]) -> ComparedAdapters:
    """Load the adapters of the chosen runs, and align them.

    Parameters
    ----------
    chosen
        The runs.
    folders
        The folder of each run, and the one that holds its weights.
    """
    from subspace.adapters import align, load
    from subspace.measures.labels import label_adapters
    from subspace.training.sweep.grid import name_targets
    from subspace.training.tasks.load import strip_folder

    loaded = align([load(folders[run.folder]) for run in chosen.runs])
    # Numbers are kept by the adapters' names, and folders of two places may have one name.
    named = {
        run.folder: replace(adapter, name=label)
        for run, adapter, label in zip(chosen.runs, loaded, label_adapters(loaded), strict=True)
    }

    def control(seed: int) -> Adapter | None:
        others = (run for run in chosen.controls if run.config.seed != seed)
        return next((named[run.folder] for run in others), None)

    first, *_, last = chosen.large
    # A third seed where there is one; and the one first that a control can stand beside.
    seeds = (last, first)
    if control(last.config.seed) is None and control(first.config.seed) is not None:
        seeds = (first, last)
    config = chosen.small.config
    return ComparedAdapters(
        task=strip_folder(config.data),
        targets=name_targets(config.targets),
        small=named[chosen.small.folder],
        large=named[chosen.large[1].folder],
        twin=named[first.folder],
        seeds=(named[seeds[0].folder], named[seeds[1].folder]),
        controls=tuple(named[run.folder] for run in chosen.controls),
        same_rank=tuple(named[run.folder] for run in chosen.large),
        control_of_ranks=control(config.seed),
        control_of_seeds=control(seeds[0].config.seed),
    )
