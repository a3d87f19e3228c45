"""Where a verb's result goes: one document to stdout, and a figure to a file.

`output` adds the options to a verb and hands it an `Output`. What could not be written is refused
before the verb works. `Output.emit` writes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import click

from subspace.cli.shared import hints
from subspace.cli.shared.options import given
from subspace.cli.shared.places import check_figure, check_file
from subspace.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from matplotlib.figure import Figure

    from subspace.results import Result
    from subspace.results.table import Table

Form = Literal["table", "json", "csv", "markdown", "latex", "directions"]

_HELP = {
    "json": "Write everything as JSON.",
    "csv": "Write one line a module.",
    "markdown": "Write the table for a model card.",
    "latex": "Write the table for a paper (booktabs).",
}
STYLES = {"paper": (7.0, 200.0), "slides": (5.0, 384.0)}
"""Inches of width, dots per inch. A slide is 1920 dots wide, its letters 1.4 times as large."""
_WIDTHS = {"single": 3.5, "double": 7.0}  # columns of a journal page


class FigureStyle(NamedTuple):
    """Size of a figure."""

    width: float  # inches
    dpi: float
    asked: bool  # whether the caller chose the width, by --width or --style


@dataclass(frozen=True, kw_only=True)
class Output:
    """What the caller asked for: a document of one form, and the file of a figure."""

    form: Form
    out: Path | None = None
    style: FigureStyle | None = None  # None: the verb draws nothing
    drawing: Mapping[str, Any] = field(default_factory=dict)  # the verb's own figure options

    def emit(
        self,
        result: Result | None = None,
        *,
        json: Callable[[], dict[str, Any]] | None = None,
        show: Callable[[], object] | None = None,
        table: Callable[[], Table] | None = None,
        draw: Callable[[FigureStyle], Figure] | None = None,
        wrote: Path | None = None,
        next_commands: Iterable[str] = (),
    ) -> None:
        """Draw the figure, write the document, and say what was written or what could be next.

        Parameters
        ----------
        result
            What is written as JSON, CSV, Markdown, LaTeX or a table.
        json
            The document of a verb that has no result; such a verb shows CSV by itself.
        show
            In place of the result's table on a terminal.
        table
            In place of the result's table in Markdown and LaTeX.
        draw
            Makes the figure of --out.
        wrote
            A file or folder that the verb has written by itself.
        next_commands
            Hints to a person, where nothing was written.
        """
        from subspace.cli.shared import printing

        if draw is not None and self.style is not None and self.out is not None:
            from subspace.plots.save import save

            save(draw(self.style), self.out, dpi=self.style.dpi)
        if self.form == "json" and json is not None:
            printing.echo_json(json())
        elif result is not None and self.form in ("json", "csv", "markdown", "latex"):
            click.echo(document(result, self.form, table), nl=False)
        elif show is not None:
            show()
        elif result is not None:
            printing.show_table(result.table())
        shown = self.form in ("table", "directions")
        hints.conclude(wrote or self.out, *(next_commands if shown else ()))


def document(result: Result, form: Form, table: Callable[[], Table] | None = None) -> str:
    """Return what JSON, CSV, Markdown or LaTeX say of a result."""
    from subspace.cli.shared import printing
    from subspace.results.render import latex, markdown

    if form == "json":
        return printing.json_text(result.to_dict())
    if form == "csv":
        return result.to_csv()
    return {"markdown": markdown, "latex": latex}[form](table() if table else result.table()) + "\n"


def output(
    *forms: Form,
    option: str = "--out",
    figure: str = "",
    file: str = "",
    drawing: Sequence[Callable[[Any], Any]] = (),
    **words: str,
) -> Callable[[Any], Any]:
    """Add the options of output to a verb, which gets them as ``output``, an `Output`.

    Parameters
    ----------
    forms
        Documents that the verb can write beside its table.
    option, figure
        The option that draws, and its help; without `figure` the verb draws nothing.
    file
        Help of the same option of a verb that writes its document to a file.
    drawing
        Options of the figure alone, which are refused where none is drawn.
    words
        Help of a form, where its own is wanted.
    """
    added = [
        click.option(f"--{form}", form, is_flag=True, help=words.get(form, _HELP.get(form)))
        for form in forms
    ]
    place = option[2:]
    if figure or file:
        added.append(
            click.option(
                option,
                place,
                metavar="FIG" if figure else "FILE",
                type=click.Path(path_type=Path),
                help=f"{figure} as .png, .svg or .pdf." if figure else file,
            )
        )
    if figure:
        added += [*drawing, *_STYLE]

    def add(function: Any) -> Any:  # noqa: ANN401 - click's decorators take and give anything
        @wraps(function)
        def called(**values: Any) -> Any:  # noqa: ANN401
            asked = [form for form in forms if values.pop(form)]
            if len(asked) > 1:
                raise ArgumentError(f"{_options(asked)} write to stdout; choose one")
            out = values.pop(place) if figure or file else None
            style = _style(values) if figure else None
            own = {name: values.pop(name) for name in own_options.values()}
            if figure and out is not None:
                check_figure(out)
            elif file and out is not None:
                check_file(out)
            else:
                _refuse_figure_options(option, own_options)
            form = asked[0] if asked else "table"
            return function(output=Output(form=form, out=out, style=style, drawing=own), **values)

        own_options: dict[str, str] = {}
        decorated: Any = called
        for each in reversed(added):
            decorated = each(decorated)
            if each in drawing:
                parameter = decorated.__click_params__[-1]
                own_options[parameter.opts[0]] = parameter.name
        return decorated

    return add


def _options(names: Iterable[str]) -> str:
    return " and ".join(f"--{name}" for name in names)


def _refuse_figure_options(option: str, own: Mapping[str, str]) -> None:
    names = {**own, **{f"--{name}": name for name in ("style", "width", "dpi")}}
    ignored = [each for each, name in names.items() if given(name)]
    if ignored:
        raise ArgumentError(f"{', '.join(ignored)} is for a figure: give {option} FIG too")


def _read_width(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> str | float | None:
    if value is None or value in _WIDTHS:
        return value
    try:
        return float(value)
    except ValueError:
        raise click.BadParameter("write single, double or a number of inches") from None


_STYLE = (
    click.option(
        "--style",
        type=click.Choice(tuple(STYLES)),
        default="paper",
        show_default=True,
        help="For a page (7 inches), or for a slide (larger letters, 1920 dots).",
    ),
    click.option(
        "--width",
        metavar="single|double|INCHES",
        callback=_read_width,
        help="Of the figure: a column of a page, or two.  [default: by --style]",
    ),
    click.option(
        "--dpi",
        type=click.FloatRange(10, 2400),
        help="Dots per inch of a .png.  [default: by --style]",
    ),
)


def _style(values: dict[str, Any]) -> FigureStyle:
    style, asked, dpi = (values.pop(name) for name in ("style", "width", "dpi"))
    if style == "slides" and asked in _WIDTHS:
        raise click.UsageError(
            f"--width {asked} is a column of a page, on which a slide's letters would be small "
            "again: leave it out, or give inches"
        )
    width, usual = STYLES[style]
    chosen = given("style") or given("width")
    return FigureStyle(_WIDTHS.get(asked, asked) or width, dpi or usual, chosen)
