"""How long after an event its violation and its alert are on their topics, on the real pipeline under load.

An alert needs evidence, so a trial is the least that makes one: three failed steps, five slow ones, five missing ones, windows
that are unlike those before. Its clock runs from the last event that it needs: for what is missing from the deadline plus
the allowed lateness, for an anomaly from the moment at which its window can close. Each trial is a tenant of its own.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import orjson
from confluent_kafka import Consumer, Message, Producer, TopicPartition

from connectors.settings import Settings
from infra.bench.figures import spread
from infra.bench.loading import Tell
from infra.bench.machine import machine
from infra.bench.soak import feeding
from schemas.definitions import ChainDefinition, ChainStep
from schemas.topics import ALERTS, ANOMALIES, EVENTS, VIOLATIONS

SETTINGS = {"window_s": 1.0, "lateness_s": 0.5, "anomaly_warmup_windows": 8}
CHAIN = ChainDefinition(
    name="bench",
    steps=(
        ChainStep(name="first", component="first", expected_duration_ms=100),
        ChainStep(name="second", component="second", deadline_ms=500),
    ),
)
NEEDED = {"failed": 3, "slow": 5, "missing": 5}
"""Executions that a trial takes (`FaultSettings`)."""
TARGET_MS = {"failed": 250, "slow": 250, "missing": 250, "anomaly": 1000}
EVERY_S, PATIENCE_S = 0.25, 15.0
NORMAL_S, STRANGE_S, SAMPLES_PER_S = 25.0, 6.0, 20


@dataclass
class Heard:
    """What came on the topics, and when (seconds since 1970)."""

    violations: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    alerts: dict[str, float] = field(default_factory=dict)
    anomalies: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    """(arrival, end of the window)"""
    echoes: dict[str, float] = field(default_factory=dict)

    def take(self, message: Message, at_s: float) -> None:
        """Note a record."""
        record, topic = orjson.loads(message.value() or b"{}"), message.topic() or ""
        tenant = record.get("tenant", "")
        if topic.endswith(VIOLATIONS.name) and record.get("execution"):
            self.violations[tenant].append(at_s)
        elif topic.endswith(ALERTS.name):
            self.alerts.setdefault(tenant, at_s)
        elif topic.endswith(ANOMALIES.name):
            self.anomalies[tenant].append((at_s, record["window_end_unix_us"] / 1e6))
        elif record.get("execution", "").startswith("echo-"):
            self.echoes[record["execution"]] = at_s


@contextmanager
def listening(settings: Settings) -> Iterator[Heard]:
    """Read the topics from their ends on, as anybody may, as long as the block runs."""
    heard, done = Heard(), threading.Event()
    consumer = Consumer({**settings.kafka(), "group.id": uuid4().hex, "enable.auto.commit": False, "fetch.wait.max.ms": 10})
    held = consumer.list_topics(timeout=30).topics
    names = [settings.topic(topic.name) for topic in (VIOLATIONS, ALERTS, ANOMALIES, EVENTS)]
    ends = [TopicPartition(name, number) for name in names for number in held[name].partitions]
    for partition in ends:
        partition.offset = consumer.get_watermark_offsets(partition, timeout=30)[1]
    consumer.assign(ends)

    def listen() -> None:
        while not done.is_set():
            for message in consumer.consume(1_000, 0.01):
                if message.error() is None:
                    heard.take(message, time.time())

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield heard
    finally:
        done.set()
        thread.join()
        consumer.close()


@dataclass(frozen=True)
class Trial:
    """What was done, and when its alert was due (seconds since 1970)."""

    kind: str
    tenant: str
    due_s: float


class Sender:
    """Emits the events of trials."""

    def __init__(self, settings: Settings) -> None:
        self._lateness_s = settings.lateness_s
        self._topic = settings.topic(EVENTS.name)
        self._producer = Producer({**settings.kafka(), "linger.ms": 1, "partitioner": "murmur2_random"})

    def trial(self, kind: str) -> Trial:
        """Do what makes an alert of a kind."""
        tenant = f"{kind}-{uuid4().hex[:12]}"
        for number in range(NEEDED[kind]):
            execution = f"{tenant}-{number}"
            if kind == "failed":
                self.send("step.failed", tenant, execution, step="first", component="first", duration_us=1_000, error_type="Bench")
            else:
                duration_us = 200_000 if kind == "slow" else 1_000
                self.send("step.completed", tenant, execution, step="first", component="first", duration_us=duration_us)
        due_s = time.time() + (0.5 + self._lateness_s if kind == "missing" else 0)
        self._producer.flush(10)
        return Trial(kind, tenant, due_s)

    def send(self, kind: str, tenant: str, execution: str, chain: str = CHAIN.name, **facts: Any) -> None:
        """Emit an event that happens now."""
        event = {"type": kind, "tenant": tenant, "chain": chain, "execution": execution, "time_unix_us": time.time_ns() // 1000, **facts}
        self._producer.produce(self._topic, orjson.dumps(event), execution)
        self._producer.poll(0)

    def echo(self) -> tuple[str, float]:
        """Emit an event that the listener hears right from the events topic; return its name and when."""
        name, at_s = f"echo-{uuid4().hex[:12]}", time.time()
        self.send("execution.started", "echo", name, "echo")
        self._producer.flush(10)
        return name, at_s


def measure(settings: Settings, trials: int, rate: float, tell: Tell, normal_s: float = NORMAL_S) -> dict[str, Any]:
    """Return the latencies of every kind; the workers run, and `rate` events per second are beside the trials.

    `normal_s`: how long chains without a definition run as usual before they become strange.
    """
    sender = Sender(settings)
    with feeding(settings, rate) as feeder, listening(settings) as heard:
        time.sleep(3.0)
        done, echoes = [], []
        for number in range(trials):
            for kind in NEEDED:
                echoes.append(sender.echo())
                done.append(sender.trial(kind))
                time.sleep(EVERY_S)
            tell("trials", number + 1, trials)
        _wait(lambda: all(trial.tenant in heard.alerts for trial in done))
        tenants = _strange_windows(sender, min(trials, 20), normal_s, tell)
        _wait(lambda: all(tenant in heard.alerts for tenant in tenants))
        feeder.check()
    return _document(settings, done, echoes, tenants, heard) | {"events_per_s_beside": rate, "machine": machine()}


def _wait(true: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not true() and time.monotonic() < deadline_s:
        time.sleep(0.05)


def _strange_windows(sender: Sender, count: int, normal_s: float, tell: Tell) -> list[str]:
    """Have tenants run a chain without a definition as usual for a while, then slower and slower.

    A detector says the same thing once, and one anomaly that is not extreme alerts nobody: so it gets worse with every window.
    """
    tenants = [f"anomaly-{uuid4().hex[:12]}" for _ in range(count)]
    began_s, number = time.monotonic(), 0
    while (now_s := time.monotonic() - began_s) < normal_s + STRANGE_S:
        duration_us = 10_000 + number * 7_919 % 997 if now_s < normal_s else 30_000 * 4 ** int(now_s - normal_s)
        for tenant in tenants:
            name = f"{tenant}-{number}"
            sender.send("step.completed", tenant, name, "free", step="work", component="worker", duration_us=duration_us)
            sender.send("execution.completed", tenant, name, "free")
        number += 1
        tell("windows", round(now_s), round(normal_s + STRANGE_S))
        time.sleep(max(0.0, number / SAMPLES_PER_S - (time.monotonic() - began_s)))
    return tenants


def _document(settings: Settings, done: list[Trial], echoes: list[tuple[str, float]], tenants: list[str], heard: Heard) -> dict[str, Any]:
    floor = spread([1000 * (heard.echoes[name] - at_s) for name, at_s in echoes if name in heard.echoes], 1)
    found: dict[str, Any] = {"unit": "ms", "trials": len(done), "echo": floor}
    for kind in NEEDED:
        of_kind = [trial for trial in done if trial.kind == kind]
        first = {t.tenant: min(heard.violations[t.tenant]) for t in of_kind if heard.violations[t.tenant]}
        found[kind] = _row(
            kind, [heard.alerts[t.tenant] - t.due_s for t in of_kind if t.tenant in heard.alerts],
            [first[t.tenant] - t.due_s for t in of_kind if t.tenant in first], len(of_kind), floor,
        )  # fmt: skip
    late_s = settings.lateness_s
    alerts = [
        heard.alerts[tenant] - max(end for at_s, end in heard.anomalies[tenant] if at_s <= heard.alerts[tenant] + 0.5) - late_s
        for tenant in tenants if tenant in heard.alerts and heard.anomalies[tenant]
    ]  # fmt: skip
    records = [at_s - end - late_s for tenant in tenants for at_s, end in heard.anomalies[tenant]]
    found["anomaly"] = _row("anomaly", alerts, records, len(tenants), floor)
    return found


def _row(kind: str, alerts_s: list[float], records_s: list[float], trials: int, floor: dict[str, Any]) -> dict[str, Any]:
    alert = spread([1000 * value for value in alerts_s], 1)
    ratio = round(alert["p50"] / floor["p50"], 1) if alert["p50"] is not None and floor["p50"] else None
    return {
        "alert": alert, "record": spread([1000 * value for value in records_s], 1), "not_alerted": trials - len(alerts_s),
        "target_ms": TARGET_MS[kind], "ratio_to_echo": ratio,
    }  # fmt: skip
