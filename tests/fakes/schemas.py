"""The part of JSON Schema 2020-12 that the OpenAPI document uses, checked strictly.

A keyword that is not known here is an error, so that nothing is silently not checked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

Schema = Mapping[str, object]

TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "boolean": (bool,),
    "object": (dict,),
    "array": (list,),
    "null": (type(None),),
}
SILENT = {"description", "examples", "format", "contentEncoding", "discriminator"}


def problems_of(
    value: object, schema: object, root: Mapping[str, object], at: str = "$"
) -> Iterator[str]:
    """Yield what is wrong about a value."""
    assert isinstance(schema, Mapping), f"{at}: no schema"
    if "$ref" in schema:
        assert set(schema) == {"$ref"}, at
        yield from problems_of(value, resolve(schema["$ref"], root), root, at)
        return
    for keyword, wanted in schema.items():
        if keyword in SILENT:
            continue
        yield from KEYWORDS[keyword](value, wanted, schema, root, at)


def resolve(reference: object, root: Mapping[str, object]) -> Schema:
    """Return what a local reference points to."""
    assert isinstance(reference, str)
    assert reference.startswith("#/"), reference
    found: object = root
    for part in reference[2:].split("/"):
        assert isinstance(found, Mapping), reference
        assert part in found, reference
        found = found[part]
    assert isinstance(found, Mapping), reference
    return found


Keyword = Callable[[object, object, Schema, Mapping[str, object], str], Iterator[str]]


def _type(
    value: object, wanted: object, _s: Schema, _r: Mapping[str, object], at: str
) -> Iterator[str]:
    names = wanted if isinstance(wanted, list) else [wanted]
    kinds = tuple(kind for name in names for kind in TYPES[str(name)])
    fits = isinstance(value, kinds)
    if isinstance(value, bool) and bool not in kinds:
        fits = False
    if not fits:
        yield f"{at}: {type(value).__name__}, expected {wanted}"


def _const(
    value: object, wanted: object, _s: Schema, _r: Mapping[str, object], at: str
) -> Iterator[str]:
    if value != wanted:
        yield f"{at}: {value!r}, expected {wanted!r}"


def _enum(
    value: object, wanted: object, _s: Schema, _r: Mapping[str, object], at: str
) -> Iterator[str]:
    assert isinstance(wanted, list)
    if value not in wanted:
        yield f"{at}: {value!r}, expected one of {wanted}"


def _pattern(
    value: object, wanted: object, _s: Schema, _r: Mapping[str, object], at: str
) -> Iterator[str]:
    if isinstance(value, str) and not re.search(str(wanted), value):
        yield f"{at}: {value[:60]!r} does not match {wanted}"


def _bound(
    measure: Callable[[object], int | None], fits: Callable[[int, int], bool]
) -> Keyword:
    def check(
        value: object, wanted: object, _s: Schema, _r: Mapping[str, object], at: str
    ) -> Iterator[str]:
        assert isinstance(wanted, int)
        found = measure(value)
        if found is not None and not fits(found, wanted):
            yield f"{at}: {found}, bound {wanted}"

    return check


def _length(value: object) -> int | None:
    return len(value) if isinstance(value, (str, list)) else None


def _number(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _properties(
    value: object, wanted: object, _s: Schema, root: Mapping[str, object], at: str
) -> Iterator[str]:
    assert isinstance(wanted, Mapping)
    for name, schema in wanted.items():
        if isinstance(value, dict) and name in value:
            yield from problems_of(value[name], schema, root, f"{at}.{name}")


def _required(
    value: object, wanted: object, _s: Schema, _r: Mapping[str, object], at: str
) -> Iterator[str]:
    assert isinstance(wanted, list)
    for name in wanted:
        if isinstance(value, dict) and name not in value:
            yield f"{at}: no {name}"


def _additional(
    value: object, wanted: object, schema: Schema, root: Mapping[str, object], at: str
) -> Iterator[str]:
    known = schema.get("properties", {})
    assert isinstance(known, Mapping)
    for name in set(value if isinstance(value, dict) else ()) - set(known):
        assert isinstance(value, dict)
        if wanted is False:
            yield f"{at}: unknown member {name}"
        else:
            yield from problems_of(value[name], wanted, root, f"{at}.{name}")


def _items(
    value: object, wanted: object, _s: Schema, root: Mapping[str, object], at: str
) -> Iterator[str]:
    for place, element in enumerate(value if isinstance(value, list) else []):
        yield from problems_of(element, wanted, root, f"{at}[{place}]")


def _unique(
    value: object, wanted: object, _s: Schema, _r: Mapping[str, object], at: str
) -> Iterator[str]:
    elements = value if isinstance(value, list) else []
    if wanted and len({repr(one) for one in elements}) != len(elements):
        yield f"{at}: one element twice"


def _one_of(
    value: object, wanted: object, _s: Schema, root: Mapping[str, object], at: str
) -> Iterator[str]:
    assert isinstance(wanted, list)
    fitting = [one for one in wanted if not list(problems_of(value, one, root, at))]
    if len(fitting) != 1:
        yield f"{at}: fits {len(fitting)} of {len(wanted)}"


KEYWORDS: Mapping[str, Keyword] = {
    "type": _type,
    "const": _const,
    "enum": _enum,
    "pattern": _pattern,
    "minLength": _bound(_length, lambda found, bound: found >= bound),
    "maxLength": _bound(_length, lambda found, bound: found <= bound),
    "minItems": _bound(_length, lambda found, bound: found >= bound),
    "maxItems": _bound(_length, lambda found, bound: found <= bound),
    "minimum": _bound(_number, lambda found, bound: found >= bound),
    "properties": _properties,
    "required": _required,
    "additionalProperties": _additional,
    "items": _items,
    "uniqueItems": _unique,
    "oneOf": _one_of,
}
