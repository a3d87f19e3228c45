"""A grid of runs: data sets x target sets x ranks x seeds, and where each run lies."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subspace.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from subspace.training.config import TrainConfig

Targets = tuple[str, ...] | str


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A grid of runs.

    Attributes
    ----------
    options
        What all runs share; its data, targets, rank, seed, method and learning rate are replaced.
    data, targets, ranks, seeds
        The axes. Of the methods in `references` targets and ranks mean nothing.
    references
        ``"full"`` and ``"head"``, to stand beside.
    rates
        Learning rates by method. Where there are several, each (data, target set, rank) is trained
        at all of them with the first seed, and goes on with the one best on validation texts.
    """

    options: TrainConfig
    data: tuple[str, ...]
    targets: tuple[Targets, ...]
    ranks: tuple[int, ...]
    seeds: tuple[int, ...]
    references: tuple[str, ...] = ()
    rates: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("data", "targets", "ranks", "seeds"):
            if not getattr(self, name):
                raise ArgumentError(f"a sweep wants at least one of {name}")

    @property
    def runs(self) -> int:
        """How many runs it has, a search for the learning rate included."""
        groups = self.groups()
        return sum(map(len, groups)) + len(groups) * (len(self.seeds) - 1)

    def groups(self) -> list[list[TrainConfig]]:
        """Return the runs of the first seed that differ in their learning rate alone, by group."""
        rows: list[dict[str, Any]] = [
            {"data": data, "targets": targets, "rank": rank}
            for data in self.data
            for targets in self.targets
            for rank in self.ranks
        ]
        rows += [
            {"data": data, "method": method} for data in self.data for method in self.references
        ]
        groups = []
        for row in rows:
            rates = self.rates.get(row.get("method", "lora")) or (self.options.learning_rate,)
            groups.append(
                [
                    replace(self.options, seed=self.seeds[0], learning_rate=rate, **row)
                    for rate in rates
                ]
            )
        return groups

    def place(self, config: TrainConfig) -> Path:
        """Return a run's folder within the sweep's.

        One level for the data and one for the targets wherever the sweep has several of either, so
        that a row that is added later moves nothing that is there.

        >>> from subspace.training import TrainConfig
        >>> run = TrainConfig(targets=("query",))
        >>> axes = {"data": ("icd10",), "ranks": (8,), "seeds": (0,)}
        >>> str(Sweep(options=run, targets=(("query",),), **axes).place(run))
        'r8-seed0'
        >>> Sweep(options=run, targets=(("query",), ("value",)), **axes).place(run).as_posix()
        'icd10/query/r8-seed0'
        """
        parts = []
        if len(self.data) > 1 or len(self.targets) > 1:
            parts = [_word(config.data)]
            parts += [name_targets(config.targets)] if config.method == "lora" else []
        several = len(self.rates.get(config.method, ())) > 1
        return Path(*parts, config.run_name + (f"-lr{config.learning_rate:g}" if several else ""))


def name_targets(targets: Targets) -> str:
    """Name a target set in a path.

    >>> name_targets(("query", "attention.output.dense")), name_targets("all-linear")
    ('query+attention.output.dense', 'all-linear')
    """
    return _safe(targets if isinstance(targets, str) else "+".join(targets))


def _word(data: str) -> str:
    path = Path(data)
    return _safe(path.name if path.exists() else data)


def _safe(text: str) -> str:
    """Keep what is harmless in a file's name on every platform."""
    kept = "".join(c if c.isalnum() or c in "+-._" else "-" for c in text).strip(".-")
    return kept[:80] or "x"
