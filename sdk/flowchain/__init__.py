"""FlowChain SDK: reports the steps of business chains; never blocks, slows or breaks its host.

    flowchain.init(service="payments", bootstrap_servers="kafka:9092")

    with flowchain.execution("order_to_cash", user="u1", tier="pro", tenant="acme"):
        with flowchain.step("validate"):
            ...

Nothing here raises because of the SDK itself: what could not be reported is counted (`stats`) and said once per reason
through the logger `flowchain`. Before `init` everything may be called and nothing is sent.
"""

import atexit
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, overload

from flowchain import records
from flowchain.channels import (
    Channel,
    FileChannel,
    HttpChannel,
    KafkaChannel,
    LogChannel,
    MakeChannel,
    MemoryChannel,
    WebSocketChannel,
)
from flowchain.classify import CATEGORIES, classify
from flowchain.clock import Clock, SystemClock
from flowchain.context import Context, Headers, name, to_headers
from flowchain.counts import Counts, logger
from flowchain.fanout import Fanout
from flowchain.ids import Ids
from flowchain.metrics import FlowMetricsCollector
from flowchain.publisher import Publisher, Stats
from flowchain.settings import Settings
from flowchain.spans import NOTHING, Carried, Consumed, Continued, Execution, F, Scope, Step, StepOptions
from flowchain.starting import begin, channel_makers
from flowchain.tracker import Outlet, Tracker, here

if TYPE_CHECKING:
    from pathlib import Path

    from flowchain.chains import execute_business_workflow, execute_chain, execute_user_chain, register_chain
    from flowchain.plan import fetch_definition
    from flowchain.results import ChainExecution, Retry, StepResult, UserContext
    from flowchain.runner import ChainRunner

__all__ = [
    "CATEGORIES", "ChainContextManager", "ChainEventPublisher", "ChainExecution", "ChainRunner", "Channel", "Clock",
    "Consumed", "Context", "Counts", "Execution", "FileChannel", "FlowMetricsCollector", "FlowTracker",
    "HttpChannel", "Ids", "KafkaChannel", "LogChannel", "MemoryChannel", "Outlet", "Publisher", "Retry", "Stats",
    "Step", "StepOptions", "StepResult", "SystemClock", "Tracker", "UserContext", "WebSocketChannel", "carry",
    "classify", "complete", "consumed", "continued", "current", "execute_business_workflow", "execute_chain",
    "execute_user_chain", "execution", "extract", "fail", "fetch_definition", "init", "inject", "instrument",
    "joined", "log", "register_chain", "sample", "shutdown", "stats", "step",
]  # fmt: skip

T = TypeVar("T")
FlowTracker, ChainContextManager, ChainEventPublisher = Tracker, Scope, Publisher
"""The names that FlowChain's concept has for them."""
EXIT_TIMEOUT_S = 5.0
_tracker = Tracker("unknown", None)
_publisher: Publisher | Fanout | None = None
_LAZY = {
    "ChainRunner": "flowchain.runner",
    "fetch_definition": "flowchain.plan",
    **dict.fromkeys(("ChainExecution", "Retry", "StepResult", "UserContext"), "flowchain.results"),
    **dict.fromkeys(
        ("execute_business_workflow", "execute_chain", "execute_user_chain", "register_chain"), "flowchain.chains"
    ),
}
"""What is imported when it is first used: asyncio and thread pools are dear."""


def __getattr__(attribute: str) -> Any:
    if attribute not in _LAZY:
        raise AttributeError(f"module 'flowchain' has no attribute {attribute!r}")
    import importlib

    return getattr(importlib.import_module(_LAZY[attribute]), attribute)


