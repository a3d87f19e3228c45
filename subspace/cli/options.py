"""Options that several verbs share, said once."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

MODULE = click.option("--module", "modules", metavar="GLOB", help="Only these, such as '*.query'.")
BASE = click.option(
    "--base",
    required=True,
    metavar="MODEL",
    help="The checkpoint that it was trained on: a folder, a file, or minilm (extra demo).",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Write everything as JSON.")
CELLS = click.option(
    "--csv", "as_csv", is_flag=True, help="Write one line a module and cell (i, j)."
)
OUT = click.option(
    "--out",
    metavar="FIG",
    type=click.Path(path_type=Path),
    help="Draw a figure of the paper as .png, .svg or .pdf.",
)
DEVICE = click.option("--device", default="cpu", show_default=True, help="Any torch device.")


def given(name: str) -> bool:
    """Whether the caller gave this option; an option that the verb lacks was not given."""
    source = click.get_current_context().get_parameter_source(name)
    return source not in (None, click.core.ParameterSource.DEFAULT)


def command_line() -> str:
    """Return the command that is running as a page may repeat it: no folder above what was named.

    Of an absolute path the last part is left, which tells nothing of this machine.
    """
    context = click.get_current_context()
    words = ["subspace", str(context.info_name)]
    for parameter in context.command.params:
        if parameter.name is None or not given(parameter.name):
            continue
        value = context.params.get(parameter.name)
        values = list(value) if isinstance(value, (tuple, list)) else [value]
        if isinstance(parameter, click.Argument):
            words += [_portable(each) for each in values]
        elif isinstance(value, bool):
            words += [parameter.opts[0]] if value else []
        else:
            for each in values:
                words += [parameter.opts[0], _portable(each)]
    return shlex.join(words)


def _portable(value: object) -> str:
    path = Path(str(value))
    return path.name if path.is_absolute() else str(value)
