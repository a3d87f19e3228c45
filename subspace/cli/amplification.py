"""``subspace amplification ADAPTER… --base MODEL``: Table 7, against chance."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from subspace.cli.shared import hints, options, output, reading
from subspace.cli.shared.printing import show_table
from subspace.cli.shared.progress import progress
from subspace.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from subspace.cli.shared.output import Output
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


class Random(NamedTuple):
    """Which random subspaces are drawn."""

    draws: int | None
    seed: int


class Kept(NamedTuple):
    """Where W's own values are kept from one call to the next."""

    cache: Path | None
    no_cache: bool
    verify_cache: bool

    def folder(self) -> Path | None:
        """Return the folder; None keeps nothing."""
        from subspace.cache import default_folder

        if not self.no_cache:
            return self.cache or default_folder()
        if self.cache is not None or self.verify_cache:
            raise ArgumentError("--no-cache goes with neither --cache nor --verify-cache")
        return None


@click.command()
@click.argument(
    "paths", metavar="ADAPTER…", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@options.BASE
@options.MODULE
@click.option(
    "--ranks", callback=_ranks, metavar="K[,K…]", help="Truncate the update to its leading K: 1-8."
)
@click.option(
    "--scaled/--unscaled", default=True, help="Whether delta W has alpha / r; it does by default."
)
@click.option(
    "--top/--no-top", default=True, help='Leave "in W" out: W\'s own directions take longest.'
)
@options.group(
    "random",
    Random,
    click.option(
        "--draws",
        type=click.IntRange(min=200),
        help="Draw so many random subspaces at every rank.  [default: 2000 where it matters]",
    ),
    click.option(
        "--seed",
        type=click.IntRange(min=0),
        default=0,
        show_default=True,
        help="Of the random directions drawn.",
    ),
)
@output.output(
    "json",
    "csv",
    "markdown",
    "latex",
    "directions",
    csv="Write one line a module and rank.",
    markdown="Write Table 7 for a model card.",
    latex="Write Table 7 for a paper (booktabs).",
    directions="One line a direction: sigma, w, ratio, gain.",
    figure="Draw a figure of one adapter",
    drawing=(
        click.option(
            "--figure",
            type=click.Choice(("gains", "map", "curve")),
            default="gains",
            show_default=True,
            help="What --out draws: gains of one module's directions, map all modules, curve over "
            "--ranks.",
        ),
    ),
)
@options.group(
    "kept",
    Kept,
    click.option(
        "--cache",
        metavar="DIR",
        type=click.Path(path_type=Path, file_okay=False),
        help="Keep W's own values here.  [default: the user's cache folder]",
    ),
    click.option("--no-cache", is_flag=True, help="Keep nothing, and use nothing that was kept."),
    click.option(
        "--verify-cache", is_flag=True, help="Hash all of W before what was kept is used."
    ),
)
@reading.reading(several=False)
@options.DEVICE
def command(
    paths: tuple[Path, ...],
    base: str,
    modules: str | None,
    ranks: list[int] | None,
    scaled: bool,
    top: bool,
    random: Random,
    output: Output,
    kept: Kept,
    device: str,
) -> None:
    """How much of W lies in the directions of delta W? Table 7 of the LoRA paper, against chance.

    The factor is |delta W| / |U^T W V|, U and V the singular vectors of delta W. A large one alone
    proves nothing, since a random delta W has a larger one still: "null ratio" says how many times
    more of W the update meets than a random one, and a star marks it where it is outside the
    central 95 % of chance. Several adapters of one base share one pass over it.

    \b
        subspace amplification data/adapters/r8-seed0 --base minilm
        subspace amplification runs/r4 runs/r64 --base ./my-model --no-top
        subspace amplification runs/r8 --base ./my-model --modules '*.value' --ranks 1,2,4,8
        subspace amplification runs/r8 --base ./my-model --modules '*.3.*.query' --out gains.png
        subspace amplification runs/r8 --base ./my-model --figure map --out map.png
        subspace amplification runs/r8 --base ./my-model --ranks 1-8 --figure curve --out k.png
        subspace amplification runs/r8 --base ./my-model --json | jq '.modules[].null_ratio'
    """  # noqa: D301 - click wants the real character
    cache = kept.folder()
    _check_figure(output, paths, ranks)
    from subspace.measures.amplification.measure import amplifications
    from subspace.results import Amplifications

    adapters = [reading.adapter(path, among=paths) for path in paths]
    checkpoint = reading.open_base(base)
    total = len({name for adapter in adapters for name in adapter.select(modules)})
    with progress("projecting", total) as at:
        results = amplifications(
            adapters,
            checkpoint,
            ranks=ranks,
            modules=modules,
            scaled=scaled,
            top=top,
            cache=cache,
            verify_cache=kept.verify_cache,
            draws=random.draws,
            seed=random.seed,
            device=device,
            progress=at,
        )

    def show() -> None:
        for n, result in enumerate(results):
            if n:
                click.echo()
            show_table(result.directions() if output.form == "directions" else result.table())

    cut = [] if ranks else [hints.suggest_again("--ranks", "1-8")]
    one = len(paths) == 1
    drawn = [hints.suggest_again("--figure", "map", "--out", "map.png")] if one else []
    output.emit(
        results[0] if one else Amplifications(tuple(results)),
        show=show,
        draw=lambda style: _figure(results[0], output.drawing["figure"], style.width),
        next_commands=[*cut, *drawn],
    )


def _check_figure(output: Output, paths: Sequence[Path], ranks: Sequence[int] | None) -> None:
    """Refuse a figure that could not be drawn, before the work is done."""
    if output.out is None:
        return
    if len(paths) > 1:
        raise ArgumentError(f"--out draws one adapter, {len(paths)} were given; call it for each")
    if output.drawing["figure"] == "curve" and len(ranks or ()) < 2:
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
