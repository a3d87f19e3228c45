"""``subspace placement ADAPTER --base MODEL``: where the update lies in W, Figure 8."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from subspace.cli import options
from subspace.cli.amplification import open_base
from subspace.cli.printing import progress
from subspace.cli.similarity import FIGURES, check_output, emit


@click.command()
@click.argument("path", metavar="ADAPTER", type=click.Path(path_type=Path))
@options.BASE
@click.option(
    "--side",
    type=click.Choice(("in", "out")),
    default="in",
    show_default=True,
    help="Right or left singular vectors, of W and of delta W.",
)
@click.option("--top", type=int, metavar="K", help="W's directions.  [default: min(64, d/10)]")
@options.MODULE
@options.JSON
@options.CELLS
@options.OUT
@click.option(
    "--figure",
    type=click.Choice(FIGURES),
    default="4",
    show_default=True,
    help="What --out draws: 4 two modules beside random matrices, layers all.",
)
@options.DEVICE
def command(
    path: Path,
    base: str,
    side: Literal["in", "out"],
    top: int | None,
    modules: str | None,
    as_json: bool,
    as_csv: bool,
    out: Path | None,
    figure: str,
    device: str,
) -> None:
    """Compare W's top directions with those of delta W: phi, Figure 8 of the paper.

    phi(i, j) compares W's leading i singular directions with delta W's leading j: near chance, the
    update adds directions that W does not emphasise.

    \b
        subspace placement data/adapters/r8 --base minilm
        subspace placement runs/r8 --base ./my-model --side out --out fig8.png
    """  # noqa: D301 - click wants the real character
    check_output(as_json=as_json, as_csv=as_csv, out=out)
    from subspace.adapters import load
    from subspace.measures.placement import placement

    adapter = load(path)
    checkpoint = open_base(base)
    with progress("decomposing W", len(adapter.select(modules))) as advance:
        result = placement(
            adapter,
            checkpoint,
            side=side,
            top=top,
            modules=modules,
            device=device,
            progress=advance,
        )
    emit(result, as_json=as_json, as_csv=as_csv, out=out, figure=figure)
