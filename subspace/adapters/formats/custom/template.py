"""Templates of names: ``blocks.{n}.w_a``, matched against a stranger's names in bounded time."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from subspace.errors import ArgumentError
from subspace.tensorfiles import short

if TYPE_CHECKING:
    from collections.abc import Mapping

_HOLE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]{0,31})(\*?)\}")
_MOST_HOLES = 8


@dataclass(frozen=True)
class Template:
    """Text with placeholders.

    Attributes
    ----------
    text
        As the user wrote it. ``{n}`` stands for one part of a path, of any characters but a dot;
        ``{n*}`` for any number of parts.
    literals
        What stands before, between and after the placeholders.
    holes
        Each placeholder's name, and whether it takes dots.
    """

    text: str
    literals: tuple[str, ...]
    holes: tuple[tuple[str, bool], ...]

    @classmethod
    def of(cls, text: str, where: str) -> Template:
        """Read a template.

        Raises
        ------
        ArgumentError
            It is empty, its braces make no sense, or a placeholder is there twice.
        """
        pieces = _HOLE.split(text)  # literal, name, star, literal, …
        literals, names, stars = pieces[::3], pieces[1::3], pieces[2::3]
        if not text or any("{" in literal or "}" in literal for literal in literals):
            raise ArgumentError(
                f"{where} = {short(text)}: a placeholder is {{name}} for one part of a path or "
                "{name*} for several"
            )
        if len(set(names)) < len(names) or len(names) > _MOST_HOLES:
            raise ArgumentError(
                f"{where} = {short(text)}: each placeholder once, and at most {_MOST_HOLES}"
            )
        if any(not literal for literal in literals[1:-1]):
            raise ArgumentError(f"{where} = {short(text)}: nothing stands between two placeholders")
        return cls(
            text, tuple(literals), tuple((n, bool(s)) for n, s in zip(names, stars, strict=True))
        )

    @property
    def names(self) -> frozenset[str]:
        """The placeholders."""
        return frozenset(name for name, _ in self.holes)

    def match(self, name: str) -> dict[str, str] | None:
        """Return what the placeholders stand for, the first ones as short as can be; or None.

        >>> Template.of("{path*}.w{n}", "A").match("h.w.0.w3")
        {'path': 'h.w.0', 'n': '3'}
        """
        if not name.startswith(self.literals[0]):
            return None

        # Each (placeholder, place) is tried once: quadratic at worst, where a regular expression
        # with several of them tries every way to part the name.
        @cache
        def end(hole: int, begin: int) -> int | None:
            """Return where this placeholder ends if all after it match."""
            literal, last = self.literals[hole + 1], hole + 1 == len(self.holes)
            stop = len(name) if self.holes[hole][1] else name.find(".", begin)
            stop = len(name) if stop < 0 else stop
            if last:
                at = len(name) - len(literal)
                return at if begin < at <= stop and name.endswith(literal) else None
            at = name.find(literal, begin + 1)
            while 0 <= at <= stop:
                if end(hole + 1, at + len(literal)) is not None:
                    return at
                at = name.find(literal, at + 1)
            return None

        begin, fields = len(self.literals[0]), {}
        for hole, (placeholder, _) in enumerate(self.holes):
            at = end(hole, begin)
            if at is None:
                return None
            fields[placeholder] = name[begin:at]
            begin = at + len(self.literals[hole + 1])
        return fields if begin == len(name) else None

    def filled(self, values: Mapping[str, str]) -> str:
        """Put values in the placeholders' places."""
        text = self.literals[0]
        for (name, _), literal in zip(self.holes, self.literals[1:], strict=True):
            text += values[name] + literal
        return text
