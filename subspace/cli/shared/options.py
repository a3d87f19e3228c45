"""Options that several verbs share, said once."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from subspace.errors import ArgumentError, printable

if TYPE_CHECKING:
    from collections.abc import Container

MODULE = click.option("--module", "modules", metavar="GLOB", help="Only these, such as '*.query'.")
BASE = click.option(
    "--base",
    required=True,
    metavar="MODEL",
    help="The checkpoint that it was trained on: a folder, a file, or minilm (extra demo).",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Write everything as JSON.")
MARKDOWN = click.option(
    "--markdown", "as_markdown", is_flag=True, help="Write the table for a model card."
)
LATEX = click.option(
    "--latex", "as_latex", is_flag=True, help="Write the table for a paper (booktabs)."
)
MODULES_CSV = click.option("--csv", "as_csv", is_flag=True, help="Write one line a module.")
CELLS = click.option(
    "--csv", "as_csv", is_flag=True, help="Write one line a module and cell (i, j)."
)
OUT = click.option(
    "--out",
    metavar="FIG",
    type=click.Path(path_type=Path),
    help="Draw a figure of the paper as .png, .svg or .pdf.",
)
WRITTEN = ("peft", "mlx", "kohya", "diffusers", "loralib")
"""Keys of `subspace.adapters.save.WRITERS`, which a --help does not import."""
UPDATES_ONLY = click.option(
    "--updates-only",
    is_flag=True,
    help="Leave out heads, biases and magnitudes that OUT's format does not hold.",
)
OVERWRITE = click.option(
    "--overwrite", is_flag=True, help="Replace OUT, if it holds nothing but what is written here."
)
DEVICE = click.option("--device", default="cpu", show_default=True, help="Any torch device.")

SIDE_WORDS = {
    "A": "right singular vectors of A (the paper's choice; depends on the gauge of B A)",
    "B": "left singular vectors of B (depends on the gauge of B A)",
    "in": "right singular vectors of delta W = B A",
    "out": "left singular vectors of delta W = B A",
    "delta-A": "right singular vectors of A - A_0",
}
# Of a placement i counts W's vectors and j the update's.
BASE_WORDS = {
    "in": "right singular vectors of W (i) and of delta W = B A (j)",
    "out": "left singular vectors of W (i) and of delta W = B A (j)",
}

STYLES = {"paper": (7.0, 200.0), "slides": (5.0, 384.0)}
"""Inches of width, dots per inch. A slide is 1920 dots wide, its letters 1.4 times as large."""
_WIDTHS = {"single": 3.5, "double": 7.0}  # columns of a journal page


class Look(NamedTuple):
    """How a figure is to come out."""

    width: float  # inches
    dpi: float


def look_options(command: Any) -> Any:  # noqa: ANN401 - click's decorators take and give anything
    """Add ``--style``, ``--width`` and ``--dpi``, which `look` reads."""
    for option in (
        click.option(
            "--dpi", type=click.FloatRange(10, 2400), expose_value=False, callback=_kept,
            help="Dots per inch of a .png.  [default: by --style]",
        ),
        click.option(
            "--width", metavar="single|double|INCHES", expose_value=False, callback=_kept,
            help="Of the figure: a column of a page, or two.  [default: by --style]",
        ),
        click.option(
            "--style", type=click.Choice(tuple(STYLES)), default="paper", show_default=True,
            expose_value=False, callback=_kept,
            help="For a page (7 inches), or for a slide (larger letters, 1920 dots).",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


def _kept(context: click.Context, parameter: click.Parameter, value: Any) -> None:  # noqa: ANN401
    if parameter.name == "width" and value is not None and value not in _WIDTHS:
        try:
            value = float(value)
        except ValueError:
            raise click.BadParameter("write single, double or a number of inches") from None
    context.meta[f"subspace.{parameter.name}"] = value
    asked: Any = context.meta.get("subspace.width")
    if asked in _WIDTHS and context.meta.get("subspace.style") == "slides":
        raise click.UsageError(
            f"--width {asked} is a column of a page, on which a slide's letters would be small "
            "again: leave it out, or give inches"
        )


def look() -> Look:
    """Return how the running verb's figure is to come out."""
    meta = click.get_current_context().meta
    width, dpi = STYLES[meta.get("subspace.style", "paper")]
    asked: Any = meta.get("subspace.width")
    return Look(_WIDTHS.get(asked, asked) or width, meta.get("subspace.dpi") or dpi)


def refuse_look(option: str) -> None:
    """Refuse the options of `look_options` where `option`, which draws, was not given."""
    ignored = [f"--{name}" for name in ("style", "width", "dpi") if given(name)]
    if ignored:
        raise ArgumentError(f"{', '.join(ignored)} is for a figure: give {option} FIG too")


def one_output(**asked: bool) -> None:
    """Refuse two options that both write to stdout; each is named without its dashes."""
    both = [f"--{name}" for name, on in asked.items() if on]
    if len(both) > 1:
        raise ArgumentError(f"{' and '.join(both)} write to stdout; choose one")


def refuse_beside_runs(training: Container[str]) -> None:
    """Refuse the options named, which trained runs could only ignore."""
    said = [
        parameter.opts[0]
        for parameter in click.get_current_context().command.params
        if str(parameter.name) in training and _typed(str(parameter.name))
    ]
    if said:
        (first, *_) = click.get_current_context().params["folders"]
        raise ArgumentError(
            f"{said[0]} is for training, and {str(first)!r} stands for runs that are trained "
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
            words += [_portable(each) for each in values]
        elif isinstance(value, bool):
            words += [parameter.opts[0]] if value else []
        else:
            for each in values:
                words += [parameter.opts[0], _portable(each)]
    return printable(shlex.join(words))


def _portable(value: object) -> str:
    task, colon, source = str(value).partition(":")
    if colon and Path(source).is_absolute():
        return f"{task}:{Path(source).name}"
    path = Path(str(value))
    return path.name if path.is_absolute() else str(value)
