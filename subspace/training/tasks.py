"""A task: labelled texts in three splits. Bundled ones by name, a user's own from files.

Adding a task is one file with a function that returns a `Dataset`, and one line in `TASKS`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from subspace.errors import FormatError, MissingFileError
from subspace.training.icd10 import icd10_texts
from subspace.training.textfiles import SUFFIXES, read_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from subspace.training.textfiles import Row

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Split:
    """Texts and, for each, the index of its label."""

    texts: tuple[str, ...]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class Dataset:
    """A classification task; `labels` are the classes' names, by index."""

    name: str
    labels: tuple[str, ...]
    train: Split
    validation: Split
    test: Split

    @property
    def digest(self) -> str:
        """SHA-256 over every text and label, in order: the same digest is the same task."""
        splits = [[s.texts, s.labels] for s in (self.train, self.validation, self.test)]
        return sha256(json.dumps([self.labels, splits]).encode()).hexdigest()


def in_hash_order(items: Iterable[str], salt: str) -> list[str]:
    """Return `items` in an arbitrary order that no library or Python version changes."""
    return sorted(items, key=lambda item: sha256(f"{salt}\n{item}".encode()).digest())


def icd10() -> Dataset:
    """Sort a diagnosis text into its ICD-10-CM chapter (21 classes)."""
    labels, splits = icd10_texts()
    return _dataset("icd10", labels, splits)


TASKS: dict[str, Callable[[], Dataset]] = {"icd10": icd10}


def load_data(data: str, *, text_column: str = "text", label_column: str = "label") -> Dataset:
    """Return the bundled task of that name, or read a file or folder of labelled texts.

    A .jsonl file has one object a line, a .csv file a header line. One file is split 80:10:10 by
    the text's hash within each label, all copies of a text into the same part; a folder holds
    ``train``, ``validation`` and ``test`` files and is taken as it is.

    Raises
    ------
    MissingFileError
        Neither a task nor a file.
    FormatError
        A line cannot be read (file and line are named), or there is too little to learn from.
    MissingExtraError
        The task's package is not installed.
    """
    path = Path(data)
    if data in TASKS and not path.is_file():
        return TASKS[data]()
    if path.is_dir():
        rows = {s: list(read_rows(_split_file(path, s), text_column, label_column)) for s in SPLITS}
    elif path.is_file():
        rows = _split_rows(list(read_rows(path, text_column, label_column)))
    else:
        known = ", ".join(TASKS)
        raise MissingFileError(
            f"no file or folder {data!r}, and no bundled task (there is {known})"
        )
    labels = sorted({row.label for row in rows["train"]})
    for split in SPLITS:
        if not rows[split]:
            raise FormatError(f"{path.name}: no text for {split}; give at least 3 texts a label")
        for row in rows[split]:
            if row.label not in labels:
                raise FormatError(f"{row.where}: label {row.label!r} is never seen in training")
    if len(labels) < 2:
        raise FormatError(f"{path.name}: only the label {labels[0]!r}; there must be two or more")
    pairs = {s: [(row.text, labels.index(row.label)) for row in rows[s]] for s in SPLITS}
    return _dataset(path.name, tuple(labels), pairs)


def _dataset(
    name: str, labels: tuple[str, ...], pairs: dict[str, list[tuple[str, int]]]
) -> Dataset:
    def split(part: str) -> Split:
        return Split(tuple(t for t, _ in pairs[part]), tuple(k for _, k in pairs[part]))

    return Dataset(name, labels, split("train"), split("validation"), split("test"))


def _split_file(folder: Path, split: str) -> Path:
    found = [folder / (split + s) for s in SUFFIXES if (folder / (split + s)).is_file()]
    if len(found) != 1:
        names = " or ".join(split + s for s in SUFFIXES)
        raise MissingFileError(f"folder {folder.name!r} must hold exactly one of {names}")
    return found[0]


def _split_rows(rows: list[Row]) -> dict[str, list[Row]]:
    strata: dict[str, dict[str, list[Row]]] = {}  # label of a text's first copy -> text -> copies
    stratum_of: dict[str, str] = {}
    for row in rows:
        label = stratum_of.setdefault(row.text, row.label)
        strata.setdefault(label, {}).setdefault(row.text, []).append(row)
    parts: dict[str, list[Row]] = {split: [] for split in SPLITS}
    for label in sorted(strata):
        texts = in_hash_order(strata[label], "split")
        held = max(1, round(len(texts) / 10)) if len(texts) >= 3 else 0
        for k, text in enumerate(texts):
            part = "test" if k < held else "validation" if k < 2 * held else "train"
            parts[part].extend(strata[label][text])
    return parts
