"""Labelled texts from a user's .jsonl or .csv file. Every error names the file and the line."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from subspace.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SUFFIXES = (".jsonl", ".csv")
_LONGEST_LINE = 1 << 20  # characters: far above any text to classify, far below any memory


@dataclass(frozen=True)
class Row:
    """One labelled text, and where it stands, for error messages."""

    text: str
    label: str
    where: str


def read_rows(path: Path, text_column: str, label_column: str) -> Iterator[Row]:
    """Yield the rows of a file; a label may be a string or a whole number.

    Raises
    ------
    FormatError
        Not UTF-8, not JSON or CSV, a column that is missing, or a value of the wrong type.
    """
    readers = {".jsonl": _read_jsonl, ".csv": _read_csv}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise FormatError(
            f"{path.name}: cannot read {path.suffix or 'this'!r}; give .jsonl or .csv"
        )
    for where, record in reader(path):
        values = []
        for column in (text_column, label_column):
            if column not in record:
                have = ", ".join(map(repr, list(record)[:6])) or "nothing"
                raise FormatError(f"{where}: no column {column!r} (it has {have})")
            values.append(record[column])
        text, label = values
        if not isinstance(text, str) or not text.strip():
            raise FormatError(f"{where}: column {text_column!r} must be a text that is not empty")
        if isinstance(label, bool) or not isinstance(label, (str, int)) or label == "":
            raise FormatError(f"{where}: label must be a string or a whole number, not {label!r}")
        yield Row(text.strip(), str(label), where)


def _lines(path: Path) -> Iterator[str]:
    number = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            while line := file.readline(_LONGEST_LINE + 1):
                number += 1
                if len(line) > _LONGEST_LINE:
                    raise FormatError(f"{path.name}, line {number}: longer than 1 MiB")
                yield line
    except UnicodeDecodeError as error:
        raise FormatError(f"{path.name}: not UTF-8 text after line {number}") from error
    except OSError as error:
        raise FormatError(f"{path.name}: cannot be read: {error.strerror}") from error


def _read_jsonl(path: Path) -> Iterator[tuple[str, dict[str, object]]]:
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        where = f"{path.name}, line {number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise FormatError(f"{where}: not a JSON object: {error}") from error
        if not isinstance(record, dict):
            raise FormatError(f"{where}: a {type(record).__name__}, where an object is expected")
        yield where, record


def _read_csv(path: Path) -> Iterator[tuple[str, dict[str, object]]]:
    reader = csv.reader(_lines(path), strict=True)
    try:
        header = next(reader, None)
        if header is None:
            raise FormatError(f"{path.name}: empty; the first line must name the columns")
        for row in reader:
            if not row:
                continue
            where = f"{path.name}, line {reader.line_num}"
            if len(row) != len(header):
                raise FormatError(f"{where}: {len(row)} fields, where the header has {len(header)}")
            yield where, dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise FormatError(f"{path.name}, line {reader.line_num}: {error}") from error
