"""FlowChain SDK: reports the steps of business chains; never blocks, slows or breaks its host.

    flowchain.init(service="payments", bootstrap_servers="kafka:9092")

    with flowchain.execution("order_to_cash", user="u1", tier="pro", tenant="acme"):
        with flowchain.step("validate"):
            ...

Nothing here raises because of the SDK itself: what could not be reported is counted (`stats`) and said once per reason
through the logger `flowchain`. Before `init` everything may be called and nothing is sent.
"""

import atexit
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, overload

from flowchain.channels import Channel, FileChannel, KafkaChannel, MakeChannel, MemoryChannel
from flowchain.clock import Clock, SystemClock
from flowchain.context import Context, Headers, name, to_headers
from flowchain.counts import Counts, logger
from flowchain.ids import Ids
from flowchain.integrations import records
from flowchain.publisher import Publisher, Stats
from flowchain.spans import Consumed, Continued, Execution, F, Step, StepOptions
from flowchain.tracker import Outlet, Tracker, here

__all__ = [
    "Channel",
    "Clock",
    "Consumed",
    "Context",
    "Counts",
    "Execution",
    "FileChannel",
    "Ids",
    "KafkaChannel",
    "MemoryChannel",
    "Outlet",
    "Publisher",
    "Stats",
    "Step",
    "StepOptions",
    "SystemClock",
    "Tracker",
    "complete",
    "consumed",
    "continued",
    "current",
    "execution",
    "extract",
    "fail",
    "init",
    "inject",
    "instrument",
    "joined",
    "log",
    "sample",
    "shutdown",
    "stats",
    "step",
]

EXIT_TIMEOUT_S = 5.0
_tracker = Tracker("unknown", None)
_publisher: Publisher | None = None


def init(
    service: str,
    bootstrap_servers: str = "localhost:9092",
    tenant: str = "default",
    topic: str = "flowchain.events.v1",
    topic_prefix: str = "",
    queue_size: int = 100_000,
    *,
    queue_bytes: int = 64_000_000,
    channel: MakeChannel | None = None,
    **kafka: Any,
) -> None:
    """Begin to report as `service`; call it once, again only to change something.

    `kafka`: further librdkafka settings, `_` for `.` (`security_protocol="SASL_SSL"`). `channel` replaces Kafka:
    a function that is given the `Counts` and returns a `Channel`. `queue_size` and `queue_bytes`: events held while the channel
    is slow; beyond either the oldest are dropped. It opens no connection here, so a wrong address shows in `stats` only.
    """
    global _publisher
    shutdown(0.0 if _publisher is None else 1.0)
    settings = {
        "bootstrap.servers": bootstrap_servers,
        **{key.replace("_", "."): kafka[key] for key in kafka},
    }
    make = channel or (lambda counts: KafkaChannel(counts, topic_prefix + topic, settings))
    _publisher = Publisher(make, queue_size, queue_bytes)
    _tracker.service, _tracker.tenant, _tracker.outlet = name(service), name(tenant), _publisher


def shutdown(timeout_s: float = EXIT_TIMEOUT_S) -> bool:
    """Deliver what is queued, within `timeout_s`, and stop; False if events had to be given up. Runs at exit too."""
    global _publisher
    publisher, _publisher = _publisher, None
    _tracker.outlet = None
    return publisher is None or publisher.close(timeout_s)


atexit.register(shutdown)


def stats() -> Stats:
    """Return what became of the events so far."""
    return _publisher.stats() if _publisher is not None else Stats()


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
    return Execution(_tracker, chain, about, attributes=attributes, open_ended=open_ended)


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
    attempt: int = 1,
    attributes: Mapping[str, object] | None = None,
) -> Step: ...


def step(step_name: Any = None, **options: Any) -> Any:
    """Return the context manager and decorator of one step; `@flowchain.step` alone takes the function's name.

    `component`: who does it, this service where left out. `consumed`: the Kafka record worked on. `resources`:
    `cpu_us`, `memory_bytes`, `io_wait_us`; may also be set on the step before it ends. `parents`: contexts of what
    is joined here, beside the enclosing step. `attempt`: from 1, higher when the same work is tried again.
    """
    if callable(step_name):
        return Step(_tracker, None)(step_name)
    return Step(_tracker, step_name, StepOptions(**options)) if options else Step(_tracker, step_name)


def current() -> Context | None:
    """Return the context of the running code, to be a parent later; None outside an execution."""
    return here()


def inject() -> dict[str, str]:
    """Return the headers (HTTP or Kafka) that carry the running execution and step to another service."""
    context = here()
    return {} if context is None else to_headers(context)


def extract(headers: Headers) -> Context | None:
    """Return the context in `headers` (a mapping or pairs, values str or bytes); None where there is none."""
    return _tracker.extract(headers)


def continued(headers: Headers) -> Continued:
    """Return a context manager that runs its body in the context that came in `headers`, if any did."""
    return Continued(_tracker, headers)


def consumed(message: Any) -> Consumed:
    """Return what `step(consumed=...)` wants of a consumed Kafka record (confluent-kafka, aiokafka, kafka-python, Faust);
    its time in the broker ends now."""
    return records.consumed(message)


def joined(messages: Iterable[Any], step_name: str | None = None) -> Step:
    """Return the context manager of a step that works on consumed Kafka records together.

    What came with each record becomes a parent, at most 256 of them; outside an execution the step belongs to that of the first.
    """
    batch = list(messages)
    options: dict[str, Any] = {"parents": records.contexts(_tracker, batch)}
    if batch:
        options["consumed"] = records.consumed(batch[0])
    return Step(_tracker, step_name or "joined", StepOptions(**options))


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


def complete() -> None:
    """Report that the running execution, begun `open_ended` elsewhere, ended well."""
    _ended(lambda context: _tracker.execution_completed(context))  # noqa: PLW0108 - looked up in the guard, not before it


def fail(error_type: str, message: str | None = None) -> None:
    """Report that the running execution, begun `open_ended` elsewhere, ended badly."""
    _ended(lambda context: _tracker.execution_failed(context, error_type, message))


def _ended(report: Callable[[Context], None]) -> None:
    context = here()
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
    measured = {
        "cpu_ratio": cpu_ratio,
        "memory_ratio": memory_ratio,
        "memory_bytes": memory_bytes,
        "io_wait_ratio": io_wait_ratio,
        "network_receive_bytes_per_s": network_receive_bytes_per_s,
        "network_transmit_bytes_per_s": network_transmit_bytes_per_s,
    }
    _guarded(lambda: _tracker.sample(instance=instance, **measured))


def _guarded(report: Callable[[], None]) -> None:
    try:
        report()
    except Exception as error:  # noqa: BLE001 - the host goes on
        _tracker.guard("internal_error", error)
        logger.debug("flowchain internal error", exc_info=True)
