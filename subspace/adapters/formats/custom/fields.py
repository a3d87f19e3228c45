"""A pattern's fields, from a text or a TOML file, checked before any file is opened."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subspace.adapters.formats.custom.template import Template
from subspace.errors import ArgumentError, MissingExtraError
from subspace.tensorfiles import short
from subspace.tensorfiles.untrusted import require_regular

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

_FIELDS = ("A", "B", "scale", "alpha", "layout", "layout_b", "module")
_LAYOUTS = {"r,in": False, "in,r": True}
_LAYOUTS_B = {"out,r": False, "r,out": True}
_LONGEST_FILE = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Pattern:
    """A pattern, read and checked.

    Attributes
    ----------
    fields
        As the user wrote them.
    A, B, module
        Templates of names.
    scale, alpha
        A number, a template, or None.
    turned
        Whether A and B are stored as (d_in, r) and (r, d_out).
    """

    fields: Mapping[str, str]
    A: Template
    B: Template
    module: Template | None
    scale: float | Template | None
    alpha: float | Template | None
    turned: tuple[bool, bool]

    def __str__(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.fields.items())

    def toml(self) -> str:
        """Return the same as the text of a TOML file.

        >>> print(parse_pattern("A={n}.a, B={n}.b, layout=in,r").toml(), end="")
        A = "{n}.a"
        B = "{n}.b"
        layout = "in,r"
        """
        # JSON's strings are among TOML's.
        return "".join(
            f"{name} = {json.dumps(value, ensure_ascii=False)}\n"
            for name, value in self.fields.items()
        )


def parse_pattern(given: str | os.PathLike[str]) -> Pattern:
    """Read a pattern from its text, or from a TOML file of the same fields.

    Raises
    ------
    ArgumentError
        A field is missing, unknown, there twice, or makes no sense.
    MissingFileError
        There is no such file.

    >>> parse_pattern("A={path*}.down, B={path*}.up, scale=1").A.match("h.0.q.down")
    {'path': 'h.0.q'}
    """
    if not isinstance(given, str) or ("=" not in given and given.endswith(".toml")):
        fields = _of_toml(Path(given))
    else:
        fields = _of_text(given)
    unknown = [name for name in fields if name not in _FIELDS]
    if unknown:
        raise ArgumentError(
            f"pattern: the field {short(unknown[0])} is unknown; there are {', '.join(_FIELDS)}"
        )
    missing = [name for name in ("A", "B") if name not in fields]
    if missing:
        raise ArgumentError(
            f"pattern: {' and '.join(missing)} must be there, as in "
            "A=blocks.{n}.w_a, B=blocks.{n}.w_b, alpha=16"
        )
    A, B = (Template.of(fields[name], f"pattern: {name}") for name in ("A", "B"))
    if A.names != B.names:
        raise ArgumentError(
            f"pattern: A = {A.text} and B = {B.text} must have the same placeholders"
        )
    module = Template.of(fields["module"], "pattern: module") if "module" in fields else None
    scale, alpha = (_scale(fields.get(name), name) for name in ("scale", "alpha"))
    if scale is not None and alpha is not None:
        raise ArgumentError("pattern: scale or alpha, not both")
    for name, template in (("module", module), ("scale", scale), ("alpha", alpha)):
        if isinstance(template, Template) and not template.names <= A.names:
            raise ArgumentError(
                f"pattern: {name} = {template.text} has a placeholder that A has not"
            )
    turned = _choice(fields.get("layout", "r,in"), "layout", _LAYOUTS)
    in_b = fields.get("layout_b")
    turned_b = turned if in_b is None else _choice(in_b, "layout_b", _LAYOUTS_B)
    return Pattern(
        fields=fields, A=A, B=B, module=module, scale=scale, alpha=alpha, turned=(turned, turned_b)
    )


def _of_text(text: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    last = ""
    for piece in text.split(","):
        name, equals, value = (part.strip() for part in piece.partition("="))
        if not equals and last.startswith("layout"):
            fields[last] += f",{name}"  # its value has a comma of its own
        elif not equals or not name or not value:
            raise ArgumentError(f"pattern: {short(piece.strip())} is not field=value")
        elif name in fields:
            raise ArgumentError(f"pattern: {name} is there twice")
        else:
            fields[name] = value
            last = name
    return fields


def _of_toml(path: Path) -> dict[str, str]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        try:
            import tomli as tomllib
        except ImportError:
            raise MissingExtraError(
                f"{path}: reading TOML needs Python 3.11 or tomli; install it, or give the "
                "pattern as a text"
            ) from None
    require_regular(path)
    if path.stat().st_size > _LONGEST_FILE:
        raise ArgumentError(f"{path}: larger than {_LONGEST_FILE:_} bytes, which no pattern is")
    try:
        table: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ArgumentError(f"{path}: not valid TOML ({error})") from None
    fields = {}
    for name, value in table.items():
        if type(value) not in (str, int, float):
            raise ArgumentError(f"{path}: {name} = {short(value)} is neither a text nor a number")
        fields[name] = str(value)
    return fields


def _scale(text: str | None, field: str) -> float | Template | None:
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        return Template.of(text, f"pattern: {field}")
    if not math.isfinite(value):
        raise ArgumentError(f"pattern: {field} = {short(text)} is not a number")
    return value


def _choice(text: str, field: str, choices: Mapping[str, bool]) -> bool:
    value = "".join(text.split()).strip("()")
    if value not in choices:
        raise ArgumentError(f"pattern: {field} = {short(text)} is not {' or '.join(choices)}")
    return choices[value]
