"""Mapping files: which values of a record that is no event of ours are the execution, the step, the time.

Values are found by JMESPath, in the record as JSON. A record may match several mappings, and becomes an event by each.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

import jmespath
import orjson
from jmespath.exceptions import JMESPathError
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from connectors.definition_files import FileProblem, FilesRefused, read_file
from connectors.located import Place
from schemas.base import TopicName
from schemas.definitions import problems_of

Kind = Literal["step.started", "step.completed", "step.failed", "execution.started", "execution.completed", "execution.failed"]
TextField = Literal["chain", "execution", "tenant", "component", "id", "user", "tier", "chain_version", "step", "span", "error_type", "error_message"]
Scale = Literal["iso", "unix_s", "unix_ms", "unix_us"]
_SCALES: dict[str, int] = {"unix_s": 1_000_000, "unix_ms": 1_000, "unix_us": 1}
_DURATIONS: dict[str, int] = {"duration_s": 1_000_000, "duration_ms": 1_000, "duration_us": 1}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FAILED = {"step.completed": "step.failed", "execution.completed": "execution.failed"}
DEFAULT_ERROR = "error"


def _expression(text: str) -> str:
    try:
        jmespath.compile(text)
    except JMESPathError as error:
        raise ValueError(f"no JMESPath: {str(error).splitlines()[0]}") from error
    return text


Expression = Annotated[str, Field(min_length=1, max_length=1024), AfterValidator(_expression)]


class Values(BaseModel):
    """Where the values of an event's fields are."""

    model_config = ConfigDict(extra="forbid")
    chain: Expression | None = None
    execution: Expression
    step: Expression | None = None
    time: Expression | None = Field(None, description="of the record where left out")
    tenant: Expression | None = None
    component: Expression | None = None
    id: Expression | None = None
    user: Expression | None = None
    tier: Expression | None = None
    chain_version: Expression | None = None
    span: Expression | None = None
    parent: Expression | None = Field(None, description="span that caused it")
    attempt: Expression | None = None
    duration_us: Expression | None = None
    duration_ms: Expression | None = None
    duration_s: Expression | None = None
    error_type: Expression | None = None
    error_message: Expression | None = None


class TopicMapping(BaseModel):
    """How records of a topic become events of one type."""

    model_config = ConfigDict(extra="forbid")
    topic: TopicName
    type: Kind
    when: Expression | None = Field(None, description="only records of which this is true")
    failed_when: Expression | None = Field(None, description="it failed where this is true")
    set: dict[TextField, Annotated[str, Field(min_length=1)]] = Field(default_factory=dict, description="the same for every record")
    take: Values = Field(description="expressions")
    time: Scale = Field("iso", description="what the time is in; iso: RFC 3339, UTC where it has no offset")
    attributes: dict[Annotated[str, Field(min_length=1, max_length=128)], Expression] = Field(default_factory=dict, max_length=32)

    @model_validator(mode="after")
    def _has_what_an_event_needs(self) -> "TopicMapping":
        needed = ("chain", "step") if self.type.startswith("step.") else ("chain",)
        for name in needed:
            if name not in self.set and getattr(self.take, name) is None:
                raise ValueError(f"{name} is neither in set nor in take")
        return self


_FILE: TypeAdapter[TopicMapping] = TypeAdapter(TopicMapping)


