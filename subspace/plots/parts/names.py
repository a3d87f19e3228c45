"""Untrusted names in a picture: escaped, shortened, and labelled by layer and kind.

Module paths and adapter names come from files that nobody vouches for. A ``$`` would start
mathtext, a control character would move the text, a glyph that the font lacks would draw a box.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import takewhile
from typing import TYPE_CHECKING

from matplotlib.font_manager import FontProperties, findfont, get_font

from subspace.errors import ArgumentError, UnknownModuleError, printable, shorten
from subspace.modules.place import place
from subspace.modules.words import list_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

# Lower case: the choice asks for no case.
_QUERY = frozenset(map(str.lower, list_words("query")))
_VALUE = frozenset(map(str.lower, list_words("value")))


@lru_cache(maxsize=4096)
def _drawable(character: str, path: str) -> bool:
    return bool(get_font(path).get_char_index(ord(character)))


def literal(name: object, most: int = 60) -> str:
    r"""Return `name` as text that matplotlib draws as it is written.

    Control characters and glyphs that the current font lacks are escaped, the middle of a long
    name is left out, and every ``$`` loses its meaning as the start of mathtext.

    >>> print(literal("runs/$r_8$"))
    runs/\$r_8\$
    """
    path = findfont(FontProperties())
    pieces = [  # an escape is never cut in two
        c if _drawable(c, path) else f"\\u{ord(c):04x}" for c in printable(shorten(str(name), 500))
    ]
    if sum(map(len, pieces)) > most:
        while len(pieces) > 2 and sum(map(len, pieces)) >= most:
            del pieces[len(pieces) // 2]
        pieces.insert((len(pieces) + 1) // 2, "…")
    return "".join(pieces).replace("$", r"\$")


def distinct(names: Sequence[str], most: int = 60) -> list[str]:
    """Return `literal` of each; where that makes several the same, the part in which they differ.

    >>> distinct(["run-seed0-shuffled", "run-seed1-shuffled", "r8"], 11)
    ['…seed0-shu…', '…seed1-shu…', 'r8']
    """
    written = [literal(name, most) for name in names]
    for word in dict.fromkeys(written):
        alike = [name for name, short in zip(names, written, strict=True) if short == word]
        if len(set(alike)) > 1:
            columns = zip(*alike, strict=False)
            start = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))
            room = max(1, most - 2)
            written = [
                literal(_window(name, start, room), most) if short == word else short
                for name, short in zip(names, written, strict=True)
            ]
    return written


def _window(name: str, middle: int, room: int) -> str:
    start = max(0, min(middle - room // 2, len(name) - room))
    return "…" * (start > 0) + name[start : start + room] + "…" * (start + room < len(name))


def in_two_lines(name: object, most: int = 60) -> str:
    r"""Return `literal`, of a longer name with a line break behind its last hyphen that fits.

    >>> in_two_lines("r64-seed1-shuffled", 12)
    'r64-seed1-\nshuffled'
    >>> in_two_lines("r64", 12), in_two_lines("averylongname", 9)
    ('r64', 'aver…name')
    """
    text = str(name)
    cut = max(text.rfind(mark, 0, most) for mark in "-_./") + 1
    if len(text) <= most or not 0 < cut < len(text):
        return literal(text, most)
    return f"{literal(text[:cut], most)}\n{literal(text[cut:], most)}"


def module_label(module: str, most: int = 40) -> str:
    """Name a module by its layer and the last word of its path, escaped.

    >>> module_label("encoder.layer.3.attention.self.query")
    'layer 3 query'
    """
    where = place(module)
    if where.layer is None:
        return literal(module, most)
    return f"layer {where.layer} {literal(where.kind.rsplit('.', 1)[-1], most - 8)}"


def kind_labels(kinds: Sequence[str]) -> dict[str, str]:
    """Give every kind the shortest end of its path that no other kind shares.

    BERT has ``attention.output.dense`` and ``output.dense``: the last word alone misleads.

    >>> kind_labels(["attention.self.query", "attention.output.dense", "intermediate.dense"])
    {'attention.self.query': 'query', 'attention.output.dense': 'output.dense', \
'intermediate.dense': 'intermediate.dense'}
    """
    labels = {}
    for kind in kinds:
        parts = kind.split(".")
        ends = (".".join(parts[-n:]) for n in range(1, len(parts) + 1))
        others = [f".{k}" for k in kinds if k != kind]
        labels[kind] = next(
            (e for e in ends if not any(other.endswith(f".{e}") for other in others)), kind
        )
    return labels


def layer_words(
    rows: Sequence[tuple[str, int | None]], word: str = "layer"
) -> dict[tuple[str, int | None], str]:
    """Name each (prefix, layer); where several prefixes have layers, by where their paths differ.

    >>> bart = [("model.encoder.layers", 0), ("model.decoder.layers", 0), ("", None)]
    >>> list(layer_words(bart).values()), list(layer_words(bart[1:]).values())
    (['encoder 0', 'decoder 0', ''], ['layer 0', ''])
    """
    paths = {prefix: prefix.split(".") for prefix, layer in rows if layer is not None}
    words = dict.fromkeys(paths, word)
    if len(paths) > 1:
        alike = takewhile(lambda parts: len(set(parts)) == 1, zip(*paths.values(), strict=False))
        shared = len(list(alike))
        first = {prefix: ".".join(path[shared : shared + 1]) for prefix, path in paths.items()}
        unique = len(set(first.values())) == len(first)
        words = first if unique else {p: ".".join(path[shared:]) for p, path in paths.items()}
    return {
        (prefix, layer): ""
        if layer is None
        else f"{literal(words[prefix] or word, 14)} {layer}".strip()
        for prefix, layer in rows
    }


def _pick(modules: Iterable[str], words: frozenset[str]) -> str | None:
    return next((m for m in modules if m.rsplit(".", 1)[-1].lower() in words), None)


def default_modules(modules: Sequence[str]) -> tuple[str, ...]:
    """Choose the query and the value module of the middle layer, as section 7.2 does.

    The middle is the ceil(n/2)-th of the n layers that hold both (the paper's 48th of 96). Where
    no layer holds both: the first two modules of the middle layer, or the first two of all.

    >>> default_modules([f"layers.{k}.{w}_proj" for k in range(4) for w in "qkv"])
    ('layers.1.q_proj', 'layers.1.v_proj')
    """
    layers: dict[tuple[str, int], list[str]] = {}
    for module in modules:
        where = place(module)
        if where.layer is not None:
            layers.setdefault((where.prefix, where.layer), []).append(module)
    pairs = [(_pick(inside, _QUERY), _pick(inside, _VALUE)) for inside in layers.values()]
    both = [(q, v) for q, v in pairs if q is not None and v is not None]
    if both:
        return both[(len(both) - 1) // 2]
    inside = list(layers.values())[(len(layers) - 1) // 2] if layers else list(modules)
    return tuple(inside[:2])


def chosen(
    have: Mapping[str, object],
    modules: str | Sequence[str] | None,
    *,
    most: int = 2,
    many: str = "subspace.plots.layers.layers_figure",
) -> tuple[str, ...]:
    """Return the modules to draw: those asked for, or the default ones; `many` draws more of them.

    Raises
    ------
    UnknownModuleError
        A module that was asked for is not there, or there is none at all.
    ArgumentError
        More modules than the figure has room for, or none, were asked for.
    """
    if not have:
        raise UnknownModuleError("there is no module to draw: the two adapters share none")
    if modules is None:
        return default_modules(list(have))
    names = (modules,) if isinstance(modules, str) else tuple(modules)
    for name in names:
        if name not in have:
            some = ", ".join(list(have)[:4]) + (", …" if len(have) > 4 else "")
            raise UnknownModuleError(f"no module {name!r} in this comparison; it has {some}")
    if not 1 <= len(names) <= most:
        raise ArgumentError(
            f"this figure shows 1 to {most} modules, got {len(names)}; {many} draws many"
        )
    return names
