"""``subspace diff BASE TUNED``: what a full fine-tune changed, and the adapter nearest to it."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import click

from subspace.cli.shared import hints, options, output, reading
from subspace.cli.shared.places import check_place
from subspace.cli.shared.printing import common_path, echo_table, say
from subspace.cli.shared.progress import progress
from subspace.errors import ArgumentError, FormatError, MissingFileError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from subspace.adapters import Adapter
    from subspace.cli.shared.output import Output
    from subspace.pretrained import Pretrained
    from subspace.results import Diff

HEADER = (
    "module", "r", "|W|", "|ΔW|", "|ΔW|/|W|", "σ1", "energy", "stable", "rounding", "real",
)  # fmt: skip
_NAMED = 4  # modules or tensors of a list; the others are counted


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
    from subspace.results.diff import COLUMNS, row

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
        json=result.to_dict,
        csv=lambda: (COLUMNS, [[row(m)[c] for c in COLUMNS] for m in result.values()]),
        table=lambda: (HEADER, _rows(result)),
        show=lambda: show(result),
        wrote=out,
        next_commands=[hints.again("--out", _free(tuned))] if result else [],
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
            explain(path, pattern=reading.pattern())
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


def show(result: Diff) -> None:
    """Print one line a module that changed, the whole, and what is in no line."""
    changed, all_of = len(result), len(result) + len(result.equal)
    say(f"{result.tuned} - {result.base}: {changed} of {all_of} modules changed")
    if result:
        above = common_path(list(result))
        if above:
            say(f"modules of {above}")
        echo_table(HEADER, list(_rows(result, above)))
        say(
            f"whole: |ΔW| {result.delta_norm:.3g}, of whose square the kept directions hold "
            f"{result.kept:.3f}"
        )
        say("energy: share of |ΔW|² in the leading r; stable: |ΔW|²/σ1², how many σ1 would make it")
        say("rounding: norm of what storing both rounded away; real: directions beyond its level")
    _say_list("equal", result.equal)
    _say_list(f"only in {result.base}", result.only_base)
    _say_list(f"only in {result.tuned}", result.only_tuned)
    other = [tensor.tensor for tensor in result.tensors if tensor.changed]
    if result.tensors:
        of = f"{len(other)} of {len(result.tensors)} tensors that are no matrices changed"
        say(f"in no update: {of}{_some(other, ': ')}")
    said: dict[str, list[str]] = {}
    for name, m in result.items():
        if m.note:
            said.setdefault(m.note, []).append(name)
    for note, names in said.items():
        say(f"note{_some(names, ': ')}: {note}")
    for note in result.notes:
        say(f"note: {note}")


def _say_list(label: str, names: Sequence[str]) -> None:
    if names:
        say(f"{label}: {len(names)}{_some(names, ' (')})")


def _some(names: Sequence[str], before: str) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{before}{', '.join(names[:_NAMED])}{more}" if names else ""


def _rows(result: Diff, above: str = "") -> Iterable[list[str]]:
    for name, m in result.items():
        yield [
            name.removeprefix(f"{above}."),
            str(m.rank),
            *(_number(x) for x in (m.w_norm, m.delta_norm, m.relative)),
            _number(float(m.sigma[0])) if m.rank else "-",
            f"{m.energy:.3f}",
            *(_number(x) for x in (m.stable, m.rounding)),
            m.held,
        ]


def _number(value: float) -> str:
    return "-" if value != value else f"{value:.3g}"
