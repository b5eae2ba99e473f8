"""The simulator: every event is valid, the same seed gives the same bytes, healthy is healthy, and the truth is true."""

from collections import Counter, defaultdict
from functools import cache
from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from flowchain import MemoryChannel, Publisher
from infra.simulator import (
    CHAINS,
    FAULT_KINDS,
    SERVICES,
    Config,
    Fault,
    FaultKind,
    Simulation,
    Truth,
    definitions,
    generate,
    simulate,
)
from infra.simulator.poison import POISON
from infra.simulator.recorder import Recorder
from schemas.events import CHAIN_EVENT

START = 1_750_000_000_000_000
DEFINITIONS = {definition.name: definition for definition in definitions()}
Events = list[dict[str, Any]]


@cache
def run(
    kind: FaultKind | None = None, service: str = "database-service", tenant: str | None = None
) -> tuple[Events, Truth]:
    """Simulate 12 s with a fault from 4 s to 8 s, and return the valid events and the truth."""
    faults = (Fault(kind, service, 4.0, 4.0, tenant),) if kind else ()
    recorder = Recorder()
    truth = Simulation(Config(60, 12, 3, faults, 0.0, START), recorder).run()
    events = [orjson.loads(value) for key, value in recorder.events if not key.startswith(b"poison")]
    for key, value in recorder.events:
        if not key.startswith(b"poison"):
            CHAIN_EVENT.validate_json(value)
    return events, truth


def of_type(events: Events, *types: str) -> Events:
    return [event for event in events if event["type"] in types]


def test_all_fourteen_services_and_all_chains_are_used() -> None:
    events, truth = run()
    steps = of_type(events, "step.completed")
    assert {event["component"] for event in steps} == {service.name for service in SERVICES}
    assert {event["chain"] for event in steps} == {chain.name for chain in CHAINS}
    assert len(SERVICES) == 14 and truth.executions_failed == 0
    assert truth.executions_started == truth.executions_completed > 600


def test_the_seeds_chains_are_defined_as_the_seeds_say() -> None:
    expected = {name: [step.expected_duration_ms for step in DEFINITIONS[name].steps] for name in DEFINITIONS}
    assert expected["mt5_to_database"] == [50, 20, 100, 80]
    assert expected["ai_decision_making"] == [30, 15, 10, 1.2]


def test_events_are_in_the_order_of_their_times() -> None:
    times = [event["time_unix_us"] for event in run("error_burst")[0]]
    assert times == sorted(times)


def test_healthy_executions_keep_what_their_definitions_promise() -> None:
    events, _ = run()
    by_execution = defaultdict(list)
    for event in of_type(events, "execution.started", "step.started", "step.completed"):
        by_execution[event["execution"]].append(event)
    for own in by_execution.values():
        definition = DEFINITIONS[own[0]["chain"]]
        start = {
            event.get("step"): event["time_unix_us"] for event in own if event["type"].endswith("started")
        }
        end = {event["step"]: event for event in own if event["type"] == "step.completed"}
        assert set(end) == {step.name for step in definition.steps}
        for step in definition.steps:
            before = max((end[name]["time_unix_us"] for name in step.after or ()), default=start[None])
            assert end[step.name]["component"] == step.component
            assert end[step.name]["duration_us"] <= (step.expected_duration_ms or 0) * 1000
            assert before <= start[step.name]
            assert end[step.name]["time_unix_us"] - before < (step.deadline_ms or 0) * 1000 / 2


def test_nested_calls_fan_out_and_fan_in_have_the_right_parents() -> None:
    events, _ = run()
    spans = {event["span"]: event for event in of_type(events, "step.started")}
    parents = defaultdict(set)
    for event in spans.values():
        for parent in event.get("parents", ()):
            cause = spans[parent["span"]]
            assert parent["component"] == cause["component"]
            assert parent.get("execution", event["execution"]) == cause["execution"]
            parents[event["step"]].add(cause["step"])
    assert parents["portfolio_read"] == {"portfolio_routing"}
    assert parents["order_metering"] == {"order_notification", "order_audit"}
    assert parents["signal_push"] == parents["signal_archiving"] == {"subscriber_selection"}
    assert parents["result_join"] == {"database_storage", "trading_execution"}


def test_consumed_offsets_are_dense_per_partition() -> None:
    events, _ = run()
    offsets = defaultdict(list)
    for event in of_type(events, "step.completed"):
        if "consumed" in event:
            record = event["consumed"]
            offsets[record["topic"], record["partition"]].append(record["offset"])
    for found in offsets.values():
        assert set(found) == set(range(max(found) + 1))


