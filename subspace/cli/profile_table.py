"""What ``subspace placement --profile`` prints: delta W's energy over W's whole singular index."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from subspace.cli.shared import hints, options
from subspace.cli.shared.progress import progress
from subspace.errors import ArgumentError

if TYPE_CHECKING:
    from typing import Literal

    from matplotlib.figure import Figure

    from subspace.adapters import Adapter
    from subspace.cli.shared.output import FigureStyle, Output
    from subspace.pretrained import Pretrained

_NOTED = 1024**3  # cubed dimensions, added up: about a second of work


def refuse_others() -> None:
    """Refuse the options of Figure 8, which a profile has no use for."""
    given = [name for name in ("k", "figure") if options.given(name)]
    if given:
        raise ArgumentError(
            f"--{', --'.join(given)} chooses a part of W's directions and its figure; --profile "
            "takes them all and has one figure: leave it out"
        )


def run(
    adapter: Adapter,
    base: Pretrained,
    *,
    side: Literal["in", "out"],
    modules: str | None,
    device: str,
    output: Output,
) -> None:
    """Compute, say beforehand how long it takes, and write."""
    from subspace.measures.placement.profile import profile

    infos = adapter.select(modules).updates
    _announce([info.shape for info in infos.values()], device)
    with progress("decomposing W", len(infos)) as advance:
        result = profile(adapter, base, side=side, modules=modules, device=device, progress=advance)

    def draw(style: FigureStyle) -> Figure:
        from subspace.plots.profile import profile_figure

        return profile_figure(result, width=style.width)

    output.emit(
        result,
        draw=draw,
        next_commands=[hints.suggest_again("--out", "profile.png")],
    )


def _announce(shapes: list[tuple[int, int]], device: str) -> None:
    smaller = [min(shape) for shape in shapes]
    if sum(n**3 for n in smaller) < _NOTED:
        return
    from subspace.measures.placement.profile import estimate_seconds

    n, seconds = max(smaller), estimate_seconds(shapes, device=device)
    grams = f"{len(shapes)} Grams up to" if len(shapes) > 1 else "a Gram of"
    about = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
    click.echo(f"profile: eigh of {grams} {n} x {n}, about {about}", err=True)
