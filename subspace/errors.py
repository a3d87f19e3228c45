"""What a user can do wrong, in a user's words.

Every error of this package is a :class:`SubspaceError` and also the builtin that a caller
would expect (``ValueError``, ``KeyError``, …). The message is one printable line: names in it
come from strangers' files, so control characters are escaped before a terminal sees them.
"""

from __future__ import annotations

_LONGEST = 2000


def printable(text: object) -> str:
    r"""Return `text` on one line, control characters escaped, cut at 2000 characters.

    >>> printable("red \x1b[31m alert\n")
    'red \\x1b[31m alert\\x0a'
    """
    line = "".join(
        c if c.isprintable() else f"\\x{ord(c):02x}" if ord(c) < 256 else f"\\u{ord(c):04x}"
        for c in str(text)[: _LONGEST + 1]
    )
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"


def shorten(text: str, most: int) -> str:
    """Cut `text` to `most` characters by leaving out its middle, where names differ least.

    >>> shorten("runs/2024-05-01/llama-q_proj-r64", 15)
    'runs/20…roj-r64'
    """
    if len(text) <= most:
        return text
    head = max(1, (most - 1) // 2)
    tail = max(0, most - 1 - head)
    return f"{text[:head]}…{text[len(text) - tail :]}"


def install(extra: str) -> str:
    """Say how an extra is installed, from a clone of the repository and from a package index.

    >>> install("demo")
    "pip install '.[demo]' in a clone, else pip install 'lora-subspace[demo]'"
    """
    return f"pip install '.[{extra}]' in a clone, else pip install 'lora-subspace[{extra}]'"


class SubspaceError(Exception):
    """Base of all errors of this package. ``exit_code`` is what the command line returns."""

    exit_code = 2

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))

    def __str__(self) -> str:
        # KeyError would show the repr of its argument.
        return str(self.args[0])


class FormatError(SubspaceError, ValueError):
    """A file is damaged, hostile, or in a format that is not read."""


class MissingFileError(SubspaceError, FileNotFoundError):
    """A file or folder that was named is not there."""


class ArgumentError(SubspaceError, ValueError):
    """An option or argument has a value that makes no sense."""


class ShapeError(SubspaceError, ValueError):
    """Two things that were to be compared have different dimensions."""


class NonFiniteError(SubspaceError, ValueError):
    """A tensor holds NaN or infinity."""


class UnknownModuleError(SubspaceError, KeyError):
    """A module that was asked for is in no adapter, or two adapters share none."""


class MissingExtraError(SubspaceError, ImportError):
    """An optional dependency is needed; the message says which extra installs it."""


class AnalysisError(SubspaceError, RuntimeError):
    """The input was sound and the computation still failed."""

    exit_code = 1
