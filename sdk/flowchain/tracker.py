"""What a service reports, event by event. Nothing here raises into the host or waits."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple, Protocol

import orjson

from flowchain.classify import UNKNOWN, category_of
from flowchain.clock import Clock, SystemClock
from flowchain.context import (
    MAX_ID,
    Context,
    Flow,
    Headers,
    current,
    from_headers,
    name,
    optional_name,
    version_name,
)
from flowchain.counts import Counts
from flowchain.ids import Ids
from flowchain.metrics import FlowMetricsCollector
from flowchain.sampling import Sampler

MAX_MESSAGE = 2048
MAX_TEMPLATE = 512
MAX_PARENTS = 256
MAX_ATTRIBUTES = 32
MAX_EVENT_BYTES = 262_144
"""The pipeline refuses a larger one: large values of attributes."""

Level = Literal["trace", "debug", "info", "warn", "error", "fatal"]
_LEVELS = {"warning": "warn", "critical": "fatal"}
_KNOWN_LEVELS = frozenset(("trace", "debug", "info", "warn", "error", "fatal"))


class Outlet(Protocol):
    """Where a tracker puts its events: a Publisher, or what stands before one."""

    counts: Counts

    def publish(self, key: bytes, value: bytes) -> None:
        """Queue one event; must not wait."""


class Failure(NamedTuple):
    """What is said of an error."""

    error_type: str
    message: str | None = None
    category: str | None = None

    def fields(self) -> dict[str, str]:
        """Return the fields of an event that failed."""
        fields = {"error_type": name(self.error_type)}
        if self.message:
            fields["error_message"] = self.message[:MAX_MESSAGE]
        if self.category:
            fields["error_category"] = name(self.category)
        return fields


class Tracker:
    """Reports as one service. `outlet` None: everything is accepted and nothing sent.

    The low-level half: contexts are passed in and given back. The context managers of `flowchain.spans` stand on it, and
    so does whoever has no call stack to hang a `with` on (a simulator, a callback framework).
    """

    def __init__(
        self,
        service: str,
        outlet: Outlet | None,
        clock: Clock | None = None,
        *,
        ids: Ids | None = None,
        tenant: str = "default",
    ) -> None:
        self.service = name(service)
        self.outlet = outlet
        self.clock: Clock = clock or SystemClock()
        self.ids = ids or Ids(self.clock)
        self.tenant = name(tenant)
        self.sampler: Sampler | None = None
        self.metrics: FlowMetricsCollector | None = None

    def new_flow(
        self,
        chain: str,
        *,
        execution: str | None = None,
        tenant: str | None = None,
        user: str | None = None,
        tier: str | None = None,
        version: str | None = None,
    ) -> Context:
        """Return the context of a new execution of `chain`; nothing is emitted yet."""
        flow = Flow(
            name(chain),
            name(execution, MAX_ID) if execution else self.ids.execution(),
            name(tenant) if tenant else self.tenant,
            optional_name(user),
            optional_name(tier),
            version_name(version),
        )
        return Context(flow, flow.fields())

    def execution_started(self, context: Context, *, attributes: Mapping[str, object] | None = None) -> None:
        """Report that the execution of `context` began."""
        self._emit_execution(context, {"type": "execution.started"}, None, attributes)

    def execution_completed(self, context: Context, *, duration_us: int | None = None) -> None:
        """Report that the execution ended well; its duration where this service saw the beginning."""
        self._emit_execution(context, {"type": "execution.completed"}, duration_us)
        if self.metrics is not None:
            self.metrics.chain(context.flow.chain, "completed", duration_us)

    def execution_failed(
        self,
        context: Context,
        error_type: str,
        message: str | None = None,
        category: str | None = None,
        *,
        duration_us: int | None = None,
    ) -> None:
        """Report that the execution ended badly."""
        failure = Failure(error_type, message, category)
        self._emit_execution(context, {"type": "execution.failed", **failure.fields()}, duration_us)
        if self.metrics is not None:
            self.metrics.chain(context.flow.chain, "failed", duration_us)

    def entered(self, context: Context) -> None:
        """Note that this process works on an execution from now on."""
        if self.sampler is not None:
            self.sampler.enter(context.flow.execution)

    def left(self, context: Context) -> None:
        """Note that it works on it no more: what is still held of it is decided."""
        if self.sampler is not None:
            self.sampler.leave(context.flow.execution)

    def _emit_execution(
        self,
        context: Context,
        event: dict[str, Any],
        duration_us: int | None,
        attributes: Mapping[str, object] | None = None,
    ) -> None:
        if duration_us is not None:
            event["duration_us"] = max(0, duration_us)
        if attributes:
            event["attributes"] = clean_attributes(attributes)
        event |= context.fields
        event["component"] = self.service
        event["time_unix_us"] = self.clock.now_us()
        self.emit(context.flow.execution, event)

    def log(self, level: str, template: str, *, context: Context | None = None) -> None:
        """Report a log statement: its level and its identity (code location, or the text without values)."""
        level = _LEVELS.get(level.lower(), level.lower())
        event: dict[str, Any] = {
            "type": "log.observed",
            "component": self.service,
            "level": level if level in _KNOWN_LEVELS else "info",
            "template": name(template, MAX_TEMPLATE),
            "time_unix_us": self.clock.now_us(),
            "tenant": self.tenant,
        }
        if context is not None:
            event |= {
                "tenant": context.flow.tenant,
                "chain": context.flow.chain,
                "execution": context.flow.execution,
            }
            if context.step is not None:
                event |= {"step": context.step, "span": context.span}
        self.emit(context.flow.execution if context else self.service, event)

    def sample(self, *, instance: str | None = None, **measured: float | None) -> None:
        """Report what the service uses now; see `flowchain.sample` for the names."""
        event: dict[str, Any] = {
            "type": "resource.sampled",
            "component": self.service,
            "time_unix_us": self.clock.now_us(),
            "tenant": self.tenant,
        }
        if instance:
            event["instance"] = name(instance)
        event.update((key, value) for key, value in measured.items() if value is not None)
        self.emit(self.service, event)

    def emit(self, key: str, event: dict[str, Any]) -> None:
        """Report one event, at once or when its execution's detail is decided on."""
        if self.sampler is None:
            self.send(key, event)
        else:
            self._emit_sampled(self.sampler, key, event)

    def _emit_sampled(self, sampler: Sampler, key: str, event: dict[str, Any]) -> None:
        try:
            sampler.emit(key, event)
        except Exception as error:  # noqa: BLE001 - without sampling then
            self.guard("internal_error", error)
            self.send(key, event)

    def send(self, key: str, event: Mapping[str, Any]) -> None:
        """Encode one event and queue it; what cannot be encoded is counted as `encode_error`."""
        outlet = self.outlet
        if outlet is None:
            return
        try:
            value = orjson.dumps(event)
            if len(value) > MAX_EVENT_BYTES:
                outlet.counts.drop("oversize", f"an event of {len(value)} bytes")
                return
            outlet.publish(key.encode(), value)
        except (TypeError, ValueError) as error:
            self.guard("encode_error", error)
        except Exception as error:  # noqa: BLE001 - the host goes on
            self.guard("publish_error", error)

    def guard(self, reason: str, error: object) -> None:
        """Count an event that could not be made. The last resort: it raises nothing, whatever is broken."""
        try:
            if self.outlet is not None:
                self.outlet.counts.drop(reason, error)
        except Exception:  # noqa: BLE001 - not even counting works, or the host's logging
            pass

    def extract(self, headers: Headers) -> Context | None:
        """Return the context in `headers`, None where there is none or it cannot be read (counted)."""
        try:
            return from_headers(headers)
        except Exception as error:  # noqa: BLE001 - the host goes on
            self.guard("headers_error", error)
            return None


