"""A format of one's own: templates of the tensors' names, and what their axes are.

``A=blocks.{n}.w_a, B=blocks.{n}.w_b, scale=blocks.{n}.s, layout=in,r`` reads any file of low-rank
pairs. The fields, of a text as above or of a TOML file:

- ``A``, ``B``: names of the two factors, with the same placeholders in both. ``{n}`` is one part of
  a path, ``{n*}`` any number of parts.
- ``scale`` or ``alpha``: a number, or the name of a tensor that holds one; alpha is divided by r.
  `load`'s own ``alpha`` stands for it where there is neither.
- ``layout``: A's axes, ``r,in`` (the default) or ``in,r``. B's are then ``out,r`` and ``r,out``,
  unless ``layout_b`` says otherwise.
- ``module``: a template of the module's path. Without it, it is the path that A and B have in
  common, or the placeholders' values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from subspace.adapters.build import UpdateSpec, build_adapter
from subspace.adapters.factors.plain import require_alpha
from subspace.adapters.formats.custom.fields import Pattern, parse_pattern
from subspace.adapters.formats.custom.template import Template
from subspace.adapters.source import LONGEST_NAME, read_factor_shape, read_number, some
from subspace.errors import ArgumentError, FormatError
from subspace.tensorfiles import short

if TYPE_CHECKING:
    from collections.abc import Mapping

    from subspace.adapters.adapter import Adapter
    from subspace.adapters.build import Factors
    from subspace.adapters.source import AdapterSource

NAME = "own pattern"
EXPECTS = 'load(…, pattern="A=blocks.{n}.w_a, B=blocks.{n}.w_b, alpha=16")'
TENSOR_SUFFIXES: tuple[str, ...] = ()
READS = "any pairs of two-dimensional factors, by templates of their names in a text or a TOML file"
REFERENCE = "the matrices that were stored"
TESTS = ("tests/test_pattern_adapters.py",)


def matches(source: AdapterSource) -> str | None:
    """Say that the user gave a pattern."""
    return None if source.pattern is None else "a pattern was given"


def read(source: AdapterSource) -> Adapter:
    """Make an `Adapter` of a file by the user's pattern, from headers and stored scales.

    Raises
    ------
    ArgumentError
        The pattern makes no sense.
    FormatError
        No tensor is named so, a factor is without its partner, shapes do not fit, or there is
        neither a scale nor an alpha.
    """
    if source.pattern is None:
        raise ArgumentError(f"{source.path}: no pattern was given")
    pattern = parse_pattern(source.pattern)
    if source.alpha is not None and (pattern.scale is not None or pattern.alpha is not None):
        raise ArgumentError("alpha is given beside a pattern that has its own scale or alpha")
    found_a, found_b = _matched(source, pattern.A), _matched(source, pattern.B)
    for field, template, matched in (("A", pattern.A, found_a), ("B", pattern.B, found_b)):
        if not matched:
            raise FormatError(
                f"{source.weights}: no tensor is named as {field} = {template.text}; it holds "
                f"{len(source.tensors)}: {some(map(short, source.tensors), 4)}"
            )
    both = [name for name in found_a.values() if name in set(found_b.values())]
    if both:
        raise FormatError(
            f"{source.weights}: {short(both[0])} is named as A = {pattern.A.text} and as "
            f"B = {pattern.B.text}"
        )
    planned = []
    for values in dict.fromkeys((*found_a, *found_b)):
        names = (found_a.get(values), found_b.get(values))
        for mine, other, template in zip(names, names[::-1], (pattern.A, pattern.B), strict=True):
            if mine is None:
                partner = template.filled(dict(values))
                raise FormatError(
                    f"{source.weights}: {short(other)} has no partner {short(partner)}; the file "
                    "is incomplete, or the pattern is not its"
                )
        planned.append(_specify(source, pattern, dict(values), *map(str, names)))
    return build_adapter(source, planned, format=NAME, metadata={"pattern": str(pattern)})


def _matched(source: AdapterSource, template: Template) -> dict[tuple[tuple[str, str], ...], str]:
    """Match every tensor's name; go from the placeholders' values to the name."""
    matched: dict[tuple[tuple[str, str], ...], str] = {}
    for name in source.tensors:
        if len(name) > LONGEST_NAME:
            raise FormatError(f"{source.weights}: tensor name {name[:40]!r}… is too long")
        values = template.match(name)
        if values is not None:
            matched[tuple(sorted(values.items()))] = name
    return matched


def _specify(
    source: AdapterSource, pattern: Pattern, values: Mapping[str, str], a: str, b: str
) -> UpdateSpec:
    shape_a, shape_b = read_factor_shape(source, a), read_factor_shape(source, b)
    rank, d_in = shape_a[::-1] if pattern.turned[0] else shape_a
    d_out, width = shape_b[::-1] if pattern.turned[1] else shape_b
    if rank != width:
        raise FormatError(
            f"{source.text(a)} and {b!r} {shape_b} have different ranks, {rank} and {width}, by "
            "the pattern's layout"
        )
    scale, numbers = _scale_of(source, pattern, values, rank)
    module = _module(pattern, values)
    return UpdateSpec(
        module=module,
        shape=(d_out, d_in),
        rank=rank,
        scale=scale,
        tensors=(a, b),
        factors=_factors(a, b, pattern.turned),
        numbers=numbers,
    )


def _factors(a: str, b: str, turned: tuple[bool, bool]) -> Factors:
    return lambda tensors: (
        tensors[b].T if turned[1] else tensors[b],
        tensors[a].T if turned[0] else tensors[a],
    )


def _scale_of(
    source: AdapterSource, pattern: Pattern, values: Mapping[str, str], rank: int
) -> tuple[float, tuple[str, ...]]:
    field = pattern.scale if pattern.scale is not None else pattern.alpha
    numbers: tuple[str, ...] = ()
    if isinstance(field, Template):
        name = field.filled(values)
        if name not in source.tensors:
            raise FormatError(
                f"{source.weights}: no tensor {short(name)}, which the pattern's {field.text} means"
            )
        value, numbers = read_number(source, name), (name,)
    else:
        value = require_alpha(source, "the pattern") if field is None else field
    return (value if pattern.scale is not None else value / rank), numbers


def _module(pattern: Pattern, values: Mapping[str, str]) -> str:
    if pattern.module is not None:
        return pattern.module.filled(values)
    parts = [template.text.split(".") for template in (pattern.A, pattern.B)]
    common = []
    for left, right in zip(*parts, strict=False):
        if left != right:
            break
        common.append(left)
    shared = ".".join(common)
    if shared and Template.of(shared, "module").names == pattern.A.names:
        return Template.of(shared, "module").filled(values)
    return ".".join(values.values()) or pattern.A.text
