"""The next useful command, whole, so that it can be pasted: with the paths that the user gave."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING

import click

from subspace.errors import printable

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

WORDS = "subspace.words"
"""Under which a context keeps the verb and all that was typed after it."""
_READING = {
    "strict": "--strict", "rename": "--rename", "pattern": "--pattern", "alpha": "--alpha",
    "adapter_name": "--adapter-name", "peft_release": "--peft-release",
}  # fmt: skip


def quote_command(words: Iterable[object]) -> str:
    """Return words as a shell reads them back.

    >>> quote_command(["subspace", "rank", "my runs/r8", "--modules", "*.q"])
    "subspace rank 'my runs/r8' --modules '*.q'"
    """
    return printable(shlex.join(map(str, words)))


def suggest_again(*more: object) -> str:
    """Return the command that is running, as it was typed, with `more` options."""
    context = click.get_current_context()
    verb, *rest = context.meta.get(WORDS) or [context.info_name]
    if "--" in rest:  # behind which nothing is an option
        return quote_command(["subspace", verb, *more, *rest])
    return quote_command(["subspace", verb, *rest, *more])


def suggest(verb: str, paths: Iterable[Path], *more: object) -> str:
    """Return a command of another verb, that reads adapters as the running one was told to."""
    context = click.get_current_context()
    read: list[object] = []
    for name, option in _READING.items():
        value = context.meta.get(f"subspace.{name}")
        if isinstance(value, bool):
            read += [option] * value
        elif value is not None:
            for each in value if isinstance(value, (list, tuple)) else (value,):
                read += [option, each]
    words = [f"./{word}" if str(word).startswith("-") else word for word in paths]
    return quote_command(["subspace", verb, *words, *more, *read])


def suggest_report() -> str:
    """Return the command that puts the running one's adapters on one page."""
    given = click.get_current_context().params
    paths = given.get("paths") or [given["path"]]
    base = given.get("base")
    return suggest("report", paths, *([] if base is None else ["--base", base]))


def conclude(out: Path | None, *hints: str) -> None:
    """Say what was written; where nothing was, name the next useful commands to a person."""
    if out is not None:
        click.echo(f"wrote {printable(out)}", err=True)
    elif at_terminal():  # nobody reads a hint in a log
        for hint in hints:
            click.echo(f"next: {hint}", err=True)


def at_terminal() -> bool:
    """Whether a person reads both streams."""
    return sys.stdout.isatty() and sys.stderr.isatty()
