"""``subspace rank RUN…``: how many directions are real, beside the ranks of the spectrum."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from subspace.cli.shared import hints, options, output, reading
from subspace.cli.shared.options import SIDE_WORDS
from subspace.cli.shared.output import in_columns
from subspace.cli.shared.printing import common_path, echo_table, say
from subspace.cli.shared.progress import progress

if TYPE_CHECKING:
    from collections.abc import Iterable

    from matplotlib.figure import Figure

    from subspace.cli.shared.output import FigureStyle, Output
    from subspace.results import ModuleRank, Rank, Side, Spread

HEADER = (
    "module", "r", "replicable", "stable", "entropy", "partic.", "90%", "95%", "99%", "recommended",
)  # fmt: skip
_NAMED = 3  # modules of one note


@click.command()
@click.argument("paths", metavar="RUN…", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--side",
    type=click.Choice(tuple(SIDE_WORDS)),
    default="in",
    show_default=True,
    help="Whose directions: of A, of B, of delta W (in, out), or of A minus its start.",
)
@click.option("--level", default=0.01, show_default=True, help="At which directions agree.")
@options.MODULE
@output.output("json", "csv", "markdown", "latex", figure="Draw every module's ranks")
@reading.reading()
@options.DEVICE
def command(
    paths: tuple[Path, ...],
    side: Side,
    level: float,
    modules: str | None,
    output: Output,
    device: str,
) -> None:
    """How many directions are real? Those that runs of other seeds learn again.

    "replicable" counts the leading directions that two runs share beyond chance, the median over
    all pairs of runs with its range; the other ranks are of each run's delta W alone. Give two or
    more runs of one configuration that differ in their seed; one gives its spectrum alone.

    \b
        subspace rank data/adapters/r64 data/adapters/r64-seed1
        subspace rank runs/r64-seed0 runs/r64-seed1 runs/r64-seed2 --side delta-A
        subspace rank runs/r64-seed* --modules '*.value' --out rank.png
        subspace rank runs/r64-seed* --json | jq '.modules[] | [.module, .replicable]'
    """  # noqa: D301 - click wants the real character
    from subspace.measures.rank.measure import rank

    runs = reading.adapters(paths)
    with progress("comparing", len(runs[0].select(modules))) as advance:
        result = rank(
            runs, side=side, level=level, modules=modules, device=device, progress=advance
        )

    def draw(style: FigureStyle) -> Figure:
        from subspace.plots.rank import rank_figure

        return rank_figure(result, width=style.width)

    output.emit(
        json=result.to_dict,
        csv=lambda: in_columns([m.to_row() for m in result.values()]),
        table=lambda: (HEADER, _rows(result)),
        show=lambda: show(result),
        draw=draw,
        next_commands=[hints.again("--out", "rank.png"), hints.report()],
    )


def show(result: Rank) -> None:
    """Print one line a module, the sentences, and what a reader must know to read them."""
    from subspace.findings import describe_rank

    say(f"ranks of {', '.join(result.adapters)}, side {result.side}: {SIDE_WORDS[result.side]}")
    above = common_path(list(result))
    if above:
        say(f"modules of {above}")
    echo_table(HEADER, list(_rows(result, above)))
    pairs = len(result.pairs)
    if pairs:
        say(
            f"replicable: leading directions shared beyond chance (level {result.level:g}, "
            f"Benjamini-Hochberg over {len(result)} modules)"
            + (f", median over {pairs} pairs of runs (range)" if pairs > 1 else "")
        )
    runs = ", median over the runs" if len(result.adapters) > 1 else ""
    say(f"stable to 99%: ranks of the spectrum of delta W{runs}; %: directions with that energy")
    for sentence in describe_rank(result):
        say(sentence)
    said: dict[str, list[str]] = {}
    for name, m in result.items():
        if m.note and m.note not in result.notes:
            said.setdefault(m.note, []).append(name)
    for note, names in said.items():
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        say(f"note: {', '.join(names[:_NAMED])}{more}: {note}")
    for note in result.notes:
        say(f"note: {note}")


def _rows(result: Rank, above: str = "") -> Iterable[list[str]]:
    for name, m in result.items():
        spectrum = (m.stable, m.entropy, m.participation, m.energy90, m.energy95, m.energy99)
        yield [
            name.removeprefix(f"{above}."),
            str(m.nominal) if m.nominal == m.numerical else f"{m.numerical}/{m.nominal}",
            _replicable(m),
            *(_number(value) for value in spectrum),
            "-" if m.recommended is None else str(m.recommended),
        ]


def _replicable(m: ModuleRank) -> str:
    if m.replicable is None:
        return "-"
    return f"{m.replicable:g}" + (
        f" ({m.replicable_low}-{m.replicable_high})" if len(m.agreeing) > 1 else ""
    )


def _number(value: Spread) -> str:
    return "-" if value.median != value.median else f"{value.median:.3g}"
