"""How adapters are read: the options that every verb with adapters has, said once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from subspace.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from subspace.adapters import Adapter


def _keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:  # noqa: ANN401
    context.meta[f"subspace.{parameter.name}"] = value


_STRICT = click.option(
    "--strict",
    is_flag=True,
    expose_value=False,
    callback=_keep,
    help="Refuse a file with tensors that are not understood.",
)
_ALPHA = click.option(
    "--alpha",
    type=float,
    metavar="X",
    expose_value=False,
    callback=_keep,
    help="Of adapters that do not store it, such as loralib's.",
)
_MAP = click.option(
    "--map",
    "renamed",
    multiple=True,
    metavar="OLD=NEW",
    expose_value=False,
    callback=_keep,
    help="A module's other name, where adapters of one base are not matched by themselves.",
)


def reading(*, several: bool = True) -> Callable[[Any], Any]:
    """Add ``--alpha`` and ``--strict``, and where several adapters are compared ``--map``."""

    def added(command: Any) -> Any:  # noqa: ANN401 - click's decorators take and give anything
        for option in (_STRICT, *([_MAP] if several else []), _ALPHA):
            command = option(command)
        return command

    return added


def adapter(path: Path) -> Adapter:
    """Open one adapter as the running verb's options say."""
    from subspace.adapters import load

    meta = click.get_current_context().meta
    return load(
        path,
        alpha=meta.get("subspace.alpha"),
        strict=meta.get("subspace.strict", False),
    )


def adapters(paths: Iterable[Path]) -> list[Adapter]:
    """Open adapters of one base, their modules named alike."""
    from subspace.adapters import align

    return list(align([adapter(path) for path in paths], _renamed()))


def _renamed() -> dict[str, str]:
    pairs = click.get_current_context().meta.get("subspace.renamed", ())
    table = {}
    for pair in pairs:
        old, equals, new = pair.partition("=")
        if not (old and equals and new):
            raise ArgumentError(f"--map {pair!r}: write OLD=NEW, the names of two modules")
        table[old] = new
    return table
