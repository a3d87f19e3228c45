"""``subspace report ADAPTER…``: one page that travels, or all numbers as JSON."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

import click

from subspace.cli.shared import hints, options, output, reading
from subspace.cli.shared.output import document
from subspace.cli.shared.places import check_file
from subspace.cli.shared.printing import say
from subspace.cli.shared.progress import progress

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import ExitStack

    from subspace.adapters import Adapter
    from subspace.cli.shared.output import Form, Output
    from subspace.results import Report, Side, Table6


@click.command()
@click.argument(
    "paths", metavar="ADAPTER…", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option(
    "--base",
    metavar="MODEL",
    help="The checkpoint that they were trained on, for Table 7: a folder, a file, or minilm "
    "(extra demo).",
)
@click.option(
    "--runs",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="The folder of a sweep, for Table 6.",
)
@click.option(
    "--control",
    metavar="C",
    type=click.Path(path_type=Path),
    help="An adapter trained on shuffled labels: the first one is held against it too.",
)
@options.side(help="Whose directions, as in similarity.")
@options.level()
@options.MODULE
@click.option(
    "--top/--no-top", default=True, help="Leave out W's own values, dear where W is large."
)
@output.output(
    "json",
    "csv",
    csv="Write one line an adapter and module.",
    file="Write here.  [default: report.html, and stdout for JSON, CSV]",
)
@reading.reading()
@options.DEVICE
def command(
    paths: tuple[Path, ...],
    base: str | None,
    runs: Path | None,
    control: Path | None,
    side: Side,
    level: float,
    modules: str | None,
    top: bool,
    output: Output,
    device: str,
) -> None:
    """Put all that can be said of adapters on one page: a file that opens anywhere, offline.

    A map of layers and module kinds, phi(i, j) of every module under two sliders, spectra, Table 7
    with its curve, ranks, Table 6 of a sweep, how each number is defined, and what made them. The
    page asks for nothing over a network. With --json the same numbers, exact.

    \b
        subspace report data/adapters/r8-seed0 data/adapters/r64-seed1 --base minilm
        subspace report runs/r8 runs/r64 runs/r64-seed1 --runs runs --out sweep.html
        subspace report runs/r8 --json | jq -r '.findings[]'
    """  # noqa: D301 - click wants the real character
    target = output.out
    if target is None and output.form == "table":
        target = Path("report.html")
        check_file(target)
    from contextlib import ExitStack

    from subspace.cache import default_folder
    from subspace.files import refusing, replace_file
    from subspace.reports import report

    among = [*paths, *([] if control is None else [control])]
    adapters = [reading.adapter(path, among=among) for path in paths]
    checkpoint = None if base is None else reading.open_base(base)
    sweep = None if runs is None else _table6(runs)
    with ExitStack() as stack:
        result = report(
            adapters,
            checkpoint,
            sweep=sweep,
            control=None if control is None else reading.adapter(control, among=among),
            rename=reading.rename(),
            side=side,
            level=level,
            modules=modules,
            top=top,
            cache=default_folder(),
            command=options.command_line(),
            device=device,
            progress=_stages(stack, _count(adapters[0], modules)),
        )
    if target is None:
        click.echo(_text(result, output.form), nl=False)
        return
    data = _text(result, output.form).encode()
    with refusing(target):
        replace_file(data, target)
    for sentence in result.findings:
        say(sentence)
    hints.conclude(target)


def _count(adapter: Adapter, modules: str | None) -> int:
    """Count the modules that match; `report` refuses where none does under its final name."""
    return sum(modules is None or fnmatchcase(name, modules) for name in adapter)


def _text(result: Report, form: Form) -> str:
    from subspace.reports import html

    return html(result) if form == "table" else document(result, form)


def _table6(runs: Path) -> Table6:
    from subspace.training.sweep.read import find_runs
    from subspace.training.sweep.summary import make_table6

    return make_table6([cell for cell in find_runs([runs]) if not cell.config.shuffle_labels])


def _stages(stack: ExitStack, modules: int) -> Callable[[str], Callable[[int], None]]:
    """Show one progress bar a stage."""

    def stage(name: str) -> Callable[[int], None]:
        stack.close()
        return stack.enter_context(progress(name, modules))

    return stage
