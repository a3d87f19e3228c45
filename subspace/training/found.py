"""Runs that are there already, read from their folders."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from subspace.errors import ArgumentError, FormatError, MissingFileError, SubspaceError
from subspace.training.config import TrainConfig, with_defaults
from subspace.training.folder import RECORD, read_record
from subspace.training.grid import target_word
from subspace.training.sweep import Cell

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

_AXES = {"data", "targets", "rank", "seed", "method", "learning_rate", "shuffle_labels", "alpha"}
_LORA_ONLY = {"rslora"}


def find_runs(folders: Iterable[Path]) -> list[Cell]:
    """Read finished runs as the cells of one sweep.

    Parameters
    ----------
    folders
        Each the folder of a run, or one that holds such folders at any depth.

    Returns
    -------
    One cell a run, by data, method, target set, rank, labels and seed. Where one configuration
    was trained at several learning rates with one seed, all but the best on validation texts are
    marked as searched.

    Raises
    ------
    MissingFileError
        A folder holds no run.
    FormatError
        A record is damaged.
    ArgumentError
        Runs on one data set differ in what a sweep holds fixed, such as the number of steps.
    """
    cells: dict[Path, Cell] = {}
    for folder in folders:
        found = _within(folder)
        if not found:
            raise MissingFileError(f"{folder}: no run in it, that is no folder with {RECORD}")
        cells |= {place.resolve(): _cell(place) for place in found}
    _refuse_mixed(list(cells.values()))
    return _searched(sorted(cells.values(), key=_order))


def _within(folder: Path) -> list[Path]:
    if (folder / RECORD).is_file():
        return [folder]
    return sorted(
        path.parent
        for path in folder.rglob(RECORD)
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def _cell(folder: Path) -> Cell:
    record = read_record(folder)
    try:
        options = with_defaults(record["options"])
        if isinstance(options["targets"], list):
            options["targets"] = tuple(str(target) for target in options["targets"])
        config = TrainConfig(**options)
        for when in ("before", "after"):
            float(record[when]["accuracy"])
        _ = record["trainable_parameters"], record["model"]["name"], record["data"]["name"]
    except SubspaceError as error:
        raise FormatError(f"{folder / RECORD}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FormatError(
            f"{folder / RECORD}: not the record of a run ({type(error).__name__}: {error})"
        ) from error
    return Cell(folder, config, record, reused=True)


def _order(cell: Cell) -> tuple[Any, ...]:
    config = cell.config
    words = target_word(config.targets)
    return (
        config.data, ("lora", "head", "full").index(config.method), words.count("+"), words,
        config.rank, config.shuffle_labels, config.seed, config.learning_rate,
    )  # fmt: skip


def _refuse_mixed(cells: Sequence[Cell]) -> None:
    """Refuse runs that no row of a table could hold side by side."""
    firsts: dict[str, Cell] = {}
    for cell in cells:
        first = firsts.setdefault(cell.config.data, cell)
        names = set(first.config.to_options()) - _AXES
        if "lora" not in (first.config.method, cell.config.method):
            names -= _LORA_ONLY
        for name in sorted(names):
            a, b = getattr(first.config, name), getattr(cell.config, name)
            if a != b:
                raise ArgumentError(
                    f"{cell.folder} was trained with {name} {b!r}, {first.folder} with {a!r}; "
                    "give the runs of one sweep"
                )


def _searched(cells: Sequence[Cell]) -> list[Cell]:
    groups: dict[tuple[Any, ...], list[Cell]] = {}
    for cell in cells:
        groups.setdefault(_order(cell)[:-2], []).append(cell)
    out = []
    for group in groups.values():
        rates: dict[int, list[Cell]] = {}
        for cell in group:
            rates.setdefault(cell.config.seed, []).append(cell)
        tried = next((found for found in rates.values() if len(found) > 1), None)
        best = None if tried is None else max(tried, key=_rank_of_search).config.learning_rate
        out += [
            replace(cell, searched=best not in (None, cell.config.learning_rate)) for cell in group
        ]
    return out


def _rank_of_search(cell: Cell) -> tuple[float, float]:
    accuracy = cell.validation
    return (accuracy if accuracy == accuracy else -1.0, -cell.config.learning_rate)
