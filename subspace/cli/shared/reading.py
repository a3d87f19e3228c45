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


# What a pattern of one's own may begin with: its fields (`subspace.adapters.formats.custom`).
_FIELDS = frozenset({"A", "B", "alpha", "scale", "layout", "layout_b", "rank", "name"})


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
    multiple=True,
    expose_value=False,
    callback=_keep,
    help="Of adapters that do not store it, such as loralib's; PATH=16 is for that one alone.",
)
_PATTERN = click.option(
    "--pattern",
    multiple=True,
    metavar="TEXT|TOML",
    expose_value=False,
    callback=_keep,
    help="A format of your own: 'A=x.{n}.w_a, B=x.{n}.w_b, alpha=16', or a file that says so; "
    "PATH=TEXT is for that adapter alone.",
)
_NAME = click.option(
    "--adapter-name",
    multiple=True,
    metavar="NAME",
    expose_value=False,
    callback=_keep,
    help="Which adapter, of files that hold several; PATH=NAME is for that one alone.",
)
_RELEASE = click.option(
    "--peft-release",
    metavar="0.13",
    expose_value=False,
    callback=_keep,
    help="The release of PEFT that trained it, where adapter_config.json does not tell.",
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
        for option in (_STRICT, *([_RENAME] if several else []), _RELEASE, _NAME, _PATTERN, _ALPHA):
            command = option(command)
        return command

    return added


def adapter(path: Path, *, among: Iterable[Path] = ()) -> Adapter:
    """Open one adapter as the running verb's options say.

    Parameters
    ----------
    path
        Its place.
    among
        All adapters that are opened, if there are several: an option that names none of them is
        an error, and an alpha for all is used where a format leaves it open, nowhere else.
    """
    from subspace.adapters import load
    from subspace.errors import FormatError, MissingFileError

    several = list(among)
    for option in ("alpha", "pattern", "adapter_name"):
        _check_places(option, several or [path])
    strict = click.get_current_context().meta.get("subspace.strict", False)
    how: dict[str, Any] = {
        "adapter_name": adapter_name(path),
        "pattern": pattern(path),
        "peft_release": click.get_current_context().meta.get("subspace.peft_release"),
        "strict": strict,
    }
    own, alpha = _alpha(path)
    if alpha is None or own or len(several) < 2:
        return load(path, alpha=alpha, **how)
    try:
        opened = load(path, **how)
    except (FormatError, MissingFileError):
        return load(path, alpha=alpha, **how)
    note = f"--alpha {alpha:g} is not used: its format tells the scale (--alpha {path.name}=…)"
    return replace(opened, notes=(*opened.notes, note))


def adapter_name(path: Path) -> str | None:
    """Return the running verb's ``--adapter-name`` for an adapter."""
    return _option("adapter_name", path)[1]


def pattern(path: Path) -> str | None:
    """Return the running verb's ``--pattern`` for an adapter."""
    return _option("pattern", path)[1]


def _alpha(path: Path) -> tuple[bool, float | None]:
    own, text = _option("alpha", path)
    if text is None:
        return False, None
    try:
        return own, float(text)
    except ValueError:
        raise ArgumentError(
            f"--alpha {text!r}: write a number, or PATH=16 with an adapter's path or name"
        ) from None


def _option(name: str, path: Path) -> tuple[bool, str | None]:
    """Return whether an option's value is this adapter's own, and the value."""
    plain: str | None = None
    for value in _read_values(name):
        place, text = _split_place(value)
        if place is None:
            plain = text
        elif place in _names(path):
            return True, text
    return False, plain


def _read_values(name: str) -> tuple[str, ...]:
    values: tuple[str, ...] = click.get_current_context().meta.get(f"subspace.{name}") or ()
    return values


def _split_place(value: str) -> tuple[str | None, str]:
    """Split PATH=VALUE; a pattern begins with a field of its own, which is no path.

    >>> _split_place("run/r8=16"), _split_place("A=x.{n}.w_a, B=x.{n}.w_b, alpha=1")[0]
    (('run/r8', '16'), None)
    """
    place, equals, text = value.partition("=")
    return (place, text) if equals and place.strip() not in _FIELDS else (None, value)


def _names(path: Path) -> set[str]:
    return {str(path), path.name, path.stem}


def _check_places(option: str, paths: Iterable[Path]) -> None:
    """Refuse an option for an adapter that is none of those given."""
    names = set().union(*map(_names, paths))
    for value in _read_values(option):
        place, _ = _split_place(value)
        if place is not None and place not in names:
            flag = f"--{option.replace('_', '-')}"
            raise ArgumentError(
                f"{flag} {value!r}: no adapter {place!r} is given; those are "
                f"{', '.join(sorted(path.name for path in paths))}"
            )


def reasons(adapter: Adapter) -> dict[str, str]:
    """Say why it was read as it was: format -> the reason, of the one that read it first."""
    from subspace.adapters.load import explain

    return (
        {}
        if adapter.path is None
        else explain(
            adapter.path,
            adapter_name=adapter_name(adapter.path),
            pattern=pattern(adapter.path),
        )
    )


def adapters(paths: Iterable[Path]) -> Aligned:
    """Open adapters of one base, their modules named alike."""
    from subspace.adapters import align

    places = list(paths)
    return align([adapter(path, among=places) for path in places], rename())


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
