"""Tasks: bundled ones by name, a user's own from files or from the Hugging Face hub.

Adding a task is one file with a function from its source (a file or folder that the user named
after the task's name and a colon, or None) to a `Dataset`, and one line in `TASKS`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from subspace.errors import ArgumentError, FormatError, MissingFileError
from subspace.training.tasks.dataset import (
    SPLITS,
    Dataset,
    build_completion,
    build_labelled,
    build_paired,
    sort_by_hash,
)
from subspace.training.tasks.hub import hub_records, is_hub_name
from subspace.training.tasks.icd10 import icd10
from subspace.training.tasks.icd10_pairs import icd10_pairs
from subspace.training.tasks.snli import snli
from subspace.training.tasks.textfiles import SUFFIXES, Columns, read_records, read_row, read_rows
from subspace.training.tasks.wikisql import wikisql_agg, wikisql_sql

if TYPE_CHECKING:
    from collections.abc import Callable

    from subspace.training.tasks.textfiles import Row

TASKS: dict[str, Callable[[Path | None], Dataset]] = {
    "icd10": icd10,
    "icd10-pairs": icd10_pairs,
    "wikisql-agg": wikisql_agg,
    "wikisql-sql": wikisql_sql,
    "snli": snli,
}
"""Every bundled task, by the name that ``--data`` takes."""


def load_data(
    data: str,
    *,
    text_column: str = "text",
    label_column: str = "label",
    pair_column: str = "",
    completion_column: str = "",
) -> Dataset:
    """Return the bundled task of that name, or read a file, a folder or a data set of the hub.

    ``TASK`` or ``TASK:PATH`` is a bundled task; the columns are its own. A .jsonl file has one
    object a line, a .csv file a header line; either may be packed (.gz). With `pair_column` the
    task is about two texts; with `completion_column` it is to continue `text_column`, and there
    are no labels. One file is split 80:10:10 by the first text's hash within each label, all
    copies of that text into the same part; a folder holds ``train``, ``validation`` and ``test``
    files and is taken as it is. So is ``OWNER/NAME`` or ``OWNER/NAME:SUBSET`` on the Hugging Face
    hub; a split that it lacks is taken out of the training texts as of one file's.

    Raises
    ------
    ArgumentError
        Both a pair and a completion, or a file for a task that takes none.
    MissingFileError
        Neither a task nor a file.
    FormatError
        A line cannot be read (file and line are named), or there is too little to learn from.
    MissingExtraError
        The task's package, or `datasets`, is not installed.
    """
    path = Path(data)
    task, colon, source = data.partition(":")
    if task in TASKS and not path.is_file():
        return TASKS[task](Path(source) if colon else None)
    if pair_column and completion_column:
        raise ArgumentError("a pair column and a completion column: a task has one or the other")
    columns = Columns(text_column, label_column, pair_column, completion_column)
    if path.is_dir():
        columns = _as_prompts(_split_file(path, "train"), columns)
        rows = {s: list(read_rows(_split_file(path, s), columns)) for s in SPLITS}
    elif path.is_file():
        columns = _as_prompts(path, columns)
        rows = _split_rows(list(read_rows(path, columns)))
    elif is_hub_name(data) and not data.endswith(SUFFIXES):
        rows = _hub_rows(data, columns)
    else:
        names = ", ".join(TASKS)
        raise MissingFileError(
            f"no file or folder {data!r}, and no bundled task (there is {names})"
        )
    return _dataset(path.name, rows, columns)


def strip_folder(data: str) -> str:
    """Return `data` as a record may keep it: without any folder of this machine.

    >>> strip_folder("icd10"), strip_folder("snli:/home/me/snli_dev.jsonl.gz")
    ('icd10', 'snli:snli_dev.jsonl.gz')
    """
    task, colon, source = data.partition(":")
    if task in TASKS and colon and not Path(data).exists():
        return f"{task}:{Path(source).name}"
    return Path(data).name if Path(data).exists() else data


def _dataset(name: str, rows: dict[str, list[Row]], columns: Columns) -> Dataset:
    labels = sorted({row.label for row in rows["train"]})
    for split in SPLITS:
        if not rows[split]:
            each = "" if columns.completion else " a label"
            raise FormatError(f"{name}: no text for {split}; give at least 3 texts{each}")
        for row in rows[split]:
            if row.label not in labels:
                raise FormatError(f"{row.where}: label {row.label!r} is never seen in training")
    if columns.completion:
        return build_completion(
            name, {s: [(r.text, r.completion) for r in rows[s]] for s in SPLITS}
        )
    if len(labels) < 2:
        raise FormatError(f"{name}: only the label {labels[0]!r}; there must be two or more")
    index = {label: k for k, label in enumerate(labels)}
    if columns.pair:
        pairs = {s: [(r.text, r.pair, index[r.label]) for r in rows[s]] for s in SPLITS}
        return build_paired(name, labels, pairs)
    return build_labelled(
        name, labels, {s: [(r.text, index[r.label]) for r in rows[s]] for s in SPLITS}
    )


def _as_prompts(path: Path, columns: Columns) -> Columns:
    """Take a file of prompts and completions for one, where no column was asked for."""
    if columns != Columns():
        return columns
    _, first = next(iter(read_records(path)), ("", {}))
    prompts = {"prompt", "completion"} <= first.keys() and columns.text not in first
    return Columns(text="prompt", completion="completion") if prompts else columns


def _split_file(folder: Path, split: str) -> Path:
    files = [folder / (split + s) for s in SUFFIXES if (folder / (split + s)).is_file()]
    if len(files) != 1:
        names = " or ".join(split + s for s in SUFFIXES)
        raise MissingFileError(f"folder {folder.name!r} must hold exactly one of {names}")
    return files[0]


def _hub_rows(data: str, columns: Columns) -> dict[str, list[Row]]:
    records = hub_records(data)
    rows = {s: [read_row(w, r, columns) for w, r in records.get(s, ())] for s in SPLITS}
    missing = [split for split in ("validation", "test") if not rows[split]]
    if missing:
        parts = _split_rows(rows["train"])
        rows |= {split: parts.pop(split) for split in missing}
        rows["train"] = [row for part in parts.values() for row in part]
    return rows


def _split_rows(rows: list[Row]) -> dict[str, list[Row]]:
    strata: dict[str, dict[str, list[Row]]] = {}  # label of a text's first copy -> text -> copies
    stratum_of: dict[str, str] = {}
    for row in rows:
        label = stratum_of.setdefault(row.text, row.label)
        strata.setdefault(label, {}).setdefault(row.text, []).append(row)
    parts: dict[str, list[Row]] = {split: [] for split in SPLITS}
    for label in sorted(strata):
        texts = sort_by_hash(strata[label], "split")
        held_out = max(1, round(len(texts) / 10)) if len(texts) >= 3 else 0
        for k, text in enumerate(texts):
            part = "test" if k < held_out else "validation" if k < 2 * held_out else "train"
            parts[part].extend(strata[label][text])
    return parts