class NoValue(ValueError):
    """A record that cannot become an event: which field, and why, without a value."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")


@dataclass(frozen=True)
class Mapper:
    """Makes events of the records of one topic; raises NoValue."""

    mappings: tuple["_Compiled", ...]

    def events(self, record: Any, record_us: int) -> list[dict[str, Any]]:
        """Return the events of a record, none where it matches no mapping; `record_us` is the time of the record itself."""
        return [mapping.event(record, record_us) for mapping in self.mappings if mapping.matches(record)]


def read_mappings(file: Path) -> dict[str, Mapper]:
    """Return {topic: what makes events of its records}; raises FilesRefused with file, line and field of all that is wrong."""
    problems: list[FileProblem] = []
    found: dict[str, list[_Compiled]] = {}
    for document in read_file(file):
        parts = [document.part(index) for index in range(len(document.value))] if isinstance(document.value, list) else [document]
        for part in parts:
            try:
                mapping = _FILE.validate_json(orjson.dumps(part.value))
            except ValidationError as error:
                problems += [FileProblem(file, part.line(field), _dotted(field), reason) for field, reason in problems_of(error)]
            else:
                found.setdefault(mapping.topic, []).append(_Compiled(mapping))
    if problems:
        raise FilesRefused(problems)
    return {topic: Mapper(tuple(mappings)) for topic, mappings in found.items()}


def _dotted(field: Place) -> str:
    """Return a place as a person reads it; of a key that is not allowed the key."""
    return ".".join(str(part) for part in field if part != "[key]") or "mapping"


class _Compiled:
    """A mapping whose expressions are compiled."""

    def __init__(self, mapping: TopicMapping) -> None:
        self._mapping = mapping
        self._set = {str(name): value for name, value in mapping.set.items()}
        given = mapping.take.model_dump(exclude_none=True)
        self._values = {name: _search(name, text) for name, text in given.items()}
        self._when = _search("when", mapping.when) if mapping.when else None
        self._failed = _search("failed_when", mapping.failed_when) if mapping.failed_when else None
        self._attributes = {name: _search(f"attributes.{name}", text) for name, text in mapping.attributes.items()}

    def matches(self, record: Any) -> bool:
        return self._when is None or bool(self._when(record))

    def event(self, record: Any, record_us: int) -> dict[str, Any]:
        mapping = self._mapping
        kind = _FAILED.get(mapping.type, mapping.type) if self._failed is not None and self._failed(record) else mapping.type
        event: dict[str, Any] = {"type": kind, **self._set, "time_unix_us": record_us}
        for name, value in self._found(record):
            event |= _field(name, value, mapping.time)
        if "execution" not in event:
            raise NoValue("execution", "its expression gives nothing")
        if kind.endswith(".failed"):
            event.setdefault("error_type", DEFAULT_ERROR)
        else:
            event = {name: value for name, value in event.items() if name not in ("error_type", "error_message")}
        attributes = {name: value for name, search in self._attributes.items() if (value := search(record)) is not None}
        return event | ({"attributes": {name: _plain(value) for name, value in attributes.items()}} if attributes else {})

    def _found(self, record: Any) -> Iterator[tuple[str, Any]]:
        for name, search in self._values.items():
            value = search(record)
            if value is not None and value != "":
                yield name, value
            elif name in ("time", "chain", "step") and name not in self._mapping.set:
                raise NoValue(name, "its expression gives nothing")


def _search(name: str, text: str) -> Callable[[Any], Any]:
    compiled = jmespath.compile(text)

    def search(record: Any) -> Any:
        try:
            return compiled.search(record)
        except JMESPathError as error:
            raise NoValue(name, "its expression does not fit the record") from error

    return search


def _field(name: str, value: Any, scale: str) -> Mapping[str, Any]:
    """Return what a value is in an event."""
    if name == "time":
        return {"time_unix_us": _time_us(value, scale)}
    if name in _DURATIONS:
        return {"duration_us": round(_number(name, value) * _DURATIONS[name])}
    if name == "attempt":
        return {"attempt": round(_number(name, value))}
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise NoValue(name, "is neither a text nor a number")
    text = str(value)
    return {"parents": [{"span": text}]} if name == "parent" else {name: text}


def _time_us(value: Any, scale: str) -> int:
    if scale != "iso":
        return round(_number("time", value) * _SCALES[scale])
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise NoValue("time", "is no time of RFC 3339") from error
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH) // timedelta(microseconds=1)


def _number(name: str, value: Any) -> float | int:
    try:
        found: float | int = value if isinstance(value, int) and not isinstance(value, bool) else float(value)
        if abs(found) < 1e18:
            return found
    except (TypeError, ValueError):
        pass  # told below
    raise NoValue(name, "is no number")


def _plain(value: Any) -> Any:
    """Return a value as an attribute holds it: lists and objects as JSON text."""
    return value if isinstance(value, (str, bool, int, float)) else orjson.dumps(value).decode()
