"""A user's .jsonl or .csv file, packed by gzip or not. Every error names the file and the line."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from subspace.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SUFFIXES = (".jsonl", ".csv", ".jsonl.gz", ".csv.gz")
_LONGEST_LINE = 1 << 20  # characters: far above any text to classify, far below any memory
_LARGEST_UNPACKED = 1 << 30  # bytes
_UNPACKED_PER_BYTE = 200  # texts shrink to a third or a tenth; gzip can go to a thousandth
_UNPACKED_FREELY = 1 << 20


@dataclass(frozen=True)
class Columns:
    """Where a record holds what: `pair` and `completion` are "" where the task has none."""

    text: str = "text"
    label: str = "label"
    pair: str = ""
    completion: str = ""


@dataclass(frozen=True)
class Row:
    """One text with what belongs to it, and where it stands, for error messages."""

    text: str
    label: str
    where: str
    pair: str = ""
    completion: str = ""


def read_rows(path: Path, columns: Columns) -> Iterator[Row]:
    """Yield the rows of a file; a label may be a string or a whole number.

    Raises
    ------
    FormatError
        Not UTF-8, not JSON or CSV, a column that is missing, or a value of the wrong type.
    """
    for where, record in read_records(path):
        yield read_row(where, record, columns)


def read_row(where: str, record: Mapping[str, object], columns: Columns) -> Row:
    """Return what `columns` name of one record.

    Raises
    ------
    FormatError
        A column is missing, or its value is of the wrong type.
    """
    text = read_text(where, record, columns.text)
    pair = read_text(where, record, columns.pair) if columns.pair else ""
    if columns.completion:
        return Row(text, "", where, pair, read_text(where, record, columns.completion))
    label = _value(where, record, columns.label)
    if isinstance(label, bool) or not isinstance(label, (str, int)) or label == "":
        raise FormatError(f"{where}: label must be a string or a whole number, not {label!r}")
    return Row(text, str(label), where, pair)


def read_text(where: str, record: Mapping[str, object], column: str) -> str:
    """Return a text of one record, without white space around it.

    Raises
    ------
    FormatError
        The column is missing, or holds no text.
    """
    text = _value(where, record, column)
    if not isinstance(text, str) or not text.strip():
        raise FormatError(f"{where}: column {column!r} must be a text that is not empty")
    return text.strip()


def _value(where: str, record: Mapping[str, object], column: str) -> object:
    if column not in record:
        have = ", ".join(map(repr, list(record)[:6])) or "nothing"
        raise FormatError(
            f"{where}: no column {column!r} (it has {have}); --text-column, --label-column, "
            "--pair-column and --completion-column name what it has"
        )
    return record[column]


def read_records(path: Path) -> Iterator[tuple[str, dict[str, object]]]:
    """Yield each record of a .jsonl or .csv file, or of either with .gz behind, and its place.

    Raises
    ------
    FormatError
        Not UTF-8, not JSON or CSV, a damaged archive, or one that unpacks to too much.
    """
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix
    readers = {".jsonl": _read_jsonl, ".csv": _read_csv}
    if suffix not in readers:
        raise FormatError(
            f"{path.name}: cannot read {path.suffix or 'this'!r}; give .jsonl or .csv"
        )
    return readers[suffix](path)


class _Unpacked(io.RawIOBase):
    """The bytes of a .gz, up to a bound: a few kilobytes can be made to unpack to terabytes."""

    def __init__(self, path: Path) -> None:
        self._file = gzip.open(path, "rb")  # noqa: SIM115 - closed by close
        self._name = path.name
        free = path.stat().st_size * _UNPACKED_PER_BYTE + _UNPACKED_FREELY
        self._bound = self._left = min(_LARGEST_UNPACKED, free)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        block = self._file.read(len(buffer))
        self._left -= len(block)
        if self._left < 0:
            raise FormatError(
                f"{self._name}: unpacks to more than {self._bound >> 20} MiB, too much for a file "
                "of its size; unpack it yourself if you trust it"
            )
        buffer[: len(block)] = block
        return len(block)

    def close(self) -> None:
        self._file.close()
        super().close()


def _open(path: Path) -> io.TextIOBase:
    if path.suffix.lower() != ".gz":
        return path.open(encoding="utf-8-sig", newline="")
    return io.TextIOWrapper(io.BufferedReader(_Unpacked(path)), encoding="utf-8-sig", newline="")


def _lines(path: Path) -> Iterator[str]:
    number = 0
    try:
        with _open(path) as file:
            while line := file.readline(_LONGEST_LINE + 1):
                number += 1
                if len(line) > _LONGEST_LINE:
                    raise FormatError(f"{path.name}, line {number}: longer than 1 MiB")
                yield line
    except UnicodeDecodeError as error:
        raise FormatError(f"{path.name}: not UTF-8 text after line {number}") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise FormatError(f"{path.name}: damaged gzip after line {number}: {error}") from error
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