def init(
    service: str | None = None,
    bootstrap_servers: str | None = None,
    tenant: str | None = None,
    topic: str | None = None,
    topic_prefix: str | None = None,
    queue_size: int | None = None,
    *,
    queue_bytes: int | None = None,
    channel: str | MakeChannel | Sequence[str | MakeChannel] | None = None,
    url: str | None = None,
    api_key: str | None = None,
    file: "str | Path | None" = None,
    sample_rate: float | None = None,
    slow_ms: float | None = None,
    metrics: str | None = None,
    **kafka: Any,
) -> None:
    """Begin to report as `service`; call it once, again only to change something.

    What is left out is taken from FLOWCHAIN_SERVICE and so on, else by default (`flowchain.settings.Settings`). It opens no
    connection here, so a wrong address shows in the log and in `stats` only.

    `channel`: `kafka`, `http`, `websocket`, `file`, `log`, several of them with commas or in a list; or a function that is
    given the `Counts` and returns a `Channel`. `url`, `api_key`: of the API, for `http` and `websocket`. `kafka`: further librdkafka
    settings, `_` for `.` (`security_protocol="SASL_SSL"`). `queue_size` and `queue_bytes`: events held per channel while it is
    slow; beyond either the oldest are dropped. `sample_rate`, `slow_ms`: see `flowchain.sampling`. `metrics`: `prometheus` or
    `opentelemetry`.
    """
    global _publisher
    given = {key: value for key, value in locals().items() if key not in ("kafka", "channel")}
    shutdown(0.0 if _publisher is None else 1.0)
    try:
        settings = Settings.of(given)
        _tracker.service, _tracker.tenant = name(settings.service), name(settings.tenant)
        if settings.disabled:
            return
        makers = channel_makers(settings, settings.channel if channel is None else channel, kafka)
        _publisher = begin(_tracker, settings, makers)
    except Exception as error:  # noqa: BLE001 - the host goes on, and nothing is sent
        _tracker.outlet = None
        _guarded(functools.partial(logger.warning, "flowchain: cannot report: %r", error))


def shutdown(timeout_s: float = EXIT_TIMEOUT_S) -> bool:
    """Deliver what is queued, within `timeout_s`, and stop; False if events had to be given up. Runs at exit too."""
    global _publisher
    publisher, _publisher = _publisher, None
    if _tracker.sampler is not None:
        _guarded(_tracker.sampler.release_all)
    _tracker.outlet = _tracker.sampler = _tracker.metrics = None
    return publisher is None or _or(False, lambda: publisher.close(timeout_s))


atexit.register(shutdown)


def stats() -> Stats:
    """Return what became of the events so far."""
    publisher = _publisher
    return Stats() if publisher is None else _or(Stats(), publisher.stats)


def execution(
    chain: str,
    *,
    user: str | None = None,
    tier: str | None = None,
    tenant: str | None = None,
    version: str | None = None,
    id: str | None = None,
    attributes: Mapping[str, object] | None = None,
    open_ended: bool = False,
) -> Execution:
    """Return the context manager (or decorator) of one execution of `chain`, with a new id where none is given.

    `open_ended`: it is ended elsewhere, by `flowchain.complete()` or `flowchain.fail()` of the last service.
    """
    about = {"user": user, "tier": tier, "tenant": tenant, "version": version, "execution": id}
    made: Execution = _or(NOTHING, lambda: Execution(_tracker, chain, about, attributes=attributes, open_ended=open_ended))
    return made


@overload
def step(step_name: F) -> F: ...


@overload
def step(
    step_name: str | None = None,
    *,
    component: str | None = None,
    consumed: Consumed | None = None,
    resources: Mapping[str, int] | None = None,
    parents: Sequence[Context | None] = (),
    attempt: int | Callable[[], int] = 1,
    attributes: Mapping[str, object] | None = None,
) -> Step: ...


def step(step_name: Any = None, **options: Any) -> Any:
    """Return the context manager and decorator of one step; `@flowchain.step` alone takes the function's name.

    `component`: who does it, this service where left out. `consumed`: the Kafka record worked on. `resources`:
    `cpu_us`, `memory_bytes`, `io_wait_us`; may also be set on the step before it ends. `parents`: contexts of what
    is joined here, beside the enclosing step. `attempt`: from 1, higher when the same work is tried again; or what
    tells it at each call of a decorated function.
    """
    if callable(step_name):
        return step()(step_name)
    try:
        return Step(_tracker, step_name, StepOptions(**options)) if options else Step(_tracker, step_name)
    except Exception as error:  # noqa: BLE001 - the host goes on
        _tracker.guard("internal_error", error)
        return NOTHING


