"""Which execution and step the running code belongs to, and how that travels between services."""

from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

from flowchain.ids import trace_id

MAX_NAME = 128
CONTROLS = dict.fromkeys([*range(0x20), 0x7F], "\N{REPLACEMENT CHARACTER}")
"""What the contract refuses in names and ids, and what stands for it."""
MAX_ID = 64
_PREFIX = "flowchain-"

Headers = Mapping[str, str | bytes] | Iterable[tuple[str, str | bytes | None]]


class Flow(NamedTuple):
    """One execution of a chain, and for whom it runs."""

    chain: str
    execution: str
    tenant: str
    user: str | None = None
    tier: str | None = None
    version: str | None = None

    def fields(self) -> dict[str, Any]:
        """Return what every event of the execution carries."""
        fields: dict[str, Any] = {"chain": self.chain, "execution": self.execution, "tenant": self.tenant}
        if self.user is not None:
            fields["user"] = self.user
        if self.tier is not None:
            fields["tier"] = self.tier
        if self.version is not None:
            fields["chain_version"] = self.version
        return fields


class Context(NamedTuple):
    """A place in an execution: the step's span, or no span at the execution itself."""

    flow: Flow
    fields: dict[str, Any]
    span: str | None = None
    component: str | None = None
    step: str | None = None

    def parent(self, execution: str) -> dict[str, str] | None:
        """Return this step as the parent of a step of `execution`; None where there is no step."""
        if self.span is None:
            return None
        parent = {"span": self.span}
        if self.component is not None:
            parent["component"] = self.component
        if self.flow.execution != execution:
            parent["execution"] = self.flow.execution
        return parent


current: ContextVar[Context | None] = ContextVar("flowchain", default=None)


def name(value: object, limit: int = MAX_NAME) -> str:
    """Return `value` as the contract wants a name: a string of 1 to `limit` characters, none of them a control character."""
    text = value if isinstance(value, str) else str(value)
    if not text.isprintable():
        text = text.translate(CONTROLS)
    return text[:limit] or "unknown"


def optional_name(value: object | None) -> str | None:
    """Return `value` as a name, or None where it is None or empty."""
    return None if value is None or value == "" else name(value)


def to_headers(context: Context) -> dict[str, str]:
    """Return the headers that carry `context`: W3C traceparent and flowchain-*; values are visible ASCII."""
    flow = context.flow
    values = {
        "chain": flow.chain,
        "execution": flow.execution,
        "tenant": flow.tenant,
        "user": flow.user,
        "tier": flow.tier,
        "version": flow.version,
        "span": context.span,
        "component": context.component,
    }
    headers = {_PREFIX + key: _quoted(value) for key, value in values.items() if value is not None}
    if context.span is not None:
        headers["traceparent"] = f"00-{trace_id(flow.execution)}-{context.span}-01"
    return headers


def from_headers(headers: Headers) -> Context | None:
    """Return the context that `headers` carry (HTTP or Kafka; any case), or None where there is none."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    values = {key.lower(): _text(value) for key, value in pairs if value}
    chain, execution = values.get(_PREFIX + "chain"), values.get(_PREFIX + "execution")
    if not chain or not execution:
        return None
    flow = Flow(
        name(chain),
        name(execution, MAX_ID),
        name(values.get(_PREFIX + "tenant") or "default"),
        optional_name(values.get(_PREFIX + "user")),
        optional_name(values.get(_PREFIX + "tier")),
        _version(values.get(_PREFIX + "version")),
    )
    component = optional_name(values.get(_PREFIX + "component"))
    return Context(flow, flow.fields(), _span(values), component)


def version_name(value: object | None) -> str | None:
    """Return a chain's version as the contract wants it: at most 64 characters."""
    return None if value is None or value == "" else name(value, MAX_ID)


_version = version_name


def _span(values: Mapping[str, str]) -> str | None:
    """Ours, else the one of traceparent, which a proxy in between may have set."""
    span = values.get(_PREFIX + "span")
    if span:
        return name(span, MAX_ID)
    parts = values.get("traceparent", "").split("-")
    return parts[2] if len(parts) >= 4 and len(parts[2]) == 16 else None


def _quoted(value: str) -> str:
    plain = value.isascii() and value.isprintable() and "%" not in value
    return value if plain else quote(value, safe=" ", errors="replace")


def _text(value: str | bytes | None) -> str:
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return unquote(text) if "%" in text else text
