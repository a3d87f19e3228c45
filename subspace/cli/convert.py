"""``subspace convert IN OUT --to FORMAT``: the same updates in another program's files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from subspace.cli import options, reading
from subspace.cli.places import check_place
from subspace.cli.printing import echo_table, ended, say

if TYPE_CHECKING:
    from subspace.adapters import Adapter
    from subspace.adapters.save import Written


@click.command()
@click.argument("path", metavar="IN", type=click.Path(path_type=Path))
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--to", "to", type=click.Choice(options.WRITTEN), required=True, help="The format.")
@options.MODULE
@options.UPDATES_ONLY
@options.OVERWRITE
@reading.reading(several=False)
def command(
    path: Path, out: Path, to: str, modules: str | None, updates_only: bool, overwrite: bool
) -> None:
    """Write an adapter in another format, where that can hold it exactly.

    OUT is a folder for peft and mlx, a file that ends in .safetensors for kohya, diffusers and
    loralib (or .pt). Factors keep their dtype and bits; what a format stores once for all modules,
    such as MLX-LM's scale, is folded into B where modules differ, and said. What it cannot hold is
    refused by name. A place that is taken is left as it is.

    \b
        subspace convert runs/r8 runs/r8-mlx --to mlx
        subspace convert pytorch_lora_weights.safetensors style.safetensors --to kohya
        subspace convert runs/r8 r8.pt --to loralib --updates-only
    """  # noqa: D301 - click wants the real character
    from subspace.adapters.save import check, save

    check_place(out)
    check(out, to, overwrite=overwrite)
    adapter = reading.adapter(path).select(modules)
    written = save(adapter, out, to, updates_only=updates_only, overwrite=overwrite)
    show(adapter, written)
    ended(out, "")


def show(adapter: Adapter, written: Written) -> None:
    """Print what was written, and what a reader of it must know."""
    infos = list(adapter.updates.values())
    values = [
        [str(rank) for rank in sorted({info.rank for info in infos})],
        [f"{scale:.6g}" for scale in sorted({info.scale for info in infos})],
        list(dict.fromkeys(info.dtype for info in infos)),
    ]
    shown = [", ".join(found[:4]) + (", …" if len(found) > 4 else "") for found in values]
    header = ["from", "to", "modules", "rank", "scale", "dtype"]
    echo_table(header, [[adapter.format, written.format, str(len(infos)), *shown]], left=2)
    for note in written.notes:
        say(f"note: {note}")
