"""``subspace interference A B…``: what adding adapters to one base would do, before it is done."""

from __future__ import annotations

from pathlib import Path

import click

from subspace.cli.shared import hints, options, reading
from subspace.cli.shared.places import check_figure
from subspace.cli.shared.printing import echo_csv, echo_json, echo_latex, echo_markdown
from subspace.cli.shared.progress import progress
from subspace.errors import ArgumentError


@click.command()
@click.argument(
    "paths", metavar="ADAPTER…", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option("--weights", metavar="W,W…", help="Of the sum, one an adapter; 1 each by default.")
@click.option("--level", default=0.01, show_default=True, help="At which a cosine is a finding.")
@options.MODULE
@click.option("--all", "each", is_flag=True, help="Of more than two: one line a module and pair.")
@options.JSON
@click.option("--csv", "as_csv", is_flag=True, help="Write one line a module and pair.")
@options.MARKDOWN
@options.LATEX
@click.option(
    "--out",
    metavar="FIG",
    type=click.Path(path_type=Path),
    help="Draw the cosines over layers and modules as .png, .svg or .pdf.",
)
@options.look_options
@reading.reading()
@options.DEVICE
def command(
    paths: tuple[Path, ...],
    weights: str | None,
    level: float,
    modules: str | None,
    each: bool,
    as_json: bool,
    as_csv: bool,
    as_markdown: bool,
    as_latex: bool,
    out: Path | None,
    device: str,
) -> None:
    """Say before a merge whether adapters of one base add up, cancel, or leave each other alone.

    For every module the cosine between two updates beside what independent random ones give, how
    far their row and column spaces overlap, and the energy of the weighted sum over the sum of
    their energies: 1 where nothing meets, less where they cancel. Nothing is merged and no base
    is read. With more than two adapters each pair has one line over the whole model, and the
    modules that cancel most follow.

    \b
        subspace interference data/adapters/r8 data/adapters/r64
        subspace interference runs/german runs/poetry --weights 0.7,0.3 --out merge.png
        subspace interference runs/chat runs/toxic --weights 1,-1
        subspace interference runs/a runs/b runs/c --all --module '*.value'
        subspace interference runs/a runs/b --json | jq '.modules[] | [.module, .energy]'
    """  # noqa: D301 - click wants the real character
    options.one_output(json=as_json, csv=as_csv, markdown=as_markdown, latex=as_latex)
    by = None if weights is None else _numbers(weights)
    if out is not None:
        check_figure(out)
    else:
        options.refuse_look("--out")
    from subspace.cli.interference_table import show, table
    from subspace.measures.interference.measure import interference

    adapters = reading.adapters(paths)
    total = len({name for x in adapters for name in x.select(modules)})
    with progress("comparing", total) as advance:
        result = interference(
            adapters, weights=by, modules=modules, level=level, device=device, progress=advance
        )
    if out is not None:
        from subspace.plots.interference_map import interference_figure
        from subspace.plots.save import save

        look = options.look()
        save(interference_figure(result, width=look.width), out, dpi=look.dpi)
    if as_json:
        echo_json(result.to_dict())
    elif as_csv:
        rows = [row for m in result.values() for row in m.to_rows()]
        echo_csv(list(rows[0]), [["" if _none(v) else v for v in row.values()] for row in rows])
    elif as_markdown or as_latex:
        (echo_markdown if as_markdown else echo_latex)(*table(result, each=each))
    else:
        show(result, each=each)
        shares = ",".join([f"{1 / len(paths):.2g}"] * len(paths))
        other = [] if weights is not None else [hints.again("--weights", shares)]
        hints.conclude(out, *other, hints.again("--out", "map.png"))


def _numbers(weights: str) -> list[float]:
    try:
        return [float(word) for word in weights.split(",")]
    except ValueError:
        raise ArgumentError(
            f"--weights {weights!r} are no numbers; give one an adapter, such as 0.5,0.5"
        ) from None


def _none(value: object) -> bool:
    return value is None or value != value
