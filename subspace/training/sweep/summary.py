"""From the records of a sweep to Table 6 (Hu et al. 2021, arXiv:2106.09685, section 7.2)."""

from __future__ import annotations

import math
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from subspace.results import NearlyEnough, SweepRow, Table6
from subspace.training.sweep.run import read_last_accuracy, writes_texts
from subspace.training.tasks.load import strip_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from subspace.training.sweep.run import SweepRun


def make_table6(runs: Iterable[SweepRun]) -> Table6:
    """Summarise the runs of a sweep.

    Parameters
    ----------
    runs
        What `run_sweep` returns: finished and failed runs, those of a search for the learning rate
        marked.

    Returns
    -------
    Table6
        A row for each data set, target set and rank, over its seeds. "Nearly enough" is the
        smallest rank whose mean test accuracy is within one standard error of the best rank's,
        the difference paired over the seeds of both; unknown where they share fewer than two.
    """
    groups: dict[tuple[Any, ...], list[SweepRun]] = {}
    writing = set()
    for run in runs:
        if writes_texts(run.record):
            writing.add(run.config.data)
        config = run.config
        lora = config.method == "lora"
        key = (config.data, config.method) + ((config.targets, config.rank) if lora else ("", None))
        groups.setdefault(key, []).append(run)
    rows = tuple(_row(key, group, key[0] in writing) for key, group in groups.items())
    sets = dict.fromkeys((r.data, r.targets) for r in rows if r.method == "lora")
    nearly = [
        find_nearly_enough(
            [r for r in rows if (r.data, r.targets) == wanted and r.method == "lora"]
        )
        for wanted in sets
    ]
    return Table6(rows, tuple(each for each in nearly if each is not None))


def _row(key: tuple[Any, ...], group: Sequence[SweepRun], writing: bool) -> SweepRow:
    data, method, targets, rank = key
    used = [c for c in group if not c.searched]
    done = sorted((c for c in used if c.record is not None), key=lambda c: c.config.seed)
    records: list[Mapping[str, Any]] = [c.record for c in done if c.record is not None]
    first = group[0].config
    tried = [c for c in group if c.config.seed == first.seed]
    return SweepRow(
        data=strip_folder(data),
        method=method,
        targets=targets if isinstance(targets, str) else "+".join(targets),
        rank=rank,
        alpha=first.lora_alpha if method == "lora" else None,
        learning_rate=(used or group)[0].config.learning_rate,
        seeds=tuple(c.config.seed for c in done),
        test=tuple(float(r["after"]["accuracy"]) for r in records),
        validation=tuple(read_last_accuracy(record, "validation") for record in records),
        train=tuple(_on_training_texts(record) for record in records),
        before=tuple(float(r["before"]["accuracy"]) for r in records),
        parameters=records[0]["trainable_parameters"] if records else None,
        searched=tuple((c.config.learning_rate, c.validation) for c in tried)
        if len(tried) > 1
        else (),
        metric="exact match" if writing else "accuracy",
        loss=tuple(float(r["after"].get("loss", math.nan)) for r in records),
        failed=tuple(f"{c.folder.name}: {c.error}" for c in group if c.record is None),
    )


def _on_training_texts(record: Mapping[str, Any]) -> float:
    # An evaluation of a completion task counts the share of tokens, which is no exact match: beside
    # the test texts' it would pass for over-fitting.
    last = (record.get("history") or [{}])[-1]
    return read_last_accuracy(record, "train") if "train_accuracy" in last else math.nan


def find_nearly_enough(rows: Sequence[SweepRow]) -> NearlyEnough | None:
    """Apply the rule to one target set's rows; None without a run.

    >>> def row(rank, *test):
    ...     fields = dict(data="d", method="lora", targets="q", alpha=16.0, learning_rate=1e-3)
    ...     none = dict(validation=(), train=(), before=(), parameters=None)
    ...     seeds = tuple(range(len(test)))
    ...     return SweepRow(rank=rank, seeds=seeds, test=test, **fields, **none)
    >>> found = find_nearly_enough([row(1, 0.70, 0.69, 0.73), row(8, 0.71, 0.72, 0.72)])
    >>> found.rank, found.best
    (1, 8)
    """
    by_rank = {row.rank: row for row in rows if row.test and row.rank is not None}
    if not by_rank:
        return None
    best = max(by_rank, key=lambda rank: (by_rank[rank].mean, -rank))
    top = dict(zip(by_rank[best].seeds, by_rank[best].test, strict=True))
    for rank in sorted(by_rank):
        if rank == best:
            sure = best if len(top) > 1 else None
            return NearlyEnough(
                data=rows[0].data,
                targets=rows[0].targets,
                rank=sure,
                best=best,
                behind=0.0,
                error=0.0,
            )
        here = dict(zip(by_rank[rank].seeds, by_rank[rank].test, strict=True))
        behind = [top[seed] - here[seed] for seed in top if seed in here]
        if len(behind) < 2:  # nothing is known of a rank that is smaller: so of none
            return NearlyEnough(
                data=rows[0].data,
                targets=rows[0].targets,
                rank=None,
                best=best,
                behind=math.nan,
                error=math.nan,
            )
        error = stdev(behind) / math.sqrt(len(behind))
        if mean(behind) <= error:
            return NearlyEnough(
                data=rows[0].data,
                targets=rows[0].targets,
                rank=rank,
                best=best,
                behind=mean(behind),
                error=error,
            )
    return None
