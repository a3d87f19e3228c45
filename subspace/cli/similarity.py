"""``subspace similarity A B``: phi(i, j), what chance gives, and Figure 3."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from subspace.cli import options
from subspace.cli.printing import common_path, echo_csv, echo_json, echo_table, progress, say
from subspace.errors import ArgumentError

if TYPE_CHECKING:
    from subspace.results import ModuleSimilarity, Side, Similarity

SIDE_WORDS = {
    "A": "right singular vectors of A (the paper's choice; depends on the gauge of B A)",
    "B": "left singular vectors of B (depends on the gauge of B A)",
    "in": "right singular vectors of delta W = B A",
    "out": "left singular vectors of delta W = B A",
    "delta-A": "right singular vectors of A - A_0",
}

FIGURES = ("3", "4", "layers")
OF_FIGURES = ("--figure", "--contour", "--above-chance", "--initial")
GRIDS = ("phi", "error", "masked", "null_mean", "null_std", "pvalue")  # columns of --csv


@click.command()
@click.argument("first", metavar="A", type=click.Path(path_type=Path))
@click.argument("second", metavar="B", type=click.Path(path_type=Path))
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
@options.JSON
@options.CELLS
@options.OUT
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
@options.DEVICE
def command(
    first: Path,
    second: Path,
    side: Side,
    modules: str | None,
    control: Path | None,
    angles: bool,
    level: float,
    as_json: bool,
    as_csv: bool,
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

    \b
        subspace similarity data/adapters/r8 data/adapters/r64
        subspace similarity runs/r8 runs/r64 --side in --module '*.query'
        subspace similarity runs/r8 runs/r64 --out fig3.png
        subspace similarity runs/r64 runs/r64-seed1 --out fig4.pdf --figure 4
        subspace similarity runs/r8 runs/r64 --json | jq '.modules[] | [.module, .agreeing]'
    """  # noqa: D301 - click wants the real character
    check_output(as_json=as_json, as_csv=as_csv, out=out)
    from subspace.adapters import load
    from subspace.measures.similarity import similarity

    a, b = load(first), load(second)
    against = None if control is None else load(control)
    with progress("comparing", len(a.select(modules))) as advance:
        result = similarity(
            a,
            b,
            side=side,
            modules=modules,
            control=against,
            angles=angles,
            level=level,
            device=device,
            progress=advance,
        )
    emit(
        result,
        as_json=as_json,
        as_csv=as_csv,
        out=out,
        figure=figure,
        p=contour or None,
        above_chance=above_chance,
        initial=initial,
    )


def check_output(*, as_json: bool, as_csv: bool, out: Path | None) -> None:
    """Refuse what could not be written, before the work is done."""
    if as_json and as_csv:
        raise ArgumentError("--json and --csv both write to stdout; choose one")
    if out is not None:
        from subspace.plots.save import check

        check(out)
    else:
        ignored = [name for name in OF_FIGURES if options.given(name[2:].replace("-", "_"))]
        if ignored:
            raise ArgumentError(f"{', '.join(ignored)} is for a figure: give --out FIG too")


def emit(
    result: Similarity,
    *,
    as_json: bool,
    as_csv: bool,
    out: Path | None,
    figure: str,
    p: float | None = 0.01,
    above_chance: bool = False,
    initial: bool = False,
) -> None:
    """Write the figure, and the result as a table, JSON or CSV."""
    if out is not None:
        draw(result, out, figure=figure, p=p, above_chance=above_chance, initial=initial)
    if as_json:
        echo_json(result.to_dict())
    elif as_csv:
        echo_csv(("module", "i", "j", *GRIDS), _cells(result))
    else:
        show(result)
        if out is not None:
            click.echo(f"wrote {out}", err=True)


