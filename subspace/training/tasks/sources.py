"""A published data set's own files: which of them is which split, and no group in two of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from subspace.errors import FormatError, MissingExtraError, MissingFileError, install
from subspace.training.tasks.dataset import SPLITS, sort_by_hash, split_groups
from subspace.training.tasks.hub import hub_records
from subspace.training.tasks.textfiles import SUFFIXES, read_records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    Records = Iterator[tuple[str, dict[str, object]]]

Item = TypeVar("Item")

# How publishers call the parts, in the order in which a file's name is searched.
_PARTS = {"train": "train", "dev": "dev", "valid": "dev", "test": "test"}
WHOLE = "whole"  # the one part of a single file


def source_records(
    task: str, source: Path | None, *, prefix: str, hub: str, revision: str | None = None
) -> dict[str, Records]:
    """Return the records of each published part: train, dev, test, or `WHOLE` for one file.

    Parameters
    ----------
    source
        A file; a folder with files whose names begin with `prefix` and hold the part's name, such
        as ``snli_dev.jsonl.gz``; or None for the data set of the name `hub` on the hub.

    Raises
    ------
    MissingFileError
        No such file, or none or two for a part in the folder.
    MissingExtraError
        There is no source, and `datasets` is not installed.
    FormatError
        A line cannot be read: raised while the records are.
    """
    if source is None:
        try:
            records = hub_records(hub, revision=revision)
        except MissingExtraError as error:
            raise MissingExtraError(
                f"the task {task!r} needs its texts: write {task}:PATH with a file or folder of "
                f"yours, or get {hub} from the Hugging Face hub, by {install('hub')}"
            ) from error
        return {_PARTS[split]: part for split, part in _sort_splits(records)}
    if source.is_dir():
        return {
            part: read_records(path) for part, path in _find_files(task, source, prefix).items()
        }
    if not source.is_file():
        raise MissingFileError(f"no file or folder {str(source)!r} for the task {task!r}")
    return {WHOLE: read_records(source)}


def _sort_splits(splits: dict[str, Records]) -> list[tuple[str, Records]]:
    names = {"train": "train", "validation": "dev", "test": "test"}
    return [(names[split], part) for split, part in splits.items() if split in names]


def _find_files(task: str, folder: Path, prefix: str) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        name = path.name.lower()
        if not name.startswith(prefix) or not name.endswith(SUFFIXES) or not path.is_file():
            continue
        part = next((part for word, part in _PARTS.items() if word in name), WHOLE)
        if part in files:
            raise MissingFileError(
                f"folder {folder.name!r} has two files for {part}, {files[part].name!r} and "
                f"{path.name!r}; name the one that you mean: {task}:PATH"
            )
        files[part] = path
    if not files:
        raise MissingFileError(
            f"folder {folder.name!r} has no file of the task {task!r}, such as "
            f"{prefix}_train.jsonl or {prefix}_dev.jsonl.gz"
        )
    return files


def place_in_splits(
    task: str, parts: dict[str, list[Item]], keys: Callable[[Item], Sequence[str]]
) -> dict[str, list[Item]]:
    """Put the published parts into our three splits; no key is in two of them.

    Three parts are taken as they are. Of train and dev, dev is halved into validation and test; of
    train (or dev) and test, a tenth of the former is validation; one part alone is split 80:10:10.
    Whole groups move, by the hash of the first key (a table, a premise). What shares any key with
    the test texts leaves validation and training, and likewise for validation and training.

    Raises
    ------
    FormatError
        A split is left without a text.
    """

    def divide(items: list[Item], held_out: int) -> dict[str, list[Item]]:
        home = split_groups(sorted({keys(item)[0] for item in items}), task, held_out)
        return {s: [item for item in items if home[keys(item)[0]] == s] for s in SPLITS}

    if len(parts) == 3:
        splits = dict(zip(SPLITS, (parts["train"], parts["dev"], parts["test"]), strict=True))
    elif set(parts) == {"train", "dev"}:
        splits = {**divide(parts["dev"], 2), "train": parts["train"]}
    elif "test" in parts and len(parts) == 2:
        (rest,) = (items for part, items in parts.items() if part != "test")
        tenth = divide(rest, 10)
        splits = {
            "train": tenth["train"] + tenth["test"],
            "validation": tenth["validation"],
            "test": parts["test"],
        }
    else:
        splits = divide([item for items in parts.values() for item in items], 10)
    taken: set[str] = set()
    for split in reversed(SPLITS):
        splits[split] = [item for item in splits[split] if taken.isdisjoint(keys(item))]
        taken.update(key for item in splits[split] for key in keys(item))
        if not splits[split]:
            raise FormatError(f"the task {task!r} is left without a text for {split}; give more")
    return {split: splits[split] for split in SPLITS}


def thin(items: Iterable[Item], text: Callable[[Item], str], most: int) -> list[Item]:
    """Return at most `most` of the items, those whose text's hash comes first.

    >>> thin(["b", "a", "c", "a"], str, 2) == thin(["c", "b", "a", "a"], str, 2)
    True
    """
    by_text: dict[str, Item] = {}
    for item in items:
        by_text.setdefault(text(item), item)
    return [by_text[t] for t in sort_by_hash(by_text, "thin")[:most]]
