"""Options that several verbs share."""

from __future__ import annotations

import shlex
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from subspace.errors import ArgumentError, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence

MODULE = click.option(
    "--modules", "--module", "modules", metavar="GLOB", help="Only these, such as '*.query'."
)
BASE = click.option(
    "--base",
    required=True,
    metavar="MODEL",
    help="The checkpoint that it was trained on: a folder, a file, or minilm (extra demo).",
)
WRITTEN = ("peft", "mlx", "kohya", "diffusers", "loralib")
"""Keys of `subspace.adapters.save.WRITERS`, which a --help does not import."""
DEVICE = click.option("--device", default="cpu", show_default=True, help="Any torch device.")

SIDES = ("A", "B", "in", "out", "delta-A")
"""Those of `subspace.results`, which --help need not import."""


def side(
    default: str = "A",
    *,
    of: Sequence[str] = SIDES,
    help: str = "Whose directions: of A, of B, of delta W (in, out), or of A minus its initial A.",
) -> Callable[[Any], Any]:
    """Return the option of the side that is compared."""
    return click.option(
        "--side", type=click.Choice(of), default=default, show_default=True, help=help
    )


def level(help: str = "At which directions agree.") -> Callable[[Any], Any]:
    """Return the option of the false discovery rate."""
    return click.option("--level", default=0.01, show_default=True, help=help)


def group(
    name: str, kind: Callable[..., Any], *added: Callable[[Any], Any]
) -> Callable[[Any], Any]:
    """Add options that a verb gets as one argument `name`, made by `kind` of their values."""

    def add(function: Any) -> Any:  # noqa: ANN401 - click's decorators take and give anything
        @wraps(function)
        def called(**values: Any) -> Any:  # noqa: ANN401
            values[name] = kind(**{each: values.pop(each) for each in names})
            return function(**values)

        decorated: Any = called
        names = []
        for option in reversed(added):
            decorated = option(decorated)
            if decorated.__click_params__[-1].expose_value:
                names.append(decorated.__click_params__[-1].name)
        return decorated

    return add


class Writing(NamedTuple):
    """How an adapter is written."""

    updates_only: bool
    overwrite: bool


WRITING = group(
    "writing",
    Writing,
    click.option(
        "--updates-only",
        is_flag=True,
        help="Leave out heads, biases and magnitudes that OUT's format does not hold.",
    ),
    click.option(
        "--overwrite",
        is_flag=True,
        help="Replace OUT, if it holds nothing but what is written here.",
    ),
)


def refuse_beside_runs(training: Container[str]) -> None:
    """Refuse the options named, which trained runs could only ignore."""
    typed = [
        parameter.opts[0]
        for parameter in click.get_current_context().command.params
        if str(parameter.name) in training and _typed(str(parameter.name))
    ]
    if typed:
        (first, *_) = click.get_current_context().params["folders"]
        raise ArgumentError(
            f"{typed[0]} is for training, and {str(first)!r} stands for runs that are trained "
            "already; leave out one or the other"
        )


def given(name: str) -> bool:
    """Whether the caller gave this option; an option that the verb lacks was not given."""
    source = click.get_current_context().get_parameter_source(name)
    return source not in (None, click.core.ParameterSource.DEFAULT)


def _typed(name: str) -> bool:
    # What stands in a --config file was given, by an option of that name and not by its own.
    source = click.get_current_context().get_parameter_source(name)
    return given(name) and source is not click.core.ParameterSource.DEFAULT_MAP


def command_line(*leave_out: str) -> str:
    """Return the command that is running as a page may repeat it, in the order of its --help.

    Of an absolute path, or one behind a task's name, the last part is left: it tells nothing of
    this machine. Options in `leave_out` change nothing in what the command writes.
    """
    context = click.get_current_context()
    words = ["subspace", str(context.info_name)]
    for parameter in context.command.params:
        if parameter.name is None or parameter.name in leave_out or not given(parameter.name):
            continue
        # What a callback keeps is in meta.
        value = context.params.get(parameter.name, context.meta.get(f"subspace.{parameter.name}"))
        values = list(value) if isinstance(value, (tuple, list)) else [value]
        if isinstance(parameter, click.Argument):
            words += [portable(each) for each in values]
        elif isinstance(value, bool):
            words += (parameter.opts if value else parameter.secondary_opts)[:1]
        else:
            for each in values:
                words += [parameter.opts[0], portable(each)]
    return printable(shlex.join(words))


def portable(value: object) -> str:
    """Return a path or a task's name without the folders of this machine."""
    task, colon, source = str(value).partition(":")
    if colon and Path(source).is_absolute():
        return f"{task}:{Path(source).name}"
    path = Path(str(value))
    return path.name if path.is_absolute() else str(value)