def draw(
    result: Similarity,
    out: Path,
    *,
    figure: str = "3",
    p: float | None = 0.01,
    above_chance: bool = False,
    initial: bool = False,
) -> None:
    """Write one of `FIGURES` to a file."""
    from subspace.plots.save import save

    if figure == "layers":
        from subspace.plots.layers import layers_figure

        drawn = layers_figure(result, p=p, above_chance=above_chance)
    elif figure == "4":
        from subspace.measures.similarity import random_pair
        from subspace.plots.figure4 import figure4
        from subspace.plots.names import chosen

        first = result[chosen(result, None)[0]]
        random = random_pair(first.rank_a, first.rank_b, first.d)
        drawn = figure4(result, random, p=p, above_chance=above_chance, initial=initial)
    else:
        from subspace.plots.figure3 import figure3

        drawn = figure3(result, p=p, above_chance=above_chance, initial=initial)
    save(drawn, out)


def show(result: Similarity) -> None:
    """Print one line a module, and what a reader must know to read it."""
    a, b = result.adapters
    say(f"phi of {a} (i) and {b} (j), side {result.side}: {SIDE_WORDS[result.side]}")
    above = common_path(list(result))
    if above:
        say(f"modules of {above}")
    ranks = {(m.rank_a, m.rank_b) for m in result.values()}
    last = "φ({},{})".format(*next(iter(ranks))) if len(ranks) == 1 else "φ(r,r)"
    header = ["module", "φ(1,1)", "chance", "p", last, "chance", "agree"]
    angles = any(m.angles is not None for m in result.values())
    header += ["least angle", "chance"] if angles else []
    header += ["start"] if result.initial is not None else []
    header += ["control", "agree"] if result.control is not None else []
    rows = []
    for name, m in result.items():
        real = (m.numerical_rank_a, m.numerical_rank_b)
        i, j = (rank - 1 for rank in real) if all(real) else (-1, -1)
        row = [name.removeprefix(f"{above}."), _phi(m.phi[0, 0]), f"{m.null_mean[0, 0]:.3f}"]
        row += [_p(m.pvalue[0, 0]), _phi(m.phi[i, j]), f"{m.null_mean[i, j]:.3f}", _agreeing(m)]
        if angles:
            row += [_degrees(None if m.angles is None else m.angles[0]), _degrees(m.angle_edge)]
        if result.initial is not None:
            row.append(_phi(result.initial[name].phi[0, 0]))
        if result.control is not None:
            there = result.control.modules.get(name)
            row += ["-", "-"] if there is None else [_phi(there.phi[0, 0]), _agreeing(there)]
        rows.append(row)
    echo_table(header, rows)
    say(
        f"agree: leading directions shared beyond chance (level {result.level:g}, "
        f"Benjamini-Hochberg over {len(result)} modules)"
    )
    if result.initial is not None:
        say("start: φ(1,1) between the two initial A")
    if result.control is not None:
        say(f"control: φ(1,1) of {a} and {result.control.adapters[1]}")
    for name, m in result.items():
        if m.note:
            say(f"note: {name}: {m.note}")
    for note in result.notes:
        say(f"note: {note}")
    for adapter, names in zip(result.adapters, result.unmatched, strict=True):
        if names:
            more = f" and {len(names) - 6} more" if len(names) > 6 else ""
            say(f"note: only {adapter} has {', '.join(names[:6])}{more}")


def _degrees(angle: float | None) -> str:
    return "-" if angle is None else f"{math.degrees(angle):.1f}°"


def _agreeing(m: ModuleSimilarity) -> str:
    if m.agreeing is None:
        return "-"
    return f"{m.agreeing}/{min(m.numerical_rank_a, m.numerical_rank_b)}"


def _phi(value: float) -> str:
    return "-" if value != value else f"{value:.3f}"


def _p(value: float) -> str:
    return "-" if value != value else "< 1e-12" if value < 1e-12 else f"{value:.1e}"


def _cells(result: Similarity) -> list[list[object]]:
    rows: list[list[object]] = []
    for name, m in result.items():
        grids = [getattr(m, grid).tolist() for grid in GRIDS]
        for i in range(m.rank_a):
            for j in range(m.rank_b):
                values = [grid[i][j] for grid in grids]
                rows.append([name, i + 1, j + 1, *("" if v != v else v for v in values)])
    return rows
