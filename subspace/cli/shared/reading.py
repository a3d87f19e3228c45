"""How adapters are read: the options that every verb with adapters has."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from subspace.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from subspace.adapters import Adapter, Aligned
    from subspace.pretrained import Pretrained


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
    expose_value=False,
    callback=_keep,
    help="Of adapters that do not store it, such as loralib's, or PEFT's without a config.",
)
_PATTERN = click.option(
    "--pattern",
    metavar="TEXT|TOML",
    expose_value=False,
    callback=_keep,
    help="A format of your own: 'A=x.{n}.w_a, B=x.{n}.w_b, alpha=16', or a file that says so.",
)
_NAME = click.option(
    "--adapter-name",
    metavar="NAME",
    expose_value=False,
    callback=_keep,
    help="Which adapter, of files that hold several.",
)
_RENAME = click.option(
    "--rename",
    "--map",
    "rename",
    multiple=True,
    metavar="OLD=NEW",
    expose_value=False,
    callback=_keep,
    help="A module's other name, where adapters of one base are not matched by themselves.",
)


def reading(*, several: bool = True) -> Callable[[Any], Any]:
    """Add the options of reading an adapter; ``--rename`` is for `several` of one base."""

    def added(command: Any) -> Any:  # noqa: ANN401 - click's decorators take and give anything
        for option in (_STRICT, *([_RENAME] if several else []), _NAME, _PATTERN, _ALPHA):
            command = option(command)
        return command

    return added


def adapter(path: Path) -> Adapter:
    """Open one adapter as the running verb's options say."""
    from subspace.adapters import load

    meta = click.get_current_context().meta
    return load(
        path,
        adapter_name=adapter_name(),
        alpha=meta.get("subspace.alpha"),
        pattern=pattern(),
        strict=meta.get("subspace.strict", False),
    )


def adapter_name() -> str | None:
    """Return the running verb's ``--adapter-name``."""
    name: str | None = click.get_current_context().meta.get("subspace.adapter_name")
    return name


def pattern() -> str | None:
    """Return the running verb's ``--pattern``."""
    text: str | None = click.get_current_context().meta.get("subspace.pattern")
    return text


def reasons(adapter: Adapter) -> dict[str, str]:
    """Say why it was read as it was: format -> the reason, of the one that read it first."""
    from subspace.adapters.load import explain

    return (
        {}
        if adapter.path is None
        else explain(adapter.path, adapter_name=adapter_name(), pattern=pattern())
    )


def adapters(paths: Iterable[Path]) -> Aligned:
    """Open adapters of one base, their modules named alike."""
    from subspace.adapters import align

    return align([adapter(path) for path in paths], rename())


def rename() -> dict[str, str]:
    """Return the running verb's ``--rename``, old name to new."""
    pairs = click.get_current_context().meta.get("subspace.rename", ())
    table = {}
    for pair in pairs:
        old, equals, new = pair.partition("=")
        if not (old and equals and new):
            raise ArgumentError(f"--rename {pair!r}: write OLD=NEW, the names of two modules")
        table[old] = new
    return table


def open_base(base: str) -> Pretrained:
    """Open the checkpoint that ``--base`` names."""
    from subspace.pretrained import open_pretrained

    if base == "minilm":
        from subspace.training.models import find_model

        embedded = find_model(base)
        opened = open_pretrained(Path(embedded.location))
        return replace(opened, name=embedded.name.split("/")[-1])  # the folder is called "model"
    return open_pretrained(Path(base))
