"""``subspace diff BASE TUNED``: what a full fine-tune changed, and the adapter nearest to it."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import click

from subspace.cli.shared import hints, options, output, reading
from subspace.cli.shared.places import check_place
from subspace.cli.shared.progress import progress
from subspace.errors import ArgumentError, FormatError, MissingFileError

if TYPE_CHECKING:
    from subspace.adapters import Adapter
    from subspace.cli.shared.output import Output
    from subspace.pretrained import Pretrained


@click.command()
@click.argument("base", metavar="BASE")
@click.argument("tuned", metavar="TUNED", type=click.Path(path_type=Path))
@click.option("--rank", type=int, metavar="R", help="Directions to keep a module.  [default: 16]")
@click.option(
    "--energy", type=float, metavar="E", help="Or as many as hold this share of |ΔW|²: 0.9."
)
@options.MODULE
@output.output("json", "csv", "markdown", "latex")
@click.option(
    "--out",
    metavar="ADAPTER_FOLDER",
    type=click.Path(path_type=Path),
    help="Write the kept directions as a PEFT adapter of BASE.",
)
@click.option("--overwrite", is_flag=True, help="Replace an adapter that is there.")
@reading.reading(several=False)
@options.DEVICE
def command(
    base: str,
    tuned: Path,
    rank: int | None,
    energy: float | None,
    modules: str | None,
    output: Output,
    out: Path | None,
    overwrite: bool,
    device: str,
) -> None:
    """How did full fine-tuning change the weights? An update per module, from two checkpoints.

    delta W = TUNED - BASE is decomposed module by module, a part in memory at a time. "energy" is
    the share of |ΔW|² in the leading r directions, "stable" as many directions as strong as the
    first would hold all of it, "real" counts those that are no rounding of 16-bit numbers. The
    adapter that --out writes is the nearest of that rank: compare it with LoRA, on side in or out.

    TUNED may be an adapter of BASE: then the weights that it makes of BASE are compared. So DoRA,
    which scales the rows of B A + W, is decomposed whole; other verbs see its B A alone.

    \b
        subspace diff ./base ./tuned
        subspace diff ./base ./tuned --rank 64 --modules '*.q_proj' --out runs/full-r64
        subspace similarity runs/lora runs/full-r64 --side in
        subspace diff ./base runs/dora --rank 64 --out runs/dora-whole
        subspace diff ./base ./tuned --energy 0.9 --json | jq '.modules[] | [.module, .rank]'
    """  # noqa: D301 - click wants the real character
    if overwrite and out is None:
        raise ArgumentError("--overwrite is for --out ADAPTER_FOLDER: give it too")
    from subspace.adapters.save import check, save
    from subspace.measures.diff.measure import diff

    if out is not None:
        check_place(out)
        check(out, "peft", overwrite=overwrite)
    before, after = reading.open_base(base), _opened(tuned)
    with progress("subtracting", len(after)) as advance:
        result = diff(
            before,
            after,
            rank=rank,
            energy=energy,
            modules=modules,
            factors=out is not None,
            device=device,
            progress=advance,
        )
    if out is not None and result.adapter is not None:
        if not result:
            raise ArgumentError(f"nothing to write to {out}: no matrix of the two is different")
        save(result.adapter, out, updates_only=True, overwrite=overwrite)
    output.emit(
        result,
        wrote=out,
        next_commands=[hints.suggest_again("--out", _free(tuned))] if result else [],
    )


def _free(tuned: Path) -> str:
    """Return the name of a folder here that is not taken, for the adapter of a hint."""
    at = tuned.absolute()
    name = f"{at.stem if at.is_file() else at.name}-adapter"
    taken = (Path(name if n == 1 else f"{name}-{n}") for n in count(1))
    return str(next(place for place in taken if not place.exists()))


def _opened(path: Path) -> Pretrained | Adapter:
    """Open a checkpoint, or an adapter: a file by its names, a folder by which of them it has."""
    from subspace.adapters.load import explain
    from subspace.pretrained import open_pretrained

    if not path.is_dir():
        try:
            explain(path, pattern=reading.pattern(path))
        except (FormatError, MissingFileError):
            return open_pretrained(path)
        return reading.adapter(path)
    try:
        return open_pretrained(path)
    except (FormatError, MissingFileError) as missing:
        try:
            return reading.adapter(path)
        except MissingFileError:
            raise missing from None
