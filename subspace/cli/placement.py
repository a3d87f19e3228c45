"""``subspace placement ADAPTER --base MODEL``: where the update lies in W, Figure 8."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from subspace.cli import profile_table
from subspace.cli.shared import hints, options, output, reading
from subspace.cli.shared.phi_figures import draw, figure_option
from subspace.cli.shared.progress import progress

if TYPE_CHECKING:
    from subspace.cli.shared.output import Output


@click.command()
@click.argument("path", metavar="ADAPTER", type=click.Path(path_type=Path))
@options.BASE
@options.side("in", of=("in", "out"), help="Right or left singular vectors, of W and of delta W.")
@click.option("--k", type=int, help="W's leading directions.  [default: min(64, d/10)]")
@options.MODULE
@click.option(
    "--profile",
    "as_profile",
    is_flag=True,
    help="Delta W's energy over all of W's directions instead; --csv: one line an index k.",
)
@output.output(
    "json",
    "csv",
    csv="Write one line a module and cell (i, j).",
    figure="Draw a figure of the paper",
    drawing=(
        figure_option("4", "What --out draws: 4 two modules beside random matrices, layers all."),
    ),
)
@reading.reading(several=False)
@options.DEVICE
def command(
    path: Path,
    base: str,
    side: Literal["in", "out"],
    k: int | None,
    modules: str | None,
    as_profile: bool,
    output: Output,
    device: str,
) -> None:
    """Compare W's top directions with those of delta W: phi, Figure 8 of the paper.

    phi(i, j) compares W's leading i singular directions with delta W's leading j: near chance, the
    update adds directions that W does not emphasise. --profile looks at every direction of W, its
    null space among them: the share of delta W's energy in the leading k, k/d by chance.

    \b
        subspace placement data/adapters/r8-seed0 --base minilm
        subspace placement runs/r8 --base ./my-model --side out --out fig8.png
        subspace placement runs/r8 --base minilm --profile --modules '*.5.*' --out profile.png
    """  # noqa: D301 - click wants the real character
    if as_profile:
        profile_table.refuse_others()
    adapter = reading.adapter(path)
    checkpoint = reading.open_base(base)
    if as_profile:
        profile_table.run(
            adapter, checkpoint, side=side, modules=modules, device=device, output=output
        )
        return
    from subspace.measures.placement.measure import placement

    with progress("decomposing W", len(adapter.select(modules))) as advance:
        result = placement(
            adapter,
            checkpoint,
            side=side,
            k=k,
            modules=modules,
            device=device,
            progress=advance,
        )
    output.emit(
        result,
        draw=lambda style: draw(result, width=style.width, **output.drawing),
        # Figure 8 of the paper, whatever it is drawn like.
        next_commands=[hints.suggest_again("--out", "fig8.png"), hints.suggest_report()],
    )
