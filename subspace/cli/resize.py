"""``subspace resize ADAPTER OUT``: the best adapter of lower rank, and what it costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from subspace.cli.shared import options, output, reading
from subspace.cli.shared.output import in_columns
from subspace.cli.shared.places import check_place
from subspace.cli.shared.printing import common_path, echo_table, say
from subspace.cli.shared.progress import progress

if TYPE_CHECKING:
    from collections.abc import Iterable

    from subspace.cli.shared.options import Writing
    from subspace.cli.shared.output import Output
    from subspace.results import Budget, Resize

HEADER = ("module", "r", "kept", "energy", "error", "parameters")


class Cut(NamedTuple):
    """How many directions are kept."""

    rank: int | None
    energy: float | None
    error: float | None
    budget: Budget


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
    default="float32",
    show_default=True,
    help="Of the new factors.",
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
    dtype: str,
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
    from subspace.adapters.save import check, own_format, save
    from subspace.measures.resize.measure import resize

    check_place(out)
    adapter = reading.adapter(path)
    to = to or own_format(adapter)
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
        json=result.to_dict,
        csv=lambda: in_columns([m.to_row() for m in result.values()]),
        table=lambda: (HEADER, _rows(result)),
        show=lambda: show(result, written.notes),
        wrote=out,
    )


def show(result: Resize, notes: Iterable[str]) -> None:
    """Print one line a module and the whole, and what a reader must know to read them."""
    above = common_path(list(result))
    of = "all modules together" if result.budget == "all" else "each module"
    say(f"{result.name} resized by {result.asked} {result.value:g} of {of}")
    if above:
        say(f"modules of {above}")
    echo_table(HEADER, list(_rows(result, above)))
    say("energy: kept share of |dW|_F^2; error: |dW - kept|_F / |dW|_F, the least at that rank")
    for note in notes:
        say(f"note: {note}")


def _rows(result: Resize, above: str = "") -> Iterable[list[str]]:
    for name, m in result.items():
        yield [
            name.removeprefix(f"{above}."),
            str(m.before),
            str(m.after),
            _share(m.energy),
            _number(m.error),
            f"{m.parameters_after:,}",
        ]
    yield [
        "all",
        str(sum(m.before for m in result.values())),
        str(sum(m.after for m in result.values())),
        _share(result.energy),
        _number(result.error),
        f"{result.parameters_after:,}",
    ]


def _share(value: float) -> str:
    return "-" if value != value else f"{value:.4f}"


def _number(value: float) -> str:
    return "-" if value != value else f"{value:.3g}"