def current() -> Context | None:
    """Return the context of the running code, to be a parent later; None outside an execution."""
    return _or(None, here)


def inject() -> dict[str, str]:
    """Return the headers (HTTP or Kafka) that carry the running execution and step to another service."""
    context = current()
    return {} if context is None else _or({}, lambda: to_headers(context))


def extract(headers: Headers) -> Context | None:
    """Return the context in `headers` (a mapping or pairs, values str or bytes); None where there is none."""
    return _or(None, lambda: _tracker.extract(headers))


def continued(headers: Headers) -> Continued:
    """Return a context manager that runs its body in the context that came in `headers`, if any did."""
    made: Continued = _or(NOTHING, lambda: Continued(_tracker, headers))
    return made


def consumed(message: Any) -> Consumed | None:
    """Return what `step(consumed=...)` wants of a consumed Kafka record, of any client; its time in the broker ends now."""
    return _or(None, lambda: records.consumed(message))


def joined(messages: Iterable[Any], step_name: str | None = None) -> Step:
    """Return the context manager of a step that works on consumed Kafka records together.

    What came with each record becomes a parent, at most 256 of them; outside an execution the step belongs to that of the first.
    """
    batch = list(messages)
    made: Step = _or(NOTHING, lambda: Step(_tracker, step_name or "joined", records.joined(_tracker, batch)))
    return made


def instrument(
    *, begin: bool | None = None, chains: Mapping[str, str] | None = None, client_steps: bool | None = None
) -> None:
    """Have the web frameworks, clients and Kafka clients of this process keep the thread; call it before they are imported.

    `begin`: a request without a flow begins an execution (default), of the chain that `chains` has for it (`{"POST /orders": "order_to_cash"}`)
    or else one named after its route. `client_steps`: a call to another service is a step of its own. What was set before stays.
    """
    from flowchain.integrations import hooks, options

    options.configure(begin=begin, chains=chains, client_steps=client_steps)
    hooks.install()


def carry(function: F) -> F:
    """Return `function` to be run elsewhere (a thread, a pool, a callback) in the context that is current now.

    Threads begin without a context; asyncio tasks and `asyncio.to_thread` carry it by themselves.
    """
    return _or(function, lambda: Carried(_tracker, here())(function))


def complete() -> None:
    """Report that the running execution, begun `open_ended` elsewhere, ended well."""
    _ended(lambda context: _tracker.execution_completed(context))  # noqa: PLW0108 - looked up in the guard, not before it


def fail(error_type: str, message: str | None = None, category: str | None = None) -> None:
    """Report that the running execution, begun `open_ended` elsewhere, ended badly; `category`: see `flowchain.classify`."""
    _ended(lambda context: _tracker.execution_failed(context, error_type, message, category))


def _ended(report: Callable[[Context], None]) -> None:
    context = current()
    if context is None:
        _tracker.guard("no_execution", "")
    else:
        _guarded(lambda: report(context))


def log(level: str, template: str) -> None:
    """Report a log statement of the running step: its code location (`logger:line`) or its text without values."""
    _guarded(lambda: _tracker.log(level, template, context=here()))


def sample(
    *,
    cpu_ratio: float | None = None,
    memory_ratio: float | None = None,
    memory_bytes: int | None = None,
    io_wait_ratio: float | None = None,
    network_receive_bytes_per_s: float | None = None,
    network_transmit_bytes_per_s: float | None = None,
    instance: str | None = None,
) -> None:
    """Report what this service uses now; ratios are shares of the limit (0.5 = half of it)."""
    measured = locals()
    _guarded(lambda: _tracker.sample(**measured))


def _guarded(report: Callable[[], None]) -> None:
    _or(None, report)


def _or(instead: T, call: Callable[[], T]) -> T:
    """Return what the call returns, or `instead` where the SDK itself fails: counted, and the host goes on."""
    try:
        return call()
    except Exception as error:  # noqa: BLE001 - the host goes on
        _tracker.guard("internal_error", error)
        return instead
