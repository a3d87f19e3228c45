"""The JSON Schema of all that the verbs write, made from the fields of the results.

msgspec turns types into JSON Schema; here a result's types become those of its document: arrays
are lists, a mapping from module to parts is a list, a number that may be undefined may be null.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from subspace.results.base import SCHEMA_VERSION, SIDE_WORDS, Part, Result, is_by_module
from subspace.results.fields import Described, Field, described, optional


def build_schema(kinds: Mapping[str, type[Result]]) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of some kinds of documents, and of all their parts."""
    import msgspec

    parts = _with_parts(kinds.values())
    structs = [_struct(part) for part in parts]
    _, made = msgspec.json.schema_components(structs, ref_template="#/$defs/{name}")
    for part in parts:
        defined = made[name_of(part)]
        del defined["title"]
        made[name_of(part)] = {"description": _summary(part), **defined}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:lora-subspace:schema:{SCHEMA_VERSION}",
        "title": "What lora-subspace writes as JSON",
        "description": "`kind` says which definition a document follows. Numbers that are "
        "undefined, unknown or infinite are null; all fields are there, but those that a "
        "description says may be missing.",
        "oneOf": [{"$ref": f"#/$defs/{kind}"} for kind in kinds],
        "$defs": made,
    }


def name_of(part: type[Part]) -> str:
    """Return the name of a definition: the kind of a document, or the class's in snake case."""
    kind = vars(part).get("kind")
    if issubclass(part, Result) and isinstance(kind, str):
        return kind
    return re.sub(r"(?<!^)(?=[A-Z])", "_", part.__name__).lower()


def _summary(part: type[Part]) -> str:
    return " ".join((part.__doc__ or "").split("\n\n")[0].split())


def _with_parts(classes: Any) -> list[type[Part]]:  # noqa: ANN401 - an iterable of classes
    parts: dict[type[Part], None] = {}
    waiting = list(classes)
    while waiting:
        part = waiting.pop(0)
        if part not in parts:
            parts[part] = None
            for each in described(part).values():
                waiting += _parts_in(each.hint)
    return list(parts)


def _parts_in(hint: Any) -> list[type[Part]]:  # noqa: ANN401 - types
    if isinstance(hint, type) and issubclass(hint, Part):
        return [hint]
    return [part for inner in get_args(hint) for part in _parts_in(inner)]


def _struct(part: type[Part]) -> Any:  # noqa: ANN401 - a msgspec.Struct class
    """Return a class of msgspec with the fields of a document, closed and with all of them."""
    import msgspec

    about = described(part).values()
    # Names of a document need not be Python's: "class".
    keys = {f"f{n}": each.key for n, each in enumerate(about)}
    fields: list[Any] = []
    if issubclass(part, Result):
        keys |= {"version": "schema_version", "document": "kind"}
        which = Literal[part.kind]  # type: ignore[name-defined]
        fields += [
            ("version", _described(Literal[part.schema_versions], "Version of this schema.")),
            ("document", _described(which, "Which definition the document follows.")),
        ]
    may_miss = []
    for name, each in zip(keys, about, strict=False):
        hint = _described(_document(each), each.field.description, each.field)
        if each.field.missing:
            may_miss.append((name, hint | msgspec.UnsetType, msgspec.UNSET))
        else:
            fields.append((name, hint))
    return msgspec.defstruct(
        name_of(part),
        [*fields, *may_miss],
        rename=keys,
        forbid_unknown_fields=True,
        kw_only=True,
    )


def _described(hint: Any, words: str, field: Field | None = None) -> Any:  # noqa: ANN401 - types
    import msgspec

    least = field.at_least if field is not None else None
    return Annotated[hint, msgspec.Meta(description=words, min_length=least)]


def _document(each: Described) -> Any:  # noqa: ANN401 - types
    """Return the type that a field has in JSON."""
    # Where a type says itself what may be None, no other number may be.
    nullable = bool(each.field.undefined) and not _has_none(each.hint)
    return _json_type(each.hint, each.field, nullable=nullable)


def _has_none(hint: Any) -> bool:  # noqa: ANN401 - types
    return optional(hint)[1] or any(map(_has_none, get_args(hint)))


def _json_type(hint: Any, field: Field, *, nullable: bool) -> Any:  # noqa: ANN401 - types
    import msgspec

    hint, none = optional(hint)
    if none:
        return _or_null(_json_type(hint, field, nullable=nullable))
    origin, inner = get_origin(hint), get_args(hint)

    def each(one: Any) -> Any:  # noqa: ANN401 - types
        return _json_type(one, field, nullable=nullable)

    if isinstance(hint, type) and issubclass(hint, Part):
        return _reference([hint])
    if is_by_module(hint):
        return list[_reference([inner[1]])]  # type: ignore[misc]
    if origin is Mapping and get_origin(inner[0]) is Literal:
        names = get_args(inner[0])
        fields = [
            (f"f{n}", _described(each(inner[1]), f"{SIDE_WORDS.get(name, name)}."))
            for n, name in enumerate(names)
        ]
        rename = {f"f{n}": name for n, name in enumerate(names)}
        return msgspec.defstruct("by_side", fields, rename=rename, forbid_unknown_fields=True)
    if origin is Mapping:
        return dict[str, each(inner[1])]  # type: ignore[misc]
    if origin is tuple and inner[-1:] != (...,):
        return tuple[tuple(map(each, inner))]  # type: ignore[misc]
    if origin in (tuple, list):
        return list[each(inner[0])]  # type: ignore[misc]
    if all(isinstance(one, type) and issubclass(one, Part) for one in inner) and inner:
        return _reference(inner)
    if origin is not None and origin is not Literal:
        return Union[tuple(map(each, inner))]  # noqa: UP007
    if hint in (int, float):
        limits = {"ge": field.low, "le": field.high, "gt": field.above, "lt": field.below}
        bounds = msgspec.Meta(**limits)  # type: ignore[arg-type]
        number = Annotated[hint, bounds]
        return number | None if nullable and hint is float else number
    return hint


def _reference(parts: Any) -> Any:  # noqa: ANN401 - classes; a type
    """Refer by name: a result may hold its own kind."""
    import msgspec

    names = [{"$ref": f"#/$defs/{name_of(part)}"} for part in parts]
    return Annotated[
        Any, msgspec.Meta(extra_json_schema=names[0] if len(names) == 1 else {"oneOf": names})
    ]


def _or_null(hint: Any) -> Any:  # noqa: ANN401 - types
    """Return a type or None; msgspec itself would take a reference or None for anything."""
    import msgspec

    if get_origin(hint) is Annotated and get_args(hint)[0] is Any:
        inner = get_args(hint)[1].extra_json_schema
        return Annotated[Any, msgspec.Meta(extra_json_schema={"anyOf": [inner, {"type": "null"}]})]
    return hint | None