@pytest.mark.parametrize("kind", FAULT_KINDS)
def test_every_event_is_valid_and_the_same_again_under_every_fault(kind: FaultKind) -> None:
    events, truth = run(kind)
    assert len(events) == truth.events_produced
    again = run.__wrapped__(kind)
    assert again[0] == events and again[1].to_json() == truth.to_json()
    [fault] = truth.faults
    assert fault.start_unix_us == START + 4_000_000
    if kind != "poison":
        assert fault.first_event_unix_us is not None and fault.first_event_unix_us >= fault.start_unix_us
        assert "database-service" in fault.affected_services and fault.executions


def test_another_seed_gives_other_events() -> None:
    recorders = [Recorder(), Recorder()]
    for seed, recorder in enumerate(recorders):
        Simulation(Config(20, 1, seed, (), 0.0, START), recorder).run()
    assert recorders[0].events != recorders[1].events


def test_a_crashed_service_emits_nothing_and_its_callers_time_out() -> None:
    events, truth = run("crash")
    down = range(START + 4_000_000, START + 8_000_000)
    assert not [e for e in events if e["component"] == "database-service" and e["time_unix_us"] in down]
    errors = Counter((event["component"], event["error_type"]) for event in of_type(events, "step.failed"))
    assert errors["central-hub", "TimeoutError"] and errors["api-gateway", "DependencyError"]
    assert truth.executions_failed and "api-gateway" in truth.faults[0].affected_services
    assert "data-bridge" not in truth.faults[0].affected_services


def test_an_error_burst_fails_callers_and_stops_successors() -> None:
    events, truth = run("error_burst")
    failed = of_type(events, "step.failed")
    assert {event["execution"] for event in failed} == truth.faults[0].executions
    ended = {event["execution"] for event in of_type(events, "execution.failed")}
    stored = {event["execution"] for event in failed if event["step"] == "database_storage"}
    assert stored and stored <= ended
    after = {event["execution"] for event in events if event.get("step") == "order_metering"}
    assert not after & ended
    logs = {(event["component"], event["level"]) for event in of_type(events, "log.observed")}
    assert ("database-service", "error") in logs and ("central-hub", "warn") in logs


def test_a_slow_service_breaks_its_promise() -> None:
    events, truth = run("slow")
    promised = {step.name: step.expected_duration_ms or 0 for d in DEFINITIONS.values() for step in d.steps}
    slow = [e for e in of_type(events, "step.completed") if e["duration_us"] > promised[e["step"]] * 1000]
    assert len({event["execution"] for event in slow}) > 0.8 * len(truth.faults[0].executions)
    assert {event["execution"] for event in slow} <= truth.faults[0].executions
    assert truth.executions_failed == 0


def test_a_silent_service_works_on_and_its_events_are_lost() -> None:
    (events, truth), (healthy, _) = run("silence"), run()
    assert truth.events_lost == len(healthy) - len(events) > 0
    assert truth.executions_completed == truth.executions_started
    assert truth.faults[0].affected_services == {"database-service"}


def test_one_tenant_s_fault_leaves_the_others_alone() -> None:
    events, truth = run("error_burst", tenant="globex")
    assert {event["tenant"] for event in of_type(events, "step.failed")} == {"globex"}
    assert truth.faults[0].affected_tenants == {"globex"}
    silent, silence = run("silence", tenant="globex")
    assert silence.events_lost and silence.faults[0].affected_tenants == {"globex"}
    during = range(START + 4_500_000, START + 7_500_000)
    tenants = {
        e["tenant"]
        for e in of_type(silent, "step.started")
        if e["time_unix_us"] in during and e["component"] == "database-service"
    }
    assert tenants == {"acme", "initech"}


def test_a_stuck_consumer_s_records_wait_and_keep_their_order() -> None:
    events, _ = run("stuck_consumer")
    waits = [
        e["consumed"]["broker_us"]
        for e in of_type(events, "step.completed")
        if e["step"] == "database_storage"
    ]
    assert max(waits) > 2_500_000 and min(waits) < 50_000


def test_a_leaking_service_fills_its_memory_slows_and_crashes() -> None:
    events, truth = run("memory_leak")
    memory = [
        (event["time_unix_us"] - START, event["memory_ratio"])
        for event in of_type(events, "resource.sampled")
        if event["component"] == "database-service"
    ]
    assert max(ratio for at, ratio in memory if at < 4_000_000) < 0.6
    assert max(ratio for _, ratio in memory) > 0.75
    assert truth.executions_failed


def test_a_skewed_clock_shows_in_times_not_in_durations() -> None:
    events, _ = run("clock_skew")
    ahead = [b["time_unix_us"] - a["time_unix_us"] for a, b in pairwise(events)]
    assert max(ahead) > 4_000_000
    assert max(event["duration_us"] for event in of_type(events, "step.completed")) < 300_000


