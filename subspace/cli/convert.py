"""``subspace convert IN OUT --to FORMAT``: the same updates in another program's files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from subspace.cli.shared import options, output, reading
from subspace.cli.shared.places import check_place
from subspace.cli.shared.printing import say

if TYPE_CHECKING:
    from collections.abc import Iterable

    from subspace.adapters import Adapter, UpdateInfo
    from subspace.adapters.save import Written
    from subspace.cli.shared.options import Writing
    from subspace.cli.shared.output import Output
    from subspace.results import Conversion


@click.command()
@click.argument("path", metavar="IN", type=click.Path(path_type=Path))
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--to", "to", type=click.Choice(options.WRITTEN), required=True, help="The format.")
@options.MODULE
@click.option(
    "--base",
    metavar="MODEL",
    help="Its base: names with _ for every dot, as kohya's, become those of MODEL's modules.",
)
@options.WRITING
@output.output("json", "csv")
@reading.reading()
def command(
    path: Path,
    out: Path,
    to: str,
    modules: str | None,
    base: str | None,
    writing: Writing,
    output: Output,
) -> None:
    """Write an adapter in another format, where that can hold it exactly.

    OUT is a folder for peft and mlx, a file that ends in .safetensors for kohya, diffusers and
    loralib (or .pt). Factors keep their dtype and bits; what a format stores once for all modules,
    such as MLX-LM's scale, is folded into B where modules differ, and said. What it cannot hold is
    refused by name. A place that is taken is left as it is. Names stay, but for those that --base
    or --rename tells.

    \b
        subspace convert runs/r8 runs/r8-mlx --to mlx
        subspace convert pytorch_lora_weights.safetensors style.safetensors --to kohya
        subspace convert runs/r8 r8.pt --to loralib --updates-only
        subspace convert runs/r8 r8.safetensors --to kohya --json | jq -r '.notes[]'
        subspace convert lycoris.safetensors runs/lycoris --to peft --base ./Llama-3.2-1B
    """  # noqa: D301 - click wants the real character
    from subspace.adapters.save import check, save

    check_place(out)
    check(out, to, overwrite=writing.overwrite)
    adapter = _named(reading.adapter(path).select(modules), base, to)
    written = save(adapter, out, to, **writing._asdict())
    result = _result(adapter, written)
    output.emit(
        result,
        show=lambda: show(result),
        wrote=out,
    )


def _result(adapter: Adapter, written: Written) -> Conversion:
    from subspace.cli.inspect import inspect_module
    from subspace.results import Conversion

    modules = {
        info.name: replace(inspect_module(info), dtype=_written_dtype(info))
        for info in adapter.updates.values()
    }
    place = str(written.path)
    return Conversion(
        name=adapter.name,
        source_format=adapter.format,
        format=written.format,
        out=place,
        modules=modules,
        notes=written.notes,
    )


def _named(adapter: Adapter, base: str | None, to: str) -> Adapter:
    """Give modules the names that the user, or the base, has for them."""
    from subspace.adapters import align
    from subspace.measures.base_names import match_base_names, with_kernels

    table = reading.rename()
    if base is not None:
        rest = [module for module in adapter if module not in table]
        table |= match_base_names(adapter, base, rest, to=to, open_base=reading.open_base)
    (named,) = align([adapter], table)
    return named if base is None else with_kernels(named, base, open_base=reading.open_base)


def show(result: Conversion) -> None:
    """Print what was written, and what a reader of it must know."""
    from subspace.findings.numbers import modules
    from subspace.results import InspectedModule
    from subspace.results.fields import described

    scale = described(InspectedModule)["scale"].field.text
    say(
        f"{result.source_format} to {result.format}: {modules(len(result))}, "
        f"rank {_some(str(rank) for rank in sorted({m.rank for m in result.values()}))}, "
        f"scale {_some(scale(value) for value in sorted({m.scale for m in result.values()}))}, "
        f"{_some(m.dtype for m in result.values())}"
    )
    for note in result.notes:
        say(f"note: {note}")


def _some(words: Iterable[str], most: int = 4) -> str:
    distinct = list(dict.fromkeys(words))
    return ", ".join(distinct[:most]) + ", …" * (len(distinct) > most)


def _written_dtype(info: UpdateInfo) -> str:
    """Name the factors' dtypes; what torch does not compute with is written as float32."""
    from subspace.tensorfiles import FLOAT8, QUANTISED

    kinds = ("float32" if kind in (*FLOAT8, *QUANTISED) else kind for kind in info.dtype.split("/"))
    return "/".join(dict.fromkeys(kinds))
