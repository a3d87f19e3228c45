"""A sweep written down: a TOML file whose names are those of ``subspace train``."""

from __future__ import annotations

import sys
from dataclasses import fields
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from subspace.errors import FormatError, MissingFileError, printable
from subspace.training.config import TrainConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

_LARGEST = 1 << 20

# The command line has two words for each of these.
_ALSO = {
    "rank": "ranks", "seed": "seeds", "reference": "references", "learning_rate": "lr",
}  # fmt: skip
# What other programs call them, too far from ours to be guessed by their letters.
_ELSEWHERE = {
    "learning_rates": "lr", "output_dir": "out", "output": "out",
    "max_steps": "steps", "per_device_train_batch_size": "batch",
    "gradient_accumulation_steps": "accumulate", "r": "ranks", "target_modules": "targets",
    "lora_alpha": "alpha", "dataset": "data",
}  # fmt: skip
NOT_OF_A_SWEEP = (
    "json", "csv", "markdown", "latex", "draw", "style", "width", "dpi", "overwrite", "config",
)  # fmt: skip
"""Options of ``train`` that say what to do with a sweep, not what it is."""


def read_sweep(path: Path) -> dict[str, Any]:
    """Read a sweep's options, by the names that the command line has.

    ``max-length`` and ``max_length`` are one name, ``rank`` and ``ranks`` one option.
    ``ranks`` and ``seeds`` are numbers or lists of them, ``data`` names or files, ``targets``
    lists of module endings; ``lr`` is a number, a list, or a table by method.

    Returns
    -------
    Values by parameter: underscores, and the plural of what may be several.

    Raises
    ------
    MissingFileError
        There is no such file.
    FormatError
        It is not TOML, or has a name that is no option, or a value of another type than an option
        takes; the message has the file, the name and what is wanted.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    try:
        if path.stat().st_size > _LARGEST:
            raise FormatError(f"{path}: larger than 1 MiB, not a description of a sweep")
        written = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MissingFileError(f"no sweep file {str(path)!r}") from None
    except (OSError, ValueError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"{path}: cannot be read as TOML: {error}") from error
    options: dict[str, Any] = {}
    wanted = _wanted()
    for key, value in written.items():
        name = key.replace("-", "_")
        name = _ALSO.get(name, name)
        if name not in wanted:
            raise FormatError(f"{path}: {_no_option(key, wanted)}")
        if name in options:
            raise FormatError(f"{path}: {key!r} says again what another line says; leave out one")
        right, what = wanted[name]
        if not right(value):
            raise FormatError(f"{path}: {key} is {printable(repr(value))}; it must be {what}")
        options[name] = value
    return options


def _no_option(key: str, wanted: Iterable[str]) -> str:
    name = key.replace("-", "_")
    if name in NOT_OF_A_SWEEP:
        return f"{key!r} is no part of a sweep; give --{key.replace('_', '-')} as you run it"
    names = sorted({*wanted, *_ALSO})
    near = [_ELSEWHERE[name]] if name in _ELSEWHERE else get_close_matches(name, names, 1, 0.5)
    hint = f"did you mean {near[0]!r}? There are" if near else "there are"
    return f"no option {printable(repr(key))}; {hint} {', '.join(sorted(wanted))}"


Check = tuple["Callable[[Any], bool]", str]


def _wanted() -> dict[str, Check]:
    """Return, by name, what a value must be, as a test and in words."""
    kinds: dict[type, Check] = {
        bool: (lambda value: isinstance(value, bool), "true or false"),
        int: (_whole, "a whole number"),
        str: (_text, "a text in quotes"),
    }
    own = {
        field.name: kinds[type(field.default)]
        for field in fields(TrainConfig)
        if type(field.default) in kinds
    }
    whole_numbers = (_or_list(_whole), "a whole number, or a list of them such as [1, 8, 64]")
    texts = (_or_list(_text), "a text in quotes, or a list of them")
    for gone in ("rank", "seed", "method"):
        del own[gone]
    return own | {
        "ranks": whole_numbers,
        "seeds": whole_numbers,
        "data": texts,
        "references": texts,
        "targets": (
            _or_list(_or_list(_text)),
            'names in quotes, a list of them such as ["query", "value"], or a list of such lists',
        ),
        "lr": (_rates, "a number, a list of them, or a table such as { lora = [2e-3, 4e-3] }"),
        "alpha": (
            lambda value: _number(value) or _text(value),
            'a number, or a multiple of the rank such as "2r"',
        ),
        "out": kinds[str],
        "jobs": kinds[int],
        "checkpoint_every": kinds[int],
        "records_only": kinds[bool],
    }


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _text(value: object) -> bool:
    return isinstance(value, str)


def _or_list(right: Callable[[Any], bool]) -> Callable[[Any], bool]:
    def is_right(value: object) -> bool:
        if isinstance(value, list):
            return bool(value) and all(map(right, value))
        return right(value)

    return is_right


def _rates(value: object) -> bool:
    numbers = _or_list(_number)
    if isinstance(value, dict):
        return bool(value) and all(map(numbers, value.values()))
    return numbers(value)