def test_an_entry_service_that_is_down_begins_nothing() -> None:
    _, truth = run("crash", "api-gateway")
    assert truth.executions_prevented > 0


@pytest.mark.parametrize("value", POISON)
def test_poison_is_poison(value: bytes) -> None:
    with pytest.raises(ValidationError):
        CHAIN_EVENT.validate_json(value)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.builds(
            Fault,
            st.sampled_from(FAULT_KINDS),
            st.sampled_from([service.name for service in SERVICES]),
            st.floats(0, 3),
            st.floats(0.1, 3),
            st.sampled_from([None, "acme"]),
        ),
        max_size=4,
    ),
    st.integers(0, 100),
)
def test_any_faults_together_leave_valid_events_and_a_true_count(faults: list[Fault], seed: int) -> None:
    recorder = Recorder()
    truth = Simulation(Config(30, 3, seed, tuple(faults), 0.0, START), recorder).run()
    valid = [value for key, value in recorder.events if not key.startswith(b"poison")]
    for value in valid:
        CHAIN_EVENT.validate_json(value)
    assert len(valid) == truth.events_produced
    assert truth.poison_records == len(recorder.events) - len(valid)


def test_the_daily_rhythm_has_its_peak_in_the_afternoon() -> None:
    def executions(hour: int) -> int:
        start = START - START % 86_400_000_000 + hour * 3_600_000_000
        return Simulation(Config(50, 10, 1, (), 0.0, start, rhythm=True), Recorder()).run().executions_started

    assert executions(15) > 2 * executions(3)


def test_the_sdk_s_publisher_delivers_a_run_whole() -> None:
    kept: list[tuple[bytes, bytes]] = []
    publisher = Publisher(lambda counts: MemoryChannel(counts, kept))
    config = Config(60, 12, 3, (), 0.0, START)
    truth = Simulation(config, publisher).run()
    publisher.close(5.0)
    assert [orjson.loads(value) for _, value in kept] == run()[0]
    assert truth.events_delivered == truth.events_produced and not truth.events_dropped


def test_a_live_run_on_kafka_is_delivered() -> None:
    config = Config(rate=100, seconds=0.5, faults=(Fault("poison", "data-bridge", 0.0, 0.5),), speed=2.0)
    kafka = {"bootstrap.servers": "ignored:1", "test.mock.num.brokers": 1}
    truth = simulate(kafka, "flowchain.events.v1", config)
    assert truth.events_delivered == truth.events_produced > 100
    assert truth.poison_records == 10


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="no service 'nobody'"):
        Config(faults=(Fault("crash", "nobody", 0, 1),))
    with pytest.raises(ValueError, match="unknown kind"):
        Fault("meteor", "data-bridge", 0, 1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no tenant 'umbrella'"):
        Config(faults=(Fault("crash", "data-bridge", 0, 1, "umbrella"),))


@pytest.mark.parametrize("kind", FAULT_KINDS)
def test_every_kind_of_fault_can_be_written_down(kind: FaultKind) -> None:
    assert Fault.parse(f"{kind}:data-bridge:1.5:10") == Fault(kind, "data-bridge", 1.5, 10.0)
    assert Fault.parse(f"{kind}:data-bridge:0:1:acme") == Fault(kind, "data-bridge", 0.0, 1.0, "acme")


@pytest.mark.parametrize(
    "text", ["", "crash", "crash:data-bridge", "crash:data-bridge:0", "crash:data-bridge:soon:1", "crash:data-bridge:0:0",
             "crash:data-bridge:-1:1", "crash:data-bridge:nan:1", "crash:data-bridge:0:inf", "meteor:data-bridge:0:1"],
)  # fmt: skip
def test_a_fault_written_wrongly_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"kind|a fault starts"):
        Fault.parse(text)


def test_generated_load_is_valid_ordered_and_every_execution_new() -> None:
    events = list(generate(100_000, 5, start_unix_us=START))
    assert len(events) == 100_000 and events == list(generate(100_000, 5, start_unix_us=START))
    times, started, failed = [], [], 0
    for _, value in events[:3000] + events[-3000:]:
        CHAIN_EVENT.validate_json(value)
    for key, value in events:
        event = orjson.loads(value)
        times.append(event["time_unix_us"])
        if event["type"] == "execution.started":
            assert key.decode() == event["execution"]
            started.append(event["execution"])
        failed += event["type"].endswith("failed")
    assert times == sorted(times) and times[0] == START
    assert len(set(started)) == len(started) and not failed
