"""``subspace amplification ADAPTER… --base MODEL``: Table 7, against chance."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from subspace.cli.shared import hints, options, reading
from subspace.cli.shared.places import check_figure
from subspace.cli.shared.printing import echo_csv, echo_json, echo_latex, echo_markdown
from subspace.cli.shared.progress import progress
from subspace.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from subspace.results import Amplification


def _ranks(_ctx: click.Context, _param: click.Parameter, text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return sorted({k for part in text.split(",") for k in _span(part)})
    except ValueError as error:
        raise click.BadParameter("write whole numbers, such as 1,2,4,8 or 1-8") from error


def _span(part: str) -> range:
    first, dash, last = part.partition("-")
    low, high = int(first), int(last if dash else first)
    if not 0 <= high - low < 100_000:
        raise ValueError(part)
    return range(low, high + 1)


@click.command()
@click.argument(
    "paths", metavar="ADAPTER…", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@options.BASE
@options.MODULE
@click.option(
    "--ranks", callback=_ranks, metavar="K[,K…]", help="Truncate the update to its leading K: 1-8."
)
@click.option("--unscaled", is_flag=True, help="Leave alpha / r out of delta W.")
@click.option("--no-top", is_flag=True, help='Leave "in W" out: W\'s own directions take longest.')
@click.option("--directions", is_flag=True, help="One line a direction: sigma, w, ratio, gain.")
@click.option(
    "--draws",
    type=click.IntRange(min=200),
    help="Draw so many random subspaces at every rank.  [default: 2000 where it matters]",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Of the random directions drawn.",
)
@options.JSON
@click.option("--csv", "as_csv", is_flag=True, help="Write one line a module and rank.")
@click.option("--markdown", "as_markdown", is_flag=True, help="Write Table 7 for a model card.")
@click.option("--latex", "as_latex", is_flag=True, help="Write Table 7 for a paper (booktabs).")
@click.option(
    "--out",
    metavar="FIG",
    type=click.Path(path_type=Path),
    help="Draw a figure of one adapter as .png, .svg or .pdf.",
)
@click.option(
    "--figure",
    type=click.Choice(("gains", "map", "curve")),
    default="gains",
    show_default=True,
    help="What --out draws: gains of one module's directions, map all modules, curve over --ranks.",
)
@options.look_options
@click.option(
    "--cache",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep W's own values here.  [default: the user's cache folder]",
)
@click.option("--no-cache", is_flag=True, help="Keep nothing, and use nothing that was kept.")
@click.option("--cache-verify", is_flag=True, help="Hash all of W before what was kept is used.")
@reading.reading(several=False)
@options.DEVICE
def command(
    paths: tuple[Path, ...],
    base: str,
    modules: str | None,
    ranks: list[int] | None,
    unscaled: bool,
    no_top: bool,
    directions: bool,
    draws: int | None,
    seed: int,
    as_json: bool,
    as_csv: bool,
    as_markdown: bool,
    as_latex: bool,
    out: Path | None,
    figure: str,
    cache: Path | None,
    no_cache: bool,
    cache_verify: bool,
    device: str,
) -> None:
    """How much of W lies in the directions of delta W? Table 7 of the LoRA paper, against chance.

    The factor is |delta W| / |U^T W V|, U and V the singular vectors of delta W. A large one alone
    proves nothing, since a random delta W has a larger one still: "x chance" says how many times
    more of W the update meets than a random one, and a star marks it where it is outside the
    central 95 % of chance. Several adapters of one base share one pass over it.

    \b
        subspace amplification data/adapters/r8 --base minilm
        subspace amplification runs/r4 runs/r64 --base ./my-model --no-top
        subspace amplification runs/r8 --base ./my-model --module '*.value' --ranks 1,2,4,8
        subspace amplification runs/r8 --base ./my-model --module '*.3.*.query' --out gains.png
        subspace amplification runs/r8 --base ./my-model --figure map --out map.png
        subspace amplification runs/r8 --base ./my-model --ranks 1-8 --figure curve --out k.png
        subspace amplification runs/r8 --base ./my-model --json | jq '.modules[].quotient'
    """  # noqa: D301 - click wants the real character
    options.one_output(
        json=as_json, csv=as_csv, markdown=as_markdown, latex=as_latex, directions=directions
    )
    if no_cache and (cache is not None or cache_verify):
        raise ArgumentError("--no-cache goes with neither --cache nor --cache-verify")
    _check_figure(out, figure, paths, ranks)
    from subspace.cache import default_folder
    from subspace.cli.amplification_table import HEADER, echo_directions, rows_of, show
    from subspace.measures.amplification.measure import amplifications

    adapters = [reading.adapter(path) for path in paths]
    checkpoint = reading.open_base(base)
    total = len({name for adapter in adapters for name in adapter.select(modules)})
    with progress("projecting", total) as at:
        results = amplifications(
            adapters,
            checkpoint,
            ranks=ranks,
            modules=modules,
            scaled=not unscaled,
            top=not no_top,
            cache=None if no_cache else cache or default_folder(),
            verify=cache_verify,
            draws=draws,
            seed=seed,
            device=device,
            progress=at,
        )
    if out is not None:
        from subspace.plots.save import save

        look = options.look()
        save(_figure(results[0], figure, look.width), out, dpi=look.dpi)
    if as_json:
        echo_json(_plain(results))
    elif as_csv:
        _echo_csv(results)
    elif as_markdown or as_latex:
        header = HEADER if len(results) == 1 else ("adapter", *HEADER)
        rows = [
            row if len(results) == 1 else [result.adapter, *row]
            for result in results
            for row in rows_of(result)
        ]
        (echo_markdown if as_markdown else echo_latex)(header, rows)
    else:
        for n, result in enumerate(results):
            if n:
                click.echo()
            (echo_directions if directions else show)(result)
        cut = [] if ranks else [hints.again("--ranks", "1-8")]
        one = len(paths) == 1
        drawn = [hints.again("--figure", "map", "--out", "map.png")] if one else []
        hints.conclude(out, *cut, *drawn)


def _check_figure(
    out: Path | None, figure: str, paths: Sequence[Path], ranks: Sequence[int] | None
) -> None:
    """Refuse a figure that could not be drawn or written, before the work is done."""
    if out is None:
        if options.given("figure"):
            raise ArgumentError("--figure is for a figure: give --out FIG too")
        options.refuse_look("--out")
        return
    check_figure(out)
    if len(paths) > 1:
        raise ArgumentError(f"--out draws one adapter, {len(paths)} were given; call it for each")
    if figure == "curve" and len(ranks or ()) < 2:
        raise ArgumentError("--figure curve goes over several ranks: give them, as in --ranks 1-8")


def _figure(result: Amplification, figure: str, width: float) -> Figure:
    if figure == "map":
        from subspace.plots.amplification_map import map_figure

        return map_figure(result, width=width)
    if figure == "curve":
        from subspace.plots.amplification_curve import curve_figure

        return curve_figure(result, width=width)
    from subspace.plots.gains import gains_figure

    return gains_figure(result, width=width)


def _plain(results: Sequence[Amplification]) -> dict[str, object]:
    if len(results) == 1:
        return results[0].to_dict()
    from subspace.results import SCHEMA_VERSION

    plain = [result.to_dict() for result in results]
    return {"schema_version": SCHEMA_VERSION, "kind": "amplifications", "results": plain}


def _echo_csv(results: Sequence[Amplification]) -> None:
    rows = [{"adapter": result.adapter} | row.to_dict() for result in results for row in result]
    names = [n for n in rows[0] if n not in ("directions", "shape")]
    echo_csv(names, [["" if row[n] is None else row[n] for n in names] for row in rows])
