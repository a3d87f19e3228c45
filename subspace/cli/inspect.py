"""``subspace inspect``: what is in an adapter, from headers alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from subspace.cli.shared import hints, output, reading
from subspace.cli.shared.narrow import line_width, wrapped
from subspace.cli.shared.printing import echo_table
from subspace.errors import SubspaceError, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from subspace.adapters import Adapter, UpdateInfo
    from subspace.cli.shared.output import Output
    from subspace.results import Inspected, InspectedModule
    from subspace.results.table import Table


@click.command()
@click.argument(
    "paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@output.output("json", "csv", json="Write every module and tensor as JSON.")
@click.option("--explain", is_flag=True, help="Say why a file is taken for the format it is.")
@reading.reading(several=False)
def command(paths: tuple[Path, ...], output: Output, explain: bool) -> None:
    """Say what each adapter holds: modules, shapes, ranks, scales, and what is set aside.

    PATH is a folder or file of any format that is read (README lists them). Only headers are read,
    so this is quick at any size (a torch .bin file has no header and takes a few seconds). Whether
    the values are finite, zero or untrained is not seen: `subspace rank` reads them. A PATH that
    cannot be read does not stop the others.

    \b
        subspace inspect runs/r8
        subspace inspect runs/r8 runs/r64/adapter_model.safetensors
        subspace inspect runs/r8 --json | jq '.adapters[0].modules[].rank'
        subspace inspect lora.safetensors --explain
        subspace inspect own.pt --explain --pattern 'A={m*}.down, B={m*}.up, alpha=8'
    """  # noqa: D301 - click wants the real character
    from subspace.adapters.load import find
    from subspace.results import Inspection
    from subspace.tensorfiles import TORCH_SUFFIXES

    adapters = []
    failed = False
    for path in paths:
        try:
            weights = find(path, reading.adapter_name(path)).weights
            if weights.suffix in TORCH_SUFFIXES:
                click.echo(
                    f"{printable(weights)} is a torch pickle: reading it needs torch and takes "
                    "seconds",
                    err=True,
                )
            adapters.append(reading.adapter(path, among=paths))
        except SubspaceError as error:  # noqa: PERF203 - one that fails does not stop the others
            if len(paths) == 1:
                raise
            failed = True
            click.echo(f"Error: {printable(error)}", err=True)
    if not adapters:
        click.get_current_context().exit(2)
    if output.form != "table":
        _warn_unknown(adapters)

    def show_all() -> None:
        for i, adapter in enumerate(adapters):
            if i:
                click.echo()
            _show(adapter, reading.reasons(adapter) if explain else {})

    pairs = [hints.suggest("similarity", paths[:2])] if len(paths) > 1 else []
    updates = all(adapter.updates for adapter in adapters)  # without any, no verb is next
    output.emit(
        Inspection(tuple(map(inspect_adapter, adapters))),
        show=show_all,
        next_commands=[*pairs, hints.suggest_report()] if updates and not failed else [],
    )
    if failed:  # the others were shown all the same
        click.get_current_context().exit(2)


_LABEL = 11  # characters of the labels, which stand before what they say
# A layer's number stands between dots, or underscores in kohya's names; the 1 of "fc1" is none.
_NUMBER = re.compile(r"(?<![^._])[0-9]+(?![^._])")


def inspect_adapter(adapter: Adapter) -> Inspected:
    """Return what an adapter's headers say."""
    from subspace.results import Inspected, SetAsideTensor

    base = adapter.base_model
    return Inspected(
        name=adapter.name,
        path=str(adapter.path),
        format=adapter.format,
        method=str(adapter.method),
        base_model=None if base is None else str(base),
        parameters=sum(info.parameters for info in adapter.updates.values()),
        initial_a=bool(adapter.initial),
        modules=tuple(map(inspect_module, adapter.updates.values())),
        set_aside=tuple(
            SetAsideTensor(
                tensor=tensor.name,
                module=tensor.module,
                shape=tensor.shape,
                dtype=tensor.dtype,
                reason=tensor.reason_text,
                known=tensor.known,
            )
            for tensor in adapter.set_aside
        ),
        notes=tuple(adapter.notes),
    )


def inspect_module(info: UpdateInfo) -> InspectedModule:
    """Return what the header says of one module's update."""
    from subspace.results import InspectedModule

    return InspectedModule(
        module=info.name,
        kind=info.kind,
        shape=info.shape,
        rank=info.rank,
        scale=info.scale,
        dtype=info.dtype,
        parameters=info.parameters,
    )


def _warn_unknown(adapters: Iterable[Adapter]) -> None:
    for adapter in adapters:
        unknown = [tensor.name for tensor in adapter.set_aside if not tensor.known]
        if unknown:
            click.echo(f"Warning: {printable(adapter.name)}: {_unknown(unknown)}", err=True)


def _unknown(names: Sequence[str]) -> str:
    return f"{_count(len(names), 'tensor')} not understood and left out: {_some(names)}"


