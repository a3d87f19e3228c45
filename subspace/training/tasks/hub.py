"""A data set by its name on the Hugging Face hub, through the package `datasets` if it is there."""

from __future__ import annotations

import re
from importlib import import_module
from typing import TYPE_CHECKING, Any

from subspace.errors import ArgumentError, FormatError, MissingExtraError, install

if TYPE_CHECKING:
    from collections.abc import Iterator

    Records = Iterator[tuple[str, dict[str, object]]]

_NAME = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")


def is_hub_name(data: str) -> bool:
    """Tell whether `data` could be a name on the hub: OWNER/NAME, or OWNER/NAME:SUBSET.

    >>> is_hub_name("stanfordnlp/snli"), is_hub_name("nyu-mll/glue:mrpc"), is_hub_name("./x/y")
    (True, True, False)
    """
    owner, _, name = data.partition("/")
    return bool(_NAME.fullmatch(data)) and not owner.startswith(".") and not name.startswith(".")


def hub_records(data: str, *, revision: str | None = None) -> dict[str, Records]:
    """Return the records of every split, read as they are asked for, each with its place.

    A column of classes gives their names; a record without a class (-1 there) is left out.

    Raises
    ------
    MissingExtraError
        `datasets` is not installed.
    ArgumentError
        `datasets` is older than 4, which runs code out of the data set's repository.
    FormatError
        It cannot be loaded.
    """
    try:
        datasets: Any = import_module("datasets")
    except ImportError as error:
        raise MissingExtraError(
            f"{data!r} is no file or folder here, and as a name on the Hugging Face hub it needs "
            f"the package datasets: {install('hub')}; or give a .jsonl or .csv file"
        ) from error
    if int(str(datasets.__version__).split(".")[0]) < 4:
        raise ArgumentError(
            f"datasets is {datasets.__version__}, which runs code that a data set brings along: "
            f"{install('hub')}"
        )
    name, _, subset = data.partition(":")
    try:
        splits = datasets.load_dataset(name, subset or None, revision=revision)
        parts = dict(splits.items())
    except Exception as error:  # of any kind: datasets, the hub's client and pyarrow raise theirs
        reason = (str(error).strip().splitlines() or [""])[0]
        raise FormatError(
            f"cannot load data set {data!r} from the Hugging Face hub: "
            f"{type(error).__name__}: {reason[:300]}"
        ) from error
    return {split: _records(f"{data}, {split}", part) for split, part in parts.items()}


def _records(where: str, part: Any) -> Records:  # noqa: ANN401 - datasets' own
    features = part.features.items()
    classes: dict[str, list[str]] = {c: f.names for c, f in features if hasattr(f, "names")}
    for number, record in enumerate(part, 1):
        if all(isinstance(record[c], int) and record[c] >= 0 for c in classes):
            named = {c: names[record[c]] for c, names in classes.items()}
            yield f"{where}, row {number}", {**record, **named}