def clean_attributes(attributes: Mapping[str, object]) -> dict[str, str | bool | int | float]:
    """Return at most 32 attributes, with values that are not scalars as text."""
    items = list(attributes.items())[:MAX_ATTRIBUTES]
    return {name(key): value if _is_scalar(value) else str(value) for key, value in items}  # type: ignore[misc]


def _is_scalar(value: object) -> bool:
    if isinstance(value, int):  # bool too
        return -(2**63) <= value < 2**63
    if isinstance(value, float):
        return value - value == 0  # JSON has neither NaN nor infinity
    return isinstance(value, str)


def parent_references(execution: str, parents: Iterable[Context | None]) -> list[dict[str, str]]:
    """Return the references to `parents` from a step of `execution`, without repetitions, at most 256."""
    references: dict[tuple[str, str], dict[str, str]] = {}
    for context in parents:
        reference = context.parent(execution) if context is not None else None
        if context is not None and reference is not None:
            references[context.flow.execution, reference["span"]] = reference
    return list(references.values())[:MAX_PARENTS]


def here() -> Context | None:
    """Return the context of the running code."""
    return current.get()


def failure_of(error: BaseException) -> Failure:
    """Return what is said of an error of the host; its own `__str__` may be broken, and so may what it is made of."""
    try:
        category = category_of(error)
    except Exception:  # noqa: BLE001 - the type has to do
        category = UNKNOWN
    try:
        message = str(error)
    except Exception:  # noqa: BLE001 - the type has to do
        message = ""
    return Failure(type(error).__name__, message, category)
