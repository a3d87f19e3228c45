"""``subspace similarity A B…``: phi(i, j), its null, and Figure 3; of more, a matrix."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from subspace.cli.shared import hints, options, output, reading
from subspace.cli.shared.phi_figures import draw, figure_option
from subspace.cli.shared.progress import progress
from subspace.cli.similarity_matrix import Pairs, compare_all
from subspace.errors import ArgumentError

if TYPE_CHECKING:
    from subspace.cli.shared.output import Output
    from subspace.results import Side


@click.command()
@click.argument("paths", metavar="A B…", nargs=-1, required=True, type=click.Path(path_type=Path))
@options.side()
@options.MODULE
@click.option(
    "--control",
    metavar="C",
    type=click.Path(path_type=Path),
    help="A third adapter, such as one trained on shuffled labels: A against C stands beside.",
)
@click.option(
    "--angles", is_flag=True, help="Also principal angles; all of them and distances in JSON."
)
@options.level()
@options.group(
    "pairs",
    Pairs,
    click.option(
        "--by",
        type=click.Choice(("phi", "agreeing", "distance")),
        default="phi",
        show_default=True,
        help="Of three or more: what each pair has, φ(k, k), agreeing directions or a distance.",
    ),
    click.option(
        "--k",
        type=click.IntRange(1),
        help="Of three or more: leading directions compared; the smallest rank by default.",
    ),
    click.option(
        "--order",
        type=click.Choice(("given", "clustered")),
        default="clustered",
        show_default=True,
        help="Of three or more: as given, or so that alike ones are neighbours.",
    ),
)
@output.output(
    "json",
    "csv",
    "markdown",
    "latex",
    csv="Write one line a module and cell (i, j), or a pair.",
    figure="Draw a figure of the paper, or the matrix,",
    drawing=(
        figure_option(
            "3",
            "What --out draws: 3 two modules and a zoom, 4 beside random matrices, layers all.",
        ),
        click.option(
            "--contour",
            type=click.FloatRange(0, 1, max_open=True),
            default=0.01,
            show_default=True,
            callback=lambda _context, _parameter, value: value or None,
            help="--out draws a contour where p is this; 0 draws none.",
        ),
        click.option("--above-chance", is_flag=True, help="--out draws phi minus its null mean."),
        click.option(
            "--initial", is_flag=True, help="--out draws the initial A beside, where stored."
        ),
    ),
)
@reading.reading()
@options.DEVICE
def command(
    paths: tuple[Path, ...],
    side: Side,
    modules: str | None,
    control: Path | None,
    angles: bool,
    level: float,
    pairs: Pairs,
    output: Output,
    device: str,
) -> None:
    """Compare the directions that adapters A and B learned: phi(i, j), Eq. 4 of the LoRA paper.

    phi is 1 where the leading i directions of A and j of B span the same space, and
    max(i, j)/d by chance. "agree" counts the leading directions that both share above chance.
    Three or more adapters are compared two by two, one number a pair (--by), alike ones together.

    \b
        subspace similarity data/adapters/r8-seed0 data/adapters/r64-seed1
        subspace similarity runs/r8 runs/r64 --side in --modules '*.query'
        subspace similarity runs/r8 runs/r64 --out fig3.png
        subspace similarity runs/r64 runs/r64-seed1 --out fig4.pdf --figure 4
        subspace similarity runs/r8 runs/r64 --json | jq '.modules[] | [.module, .agreeing]'
        subspace similarity runs/* --side in --out matrix.png
    """  # noqa: D301 - click wants the real character
    if len(paths) > 2:
        compare_all(
            paths,
            pairs,
            side=side,
            modules=modules,
            level=level,
            device=device,
            output=output,
        )
        return
    _check_two(paths)
    from subspace.measures.similarity.measure import compare

    adapters = reading.adapters([*paths, *([] if control is None else [control])])
    with progress("comparing", len(adapters[0].select(modules))) as advance:
        result = compare(
            adapters,
            side=side,
            modules=modules,
            angles=angles,
            level=level,
            device=device,
            progress=advance,
        )
    figure = output.drawing["figure"]
    output.emit(
        result,
        draw=lambda style: draw(result, width=style.width, **output.drawing),
        next_commands=[hints.suggest_again("--out", f"fig{figure}.png"), hints.suggest_report()],
    )


_OF_MATRICES = ("--by", "--k", "--order")


def _check_two(paths: tuple[Path, ...]) -> None:
    """Refuse a single adapter, and what only a matrix of more than two has."""
    if len(paths) < 2:
        raise ArgumentError("one adapter was given; similarity is between two or more")
    ignored = [name for name in _OF_MATRICES if options.given(name[2:])]
    if ignored:
        raise ArgumentError(
            f"{', '.join(ignored)}: for three adapters or more; leave it out, or give another"
        )
