"""What a shell completes beyond verbs, options and choices: files, bundled names, ``--option=``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click.shell_completion import BashComplete, CompletionItem, add_completion_class

if TYPE_CHECKING:
    from collections.abc import Callable


class _NameOrFile(click.types.StringParamType):
    """A text that is a file or a folder, or one of a few names."""

    def __init__(self, names: Callable[[], tuple[str, ...]]) -> None:
        self._names = names

    def shell_complete(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        param: click.Parameter,  # noqa: ARG002
        incomplete: str,
    ) -> list[CompletionItem]:
        """Return the names that begin so; where none does, the shell completes files."""
        names = [name for name in self._names() if incomplete and name.startswith(incomplete)]
        return [CompletionItem(name) for name in names] or [CompletionItem(incomplete, type="file")]


def _tasks() -> tuple[str, ...]:
    from subspace.training.tasks.load import TASKS

    return tuple(TASKS)


_TYPES = {
    "base": _NameOrFile(lambda: ("minilm",)),
    "model": _NameOrFile(lambda: ("minilm",)),
    "data": _NameOrFile(_tasks),
    "pattern": _NameOrFile(tuple),
}


def teach(command: click.Command) -> None:
    """Let options that are read as text be completed as what they name."""
    for parameter in command.params:
        if parameter.name in _TYPES and isinstance(parameter.type, click.types.StringParamType):
            parameter.type = _TYPES[parameter.name]


class _Bash(BashComplete):
    """Bash's words, in which ``--side=in`` is three."""

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the words before the last, and the last, each option with its value whole."""
        words, incomplete = super().get_completion_args()
        if words[-1:] == ["="]:
            words = words[:-1]  # as if a space stood there
        whole: list[str] = []
        for word in words:
            if whole and (word == "=" or whole[-1].endswith("=")) and whole[-1].startswith("--"):
                whole[-1] += word
            else:
                whole.append(word)
        return whole, incomplete


add_completion_class(_Bash)
