"""``subspace similarity A B…``: phi(i, j), what chance gives, and Figure 3; of more, a matrix."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from subspace.cli.shared import hints, options, reading
from subspace.cli.shared.options import SIDE_WORDS
from subspace.cli.shared.phi_figures import FIGURES, OF_FIGURES, draw
from subspace.cli.shared.places import check_figure
from subspace.cli.shared.printing import echo_csv, echo_json, echo_latex, echo_markdown
from subspace.cli.shared.progress import progress
from subspace.errors import ArgumentError

if TYPE_CHECKING:
    from subspace.results import By, Side, Similarity

OF_MATRICES = ("--by", "--k", "--order")
GRIDS = ("phi", "error", "masked", "null_mean", "null_std", "pvalue")  # columns of --csv


@click.command()
@click.argument("paths", metavar="A B…", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--side",
    type=click.Choice(tuple(SIDE_WORDS)),
    default="A",
    show_default=True,
    help="Whose directions: of A, of B, of delta W (in, out), or of A minus its start.",
)
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
@click.option("--level", default=0.01, show_default=True, help="At which directions agree.")
@click.option(
    "--by",
    type=click.Choice(("phi", "agreeing", "distance")),
    default="phi",
    show_default=True,
    help="Of three or more: what each pair has, φ(k, k), agreeing directions or a distance.",
)
@click.option(
    "--k",
    type=click.IntRange(1),
    help="Of three or more: leading directions compared; the smallest rank by default.",
)
@click.option(
    "--order",
    type=click.Choice(("given", "clustered")),
    default="clustered",
    show_default=True,
    help="Of three or more: as given, or so that alike ones are neighbours.",
)
@options.JSON
@click.option(
    "--csv", "as_csv", is_flag=True, help="Write one line a module and cell (i, j), or a pair."
)
@options.MARKDOWN
@options.LATEX
@click.option(
    "--out",
    metavar="FIG",
    type=click.Path(path_type=Path),
    help="Draw a figure of the paper, or the matrix, as .png, .svg or .pdf.",
)
@click.option(
    "--figure",
    type=click.Choice(FIGURES),
    default="3",
    show_default=True,
    help="What --out draws: 3 two modules and a zoom, 4 beside random matrices, layers all.",
)
@click.option(
    "--contour",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.01,
    show_default=True,
    help="--out draws a contour where p is this; 0 draws none.",
)
@click.option("--above-chance", is_flag=True, help="--out draws phi minus what chance gives.")
@click.option("--initial", is_flag=True, help="--out draws the initial A beside, where stored.")
@options.look_options
@reading.reading()
@options.DEVICE
def command(
    paths: tuple[Path, ...],
    side: Side,
    modules: str | None,
    control: Path | None,
    angles: bool,
    level: float,
    by: By,
    k: int | None,
    order: str,
    as_json: bool,
    as_csv: bool,
    as_markdown: bool,
    as_latex: bool,
    out: Path | None,
    figure: str,
    contour: float,
    above_chance: bool,
    initial: bool,
    device: str,
) -> None:
    """Compare the directions that adapters A and B learned: phi(i, j), Eq. 4 of the LoRA paper.

    phi is 1 where the leading i directions of A and j of B span the same space, and
    max(i, j)/d by chance. "agree" counts the leading directions that both share beyond chance.
    Three or more adapters are compared two by two, one number a pair (--by), alike ones together.

    \b
        subspace similarity data/adapters/r8 data/adapters/r64
        subspace similarity runs/r8 runs/r64 --side in --module '*.query'
        subspace similarity runs/r8 runs/r64 --out fig3.png
        subspace similarity runs/r64 runs/r64-seed1 --out fig4.pdf --figure 4
        subspace similarity runs/r8 runs/r64 --json | jq '.modules[] | [.module, .agreeing]'
        subspace similarity runs/* --side in --out matrix.png
    """  # noqa: D301 - click wants the real character
    options.one_output(json=as_json, csv=as_csv, markdown=as_markdown, latex=as_latex)
    if len(paths) > 2:
        from subspace.cli.similarity_matrix import matrix

        matrix(
            paths,
            by=by,
            k=k,
            side=side,
            modules=modules,
            level=level,
            device=device,
            clustered=order == "clustered",
            as_json=as_json,
            as_csv=as_csv,
            as_markdown=as_markdown,
            as_latex=as_latex,
            out=out,
        )
        return
    check_two(paths)
    check_output(out)
    from subspace.measures.similarity.measure import similarity

    a, b, *controls = reading.adapters([*paths, *([] if control is None else [control])])
    with progress("comparing", len(a.select(modules))) as advance:
        result = similarity(
            a,
            b,
            side=side,
            modules=modules,
            control=controls[0] if controls else None,
            angles=angles,
            level=level,
            device=device,
            progress=advance,
        )
    emit(
        result,
        as_json=as_json,
        as_csv=as_csv,
        as_markdown=as_markdown,
        as_latex=as_latex,
        out=out,
        figure=figure,
        p=contour or None,
        above_chance=above_chance,
        initial=initial,
    )


def check_two(paths: tuple[Path, ...]) -> None:
    """Refuse a single adapter, and what only a matrix of more than two has."""
    if len(paths) < 2:
        raise ArgumentError("one adapter was given; similarity is between two or more")
    ignored = [name for name in OF_MATRICES if options.given(name[2:])]
    if ignored:
        raise ArgumentError(
            f"{', '.join(ignored)}: for three adapters or more; leave it out, or give another"
        )


def check_output(out: Path | None) -> None:
    """Refuse what could not be drawn, before the work is done."""
    if out is not None:
        check_figure(out)
    else:
        ignored = [name for name in OF_FIGURES if options.given(name[2:].replace("-", "_"))]
        if ignored:
            raise ArgumentError(f"{', '.join(ignored)} is for a figure: give --out FIG too")
        options.refuse_look("--out")


def emit(
    result: Similarity,
    *,
    as_json: bool,
    as_csv: bool,
    as_markdown: bool = False,
    as_latex: bool = False,
    out: Path | None,
    figure: str,
    p: float | None = 0.01,
    above_chance: bool = False,
    initial: bool = False,
    proposed: str | None = None,
) -> None:
    """Write the figure, and the result as one of the tables, JSON or CSV."""
    if out is not None:
        draw(result, out, figure=figure, p=p, above_chance=above_chance, initial=initial)
    if as_json:
        echo_json(result.to_dict())
    elif as_csv:
        echo_csv(("module", "i", "j", *GRIDS), _cells(result))
    else:
        from subspace.cli.similarity_table import show, table

        if as_markdown or as_latex:
            (echo_markdown if as_markdown else echo_latex)(*table(result))
            return
        show(result)
        hints.conclude(out, hints.again("--out", proposed or f"fig{figure}.png"), hints.report())


def _cells(result: Similarity) -> list[list[object]]:
    rows: list[list[object]] = []
    for name, m in result.items():
        grids = [getattr(m, grid).tolist() for grid in GRIDS]
        for i in range(m.rank_a):
            for j in range(m.rank_b):
                values = [grid[i][j] for grid in grids]
                rows.append([name, i + 1, j + 1, *("" if v != v else v for v in values)])
    return rows
