"""Runs that are there already, read from their folders."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from subspace.errors import ArgumentError, FormatError, MissingFileError, SubspaceError
from subspace.training.config import TrainConfig, with_defaults
from subspace.training.folder import FILES, RECORD, read_record
from subspace.training.sweep.grid import name_targets
from subspace.training.sweep.run import SweepRun, read_last_accuracy, search_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

# What may differ on one data set: alpha between ranks, the learning rate in a search for it.
_AXES = {"data", "targets", "rank", "seed", "method", "learning_rate", "shuffle_labels", "alpha"}


def find_runs(folders: Iterable[Path]) -> list[SweepRun]:
    """Read finished runs as the cells of one sweep.

    Parameters
    ----------
    folders
        Each the folder of a run, or one that holds such folders at any depth.

    Returns
    -------
    One cell a run, by data, method, target set, rank, labels and seed; of a run and its copies
    the one that has weights. Where one configuration was trained at several learning rates with
    one seed, all but the best on validation texts are marked as searched.

    Raises
    ------
    MissingFileError
        A folder holds no run.
    FormatError
        A record is damaged.
    ArgumentError
        Runs differ in what a sweep holds fixed, such as the number of steps, or two of them are of
        one configuration.
    """
    cells: dict[Path, SweepRun] = {}
    for folder in folders:
        within = _read_cells(folder)
        if not within:
            raise MissingFileError(f"{folder}: no run in it, that is no folder with {RECORD}")
        cells |= {place.resolve(): _cell(place) for place in within}
    runs = _once(cells.values())
    refuse_mixed(runs)
    return _read_searches(sorted(runs, key=_order))


def _read_cells(folder: Path) -> list[Path]:
    if (folder / RECORD).is_file():
        return [folder]
    return sorted(
        path.parent
        for path in folder.rglob(RECORD)
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def _cell(folder: Path) -> SweepRun:
    record = read_record(folder)
    try:
        options = with_defaults(record["options"])
        if isinstance(options["targets"], list):
            options["targets"] = tuple(str(target) for target in options["targets"])
        for field in fields(TrainConfig):
            if type(field.default) in (bool, str):
                _ = _as(type(field.default), options[field.name], field.name)
        config = TrainConfig(**options)
        for when in ("before", "after"):
            if not 0 <= float(record[when]["accuracy"]) <= 1:
                raise ValueError(f"accuracy {record[when]['accuracy']!r}")
        _ = [read_last_accuracy(record, split) for split in ("train", "validation")]
        _ = record["trainable_parameters"]
        _ = [_as(str, record[part]["name"], f"{part} name") for part in ("model", "data")]
    except SubspaceError as error:
        raise FormatError(f"{folder / RECORD}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FormatError(
            f"{folder / RECORD}: not the record of a run ({type(error).__name__}: {error})"
        ) from error
    return SweepRun(folder=folder, config=config, record=record, reused=True)


def _as(kind: type, value: object, name: str) -> object:
    if not isinstance(value, kind):
        raise TypeError(f"{name} is {value!r}")
    return value


def _order(cell: SweepRun) -> tuple[Any, ...]:
    config = cell.config
    words = name_targets(config.targets)
    return (
        config.data, ("lora", "head", "full").index(config.method), words.count("+"), words,
        config.rank, config.shuffle_labels, config.seed, config.learning_rate,
    )  # fmt: skip


def _once(cells: Iterable[SweepRun]) -> list[SweepRun]:
    """Take a run once: the gallery that was made of it holds a copy."""
    runs: dict[TrainConfig, SweepRun] = {}
    for cell in cells:
        other = runs.setdefault(cell.config, cell)
        if other.record != cell.record:
            raise ArgumentError(
                f"{cell.folder} and {other.folder} are two runs of one configuration, "
                f"{cell.config.run_name}; give one of them"
            )
        if not has_weights(other) and has_weights(cell):
            runs[cell.config] = cell
    return list(runs.values())


def has_weights(cell: SweepRun) -> bool:
    """Whether all of a finished run is there, not its record alone."""
    return all((cell.folder / name).is_file() for name in FILES[cell.config.method])


def refuse_mixed(cells: Sequence[SweepRun]) -> None:
    """Refuse runs, trained or planned, that no row of a table could hold side by side.

    Raises
    ------
    ArgumentError
        They differ in what a sweep holds fixed.
    """
    firsts: dict[tuple[Any, ...], SweepRun] = {}
    for cell in cells:
        for scope, value in _read_fixed(cell):
            first = firsts.setdefault(scope, cell)
            other = dict(_read_fixed(first))[scope]
            if value != other:
                raise _differ(scope[0], cell, value, first, other)


def _read_fixed(cell: SweepRun) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield what must be the same, each as its name and the runs that it holds for."""
    config, record = cell.config, cell.record or {}
    yield ("model",), config.model
    yield ("model sha256",), record.get("model", {}).get("sha256")
    yield ("data sha256", config.data), record.get("data", {}).get("sha256")
    for name in sorted(set(config.to_options()) - _AXES - {"model", "rslora"}):
        yield (name, config.data), getattr(config, name)
    if config.method == "lora":
        yield ("rslora", config.data), config.rslora
        yield ("alpha", config.data, config.targets, config.rank), config.lora_alpha


def _differ(name: str, a: SweepRun, value: object, b: SweepRun, other: object) -> ArgumentError:
    return ArgumentError(
        f"{a.folder} was trained with {name} {value!r}, {b.folder} with {other!r}; give the runs "
        "of one sweep"
    )


def _read_searches(cells: Sequence[SweepRun]) -> list[SweepRun]:
    groups: dict[tuple[Any, ...], list[SweepRun]] = {}
    for cell in cells:
        groups.setdefault(_order(cell)[:-2], []).append(cell)
    out = []
    for group in groups.values():
        rates: dict[int, list[SweepRun]] = {}
        for cell in group:
            rates.setdefault(cell.config.seed, []).append(cell)
        tried = next((runs for runs in rates.values() if len(runs) > 1), None)
        best = max(tried or group[:1], key=search_key).config.learning_rate
        marked = [replace(cell, searched=cell.config.learning_rate != best) for cell in group]
        other = next((cell for cell in marked if cell.searched), None)
        if other is not None and tried is None:
            rate = other.config.learning_rate
            raise _differ("learning_rate", other, rate, group[0], best)
        out += marked
    return out
