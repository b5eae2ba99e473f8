"""May a JSON Schema take the place of an older one? Backward: whoever reads by the new one reads all that was written by the old one.

That relation is transitive, so holding every change to it against the one before holds it against all before
(BACKWARD_TRANSITIVE). Records are closed (`additionalProperties: false`), so a new optional field is allowed.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Schema: TypeAlias = dict[str, Any]

_LOWER = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_UPPER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_EXACT = ("pattern", "format", "multipleOf", "uniqueItems", "contentEncoding")
_BOUNDED = {
    "string": ("minLength", "maxLength", "pattern", "format", "contentEncoding"),
    "array": ("minItems", "maxItems", "uniqueItems"),
    "object": ("minProperties", "maxProperties"),
    "integer": ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "multipleOf"),
    "number": ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "multipleOf"),
}
_TYPES: dict[type, str] = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}


def incompatibilities(old: Schema, new: Schema) -> list[str]:
    """Return one sentence per place where a value of the old schema is none of the new one: its path, and why."""
    return list(dict.fromkeys(_Comparison(old, new).schemas(old, new, "$")))


@dataclass
class _Comparison:
    """Two whole schemas, for their $ref, and the pairs of definitions under comparison, for those that recur."""

    old: Schema
    new: Schema
    open: set[tuple[str, str]] = field(default_factory=set)

    def schemas(self, old: Any, new: Any, path: str) -> Iterator[str]:
        """Yield what keeps values of old from being values of new."""
        pair = (_ref(old), _ref(new))
        if all(pair) and pair in self.open:
            return
        self.open.add(pair)
        wider = list(_alternatives(new, self.new))
        for narrow in _alternatives(old, self.old):
            yield from self._fits(narrow, wider, path)
        self.open.discard(pair)

    def _fits(self, old: Schema, wider: list[Schema], path: str) -> Iterator[str]:
        """Yield nothing if one of the alternatives takes all values of old, else what the likest one has against it."""
        name = _name(old)
        path = f"{path}<{name}>" if name and len(wider) > 1 else path
        tried = [(new, list(self._alternative(old, new, path))) for new in wider]
        if not all(problems for _, problems in tried):
            return
        likest = [problems for new, problems in tried if len(tried) == 1 or (name and _name(new) == name)]
        yield from likest[0] if likest else [f"{path}: {_said(old)} is not allowed any more"]

    def _alternative(self, old: Schema, new: Schema, path: str) -> Iterator[str]:
        """Yield what keeps values of old from being values of new, neither of them a union."""
        if "const" in new and ("const" not in old or not _same(old["const"], new["const"])):
            yield f"{path}: {_said(old)} is not allowed any more"
        elif not _type_fits(old.get("type"), new.get("type")):
            yield f"{path}: {_said(old)} is not allowed any more, only {_said(new)}"
        else:
            yield from self._inside(old, new, path)

    def _inside(self, old: Schema, new: Schema, path: str) -> Iterator[str]:
        yield from _const_bounds(old, new, path) if "const" in old else _bounds(old, new, path)
        if new.get("type") == "object":
            yield from self._objects(old, new, path)
        elif new.get("type") == "array":
            yield from self._arrays(old, new, path)

    def _objects(self, old: Schema, new: Schema, path: str) -> Iterator[str]:
        before, after = old.get("properties", {}), new.get("properties", {})
        rest_before, rest_after = old.get("additionalProperties", True), new.get("additionalProperties", True)
        for name in sorted(set(new.get("required", ())) - set(old.get("required", ()))):
            yield f"{path}.{name}: " + ("an optional field became required" if name in before else "a required field was added")
        for name in sorted({*before, *after}):
            was, now = before.get(name, rest_before), after.get(name, rest_after)
            if now is False and was is not False:
                yield f"{path}.{name}: the field was removed"
            elif was is not False:
                yield from self.schemas(was, now, f"{path}.{name}")
        yield from self._rest(rest_before, rest_after, f"{path}.*")
        yield from self._rest(old.get("propertyNames", {}), new.get("propertyNames", {}), f"{path}.* (keys)")

    def _arrays(self, old: Schema, new: Schema, path: str) -> Iterator[str]:
        before, after = old.get("prefixItems", []), new.get("prefixItems", [])
        rest_before, rest_after = old.get("items", True), new.get("items", True)
        for index in range(max(len(before), len(after))):
            was = before[index] if index < len(before) else rest_before
            now = after[index] if index < len(after) else rest_after
            yield from self._rest(was, now, f"{path}[{index}]")
        yield from self._rest(rest_before, rest_after, f"{path}[]")

    def _rest(self, old: Any, new: Any, path: str) -> Iterator[str]:
        """Compare schemas that may be true (anything) or false (nothing)."""
        if new is False and old is not False:
            yield f"{path}: nothing is allowed here any more"
        elif old is not False:
            yield from self.schemas(old, new, path)


def _ref(schema: Any) -> str:
    return str(schema.get("$ref", "")) if isinstance(schema, dict) else ""


def _alternatives(schema: Any, root: Schema) -> Iterator[Schema]:
    """Yield the schemas of which a value has to fit one: unions, lists of types and enumerations taken apart."""
    if not isinstance(schema, dict):
        yield {}
    elif "$ref" in schema:
        yield from _alternatives(root["$defs"][schema["$ref"].rsplit("/", 1)[-1]], root)
    elif union := schema.get("anyOf") or schema.get("oneOf"):
        for member in union:
            yield from _alternatives(member, root)
    elif "enum" in schema:
        yield from ({"const": value, "type": _TYPES[type(value)]} for value in schema["enum"])
    elif isinstance(schema.get("type"), list):
        yield from ({**schema, "type": name} for name in schema["type"])
    elif "const" in schema:
        yield {"type": _TYPES[type(schema["const"])], **schema}
    else:
        yield schema


def _name(schema: Schema) -> str | None:
    """Return what tells one member of a union from the others: its discriminator, else its title."""
    if schema.get("type") != "object":
        return None
    tag = schema.get("properties", {}).get("type", {})
    return str(tag["const"]) if "const" in tag else schema.get("title")


def _type_fits(old: str | None, new: str | None) -> bool:
    return new is None or old == new or (old, new) == ("integer", "number")


def _same(old: Any, new: Any) -> bool:
    return type(old) is type(new) and bool(old == new)


def _said(schema: Schema) -> str:
    """Return a schema in words."""
    return repr(schema["const"]) if "const" in schema else _name(schema) or str(schema.get("type", "any value"))


def _bounds(old: Schema, new: Schema, path: str) -> Iterator[str]:
    kinds = (new["type"],) if "type" in new else tuple(_BOUNDED)
    for key in sorted({key for kind in kinds for key in _BOUNDED.get(kind, ())}):
        was, now = old.get(key), new.get(key)
        narrower = now is not None and (
            was is None
            or (key in _LOWER and now > was)
            or (key in _UPPER and now < was)
            or (key in _EXACT and now != was)
        )
        if narrower:
            yield f"{path}: {key} went from {'none' if was is None else was} to {now}"


def _const_bounds(old: Schema, new: Schema, path: str) -> Iterator[str]:
    """A single value needs only to lie within the bounds; pattern and format are taken to refuse it."""
    value = old["const"]
    if isinstance(value, str):
        within = new.get("minLength", 0) <= len(value) <= new.get("maxLength", len(value)) and not {"pattern", "format"} & set(new)
    elif isinstance(value, int | float):
        within = new.get("minimum", value) <= value <= new.get("maximum", value)
    else:
        within = True
    if not within:
        yield f"{path}: {value!r} is outside of the new bounds"
