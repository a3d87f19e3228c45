"""``subspace resize ADAPTER OUT``: the best adapter of lower rank, and what it costs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from subspace.cli.shared import options, output, reading
from subspace.cli.shared.places import check_place
from subspace.cli.shared.printing import show_table
from subspace.cli.shared.progress import progress

if TYPE_CHECKING:
    from subspace.cli.shared.options import Writing
    from subspace.cli.shared.output import Output
    from subspace.results import Budget


class Cut(NamedTuple):
    """How many directions are kept."""

    rank: int | None
    energy: float | None
    error: float | None
    budget: Budget
    allow_growth: bool


@click.command()
@click.argument("path", metavar="ADAPTER", type=click.Path(path_type=Path))
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@options.group(
    "cut",
    Cut,
    click.option("--rank", type=int, metavar="R", help="Directions to keep in each module."),
    click.option(
        "--energy", type=float, metavar="E", help="Share of |dW|^2 to keep, such as 0.99."
    ),
    click.option(
        "--error", type=float, metavar="E", help="Largest |dW - kept| / |dW|, such as 0.05."
    ),
    click.option(
        "--budget",
        type=click.Choice(("module", "all")),
        default="module",
        show_default=True,
        help="Each module by itself, or the largest singular values of all (--rank: their mean).",
    ),
    click.option(
        "--allow-growth",
        is_flag=True,
        help="Write OUT even where it holds more values than ADAPTER stores, as of a LoKr.",
    ),
)
@click.option(
    "--to",
    "to",
    type=click.Choice(options.WRITTEN),
    help="The format of OUT.  [default: the adapter's own, else peft]",
)
@click.option(
    "--dtype",
    type=click.Choice(("float32", "float64", "float16", "bfloat16")),
    help="Of the new factors.  [default: as they are stored]",
)
@options.MODULE
@options.WRITING
@output.output("json", "csv", "markdown", "latex")
@reading.reading(several=False)
@options.DEVICE
def command(
    path: Path,
    out: Path,
    cut: Cut,
    to: str | None,
    dtype: str | None,
    modules: str | None,
    writing: Writing,
    output: Output,
    device: str,
) -> None:
    """Write an adapter with fewer directions, the best there is, and say what it keeps.

    Every update is cut after its leading singular values, which is the nearest of that rank
    (Eckart & Young). "error" is |dW - kept| / |dW| in the Frobenius norm, "energy" the kept share
    of |dW|^2. Give one of --rank, --energy and --error. alpha stays as it was: PEFT gets a
    rank_pattern where ranks differ.

    \b
        subspace resize runs/r64 runs/r64-small --error 0.05
        subspace resize runs/r64 runs/r64-8 --rank 8 --budget all
        subspace resize style.safetensors small.safetensors --energy 0.99 --dtype float16
    """  # noqa: D301 - click wants the real character
    from subspace.adapters.save import check, find_own_format, save
    from subspace.measures.resize.measure import resize

    check_place(out)
    adapter = reading.adapter(path)
    to = to or find_own_format(adapter)
    check(out, to, overwrite=writing.overwrite)
    with progress("cutting", len(adapter.select(modules))) as advance:
        result = resize(
            adapter,
            **cut._asdict(),
            dtype=dtype,
            modules=modules,
            device=device,
            progress=advance,
        )
    written = save(result.adapter, out, to, **writing._asdict())
    output.emit(
        result,
        show=lambda: show_table(replace(result.table(), notes=tuple(written.notes))),
        wrote=out,
    )