def _show(adapter: Adapter, reasons: Mapping[str, str]) -> None:
    from rich.console import Console
    from rich.text import Text

    from subspace.adapters.set_aside import group_by_reason

    width = line_width()
    # A pipe gets whole lines.
    console = (
        Console(highlight=False, width=100_000, color_system=None)
        if width is None
        else Console(highlight=False, width=width)
    )

    def say(label: str, text: object, style: str = "") -> None:
        first, *more = wrapped(printable(text), width and width - _LABEL, indent="")
        lines = [Text.assemble((f"{label:<{_LABEL}}", "dim"), (first, style))]
        for line in (*lines, *(Text(" " * _LABEL + line, style) for line in more)):
            console.print(line, soft_wrap=True)

    infos = list(adapter.updates.values())
    console.print(Text(printable(adapter.path), "bold"), soft_wrap=True)
    say("format", adapter.format)
    for n, (name, reason) in enumerate(reasons.items()):
        say(
            "why" if n == 0 else f"or {name}",
            reason + (", and is asked first" if n == 0 and len(reasons) > 1 else ""),
        )
    given = None if adapter.path is None else reading.pattern(adapter.path)
    if given is not None:
        from subspace.adapters.formats.custom.fields import parse_pattern

        pattern = parse_pattern(given)
        say("pattern", pattern)
        for n, line in enumerate(pattern.toml().splitlines() if reasons else ()):
            say("" if n else "as TOML", line)
    say("method", adapter.method)
    say("base model", adapter.base_model or "not named")
    say(
        "updates",
        f"{_count(len(infos), 'module')}, {sum(i.parameters for i in infos):,} parameters"
        + (", initial A stored" if adapter.initial else ""),
    )
    say("values", "not read; subspace rank tells whether they are finite and trained")
    if infos:
        table = _tabulate(_groups(infos))
        echo_table(table.header, table.rows)  # whole names, to be copied
    for note in adapter.notes:
        say("note", note, "yellow")
    for reason, names in group_by_reason(t for t in adapter.set_aside if t.known).items():
        say("set aside", f"{_count(len(names), 'tensor')}, {reason}: {_some(names)}")
    unknown = [tensor.name for tensor in adapter.set_aside if not tensor.known]
    if unknown:
        say("UNKNOWN", _unknown(unknown), "bold red")


def _tabulate(groups: Sequence[Sequence[UpdateInfo]]) -> Table:
    """Make a table with one row per group of modules that are alike but for their numbers."""
    from subspace.results import InspectedModule
    from subspace.results.table import Column, make_table

    columns = [
        Column("module", text=lambda group: _pattern([info.name for info in group])),
        Column("module", "count", value=len),
        Column("shape", "d_out x d_in", text=lambda group: "{} x {}".format(*group[0].shape)),
        Column("rank", value=lambda group: group[0].rank),
        Column("scale", value=lambda group: group[0].scale),
        Column("dtype", value=lambda group: group[0].dtype),
    ]
    if any(group[0].kind != "linear" for group in groups):
        columns.append(Column("kind", value=lambda group: group[0].kind))
    return make_table(InspectedModule, columns, groups)


def _groups(infos: Sequence[UpdateInfo]) -> list[list[UpdateInfo]]:
    """Put together what differs in the layer's number alone, in order of first appearance."""
    groups: dict[tuple[object, ...], list[UpdateInfo]] = {}
    for info in infos:
        key = (
            _NUMBER.sub("#", info.name),
            info.shape,
            info.rank,
            info.scale,
            info.dtype,
            info.kind,
        )
        groups.setdefault(key, []).append(info)
    return list(groups.values())


def _pattern(names: Sequence[str]) -> str:
    """Write module paths that differ in numbers as one, ``h.{0..3,7}.q``.

    >>> _pattern(["h.0.q", "h.1.q", "h.4.q"])
    'h.{0..1,4}.q'
    >>> _pattern(["lora_te_layers_0_fc1", "lora_te_layers_1_fc1"])
    'lora_te_layers_{0..1}_fc1'
    """
    columns = zip(*(_NUMBER.findall(name) for name in names), strict=True)
    shown = (
        n[0] if len(set(n)) == 1 else "{" + _ranges(sorted({int(p) for p in n})) + "}"
        for n in columns
    )
    return _NUMBER.sub(lambda _: next(shown), names[0])


def _ranges(numbers: Sequence[int]) -> str:
    runs: list[list[int]] = []
    for n in numbers:
        if runs and n == runs[-1][1] + 1:
            runs[-1][1] = n
        else:
            runs.append([n, n])
    return ",".join(f"{a}..{b}" if b > a else f"{a}" for a, b in runs)


def _some(names: Sequence[str], most: int = 3) -> str:
    shown = ", ".join(printable(name) for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")


def _count(n: int, thing: str) -> str:
    return f"{n:,} {thing}{'' if n == 1 else 's'}"
