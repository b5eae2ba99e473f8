"""`flowchain verify` on a run: everything is right while the workers go on, and what is then tampered with is found."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from confluent_kafka import Producer

import schemas
from connectors.clickhouse import client
from connectors.settings import Settings
from connectors.tenants import publish_tenants
from infra import demo
from infra.demo import Plan
from infra.verification.compare import Tally
from infra.verification.progress import NotCaughtUp, snapshot
from infra.verification.run import Report, Verification
from schemas.analysis import Incident
from schemas.health import OffsetRange
from schemas.tenants import Tenant, TierLimits
from schemas.topics import EVENTS, INCIDENTS, VIOLATIONS
from schemas.violations import Violation

EXAMPLES = Path(schemas.__file__).parent / "examples"
pytestmark = pytest.mark.timeout(420)
Reports = tuple[Settings, Report, Report]
PLAN = Plan(rate=40.0, healthy_s=6.0, fault_s=3.0, after_s=1.0, seed=3)


def verified(settings: Settings) -> Report:
    return Verification(settings, snapshot(settings, 30.0), lambda _: None).run()


def wrong(report: Report) -> dict[str, tuple[int, int, int, int]]:
    """What is missing, too many, different and duplicated, of the kinds where something is."""
    return {name: numbers(tally) for name, tally in report.tallies.items() if not tally.right}


def numbers(tally: Tally) -> tuple[int, int, int, int]:
    return tally.missing, tally.extra, tally.different, tally.duplicated


def tamper(settings: Settings) -> None:
    """A row twice and a window gone from ClickHouse, a row changed in PostgreSQL, a violation that never was."""
    server = client(settings.clickhouse_dsn.get_secret_value(), settings.clickhouse_database)
    server.execute("SYSTEM STOP MERGES chain_execution_traces")  # a merge would make one row of the two
    server.execute("INSERT INTO chain_execution_traces SELECT * FROM chain_execution_traces WHERE record_kind = 'step' LIMIT 1")
    gone = server.execute("SELECT id FROM chain_health_metrics FINAL WHERE events > 0 ORDER BY window_start LIMIT 1")[0][0]
    server.execute("ALTER TABLE chain_health_metrics DELETE WHERE id = %(id)s SETTINGS mutations_sync = 2", {"id": gone})
    server.disconnect()
    with psycopg.connect(settings.postgres_dsn.get_secret_value()) as connection:
        connection.execute(
            "UPDATE flowchain.flow_executions SET status = 'abandoned' WHERE (tenant, execution) = "
            "(SELECT tenant, execution FROM flowchain.flow_executions WHERE status = 'completed' LIMIT 1)"
        )
        connection.execute(
            "DELETE FROM flowchain.flow_dependencies WHERE (tenant, kind, flow, source, target, topic) = "
            "(SELECT tenant, kind, flow, source, target, topic FROM flowchain.flow_dependencies WHERE provenance = 'observed' "
            "ORDER BY last_seen_at LIMIT 1)"
        )
        connection.execute(
            "UPDATE flowchain.flow_incidents SET document = jsonb_set(document, '{title}', '\"another\"') WHERE id = "
            "(SELECT min(id) FROM flowchain.flow_incidents)"
        )
    invented = Violation(
        id="0" * 32, type="step.failed", tenant="acme", chain="c", step="s", component="C", execution="e", time_unix_us=1, detail="d"
    )
    produce(settings, VIOLATIONS.name, invented.encode())


def incident(settings: Settings) -> Incident:
    """Return an incident beside those that the run has or has not led to: the first of the contract's examples, with evidence of this log."""
    example = Incident.decode(sorted((EXAMPLES / INCIDENTS.name).glob("*.json"))[0].read_bytes())
    span = OffsetRange(topic=settings.topic(EVENTS.name), partition=0, first_offset=0, last_offset=0)
    return example.model_copy(update={"id": "1" * 32, "revision": 0, "status": "open", "resolved_unix_us": None, "evidence": [span]})


def produce(settings: Settings, topic: str, value: bytes) -> None:
    producer = Producer(settings.kafka())
    producer.produce(settings.topic(topic), value)
    assert producer.flush(30) == 0


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reports]:
    """What is said of a run before and after it was tampered with; then ingest is gone, and one more record comes."""
    with pytest.MonkeyPatch.context() as patch, demo.running(tmp_path_factory.mktemp("verify") / "home") as (settings, supervisor):
        patch.setattr(demo, "SETTLE_S", 0.0)  # that record will not be worked on
        publish_tenants(settings, [Tenant(tenant="acme", tier="free", limits=TierLimits(max_chains=2, max_executions_per_day=40))])
        demo.produce(settings, PLAN, lambda _: None)
        produce(settings, INCIDENTS.name, incident(settings).encode())
        before = verified(settings)
        tamper(settings)
        after = verified(settings)
        supervisor.retire("ingest")
        produce(settings, EVENTS.name, b"{}")
        yield settings, before, after


def test_a_run_is_what_its_log_says_while_the_workers_go_on(reports: Reports) -> None:
    _, before, _ = reports
    assert wrong(before) == {}
    document = before.document()
    assert (document["lost"], document["duplicated"], document["different"]) == (0, 0, 0)
    shown = ("executions", "windows", "violations", "limits", "clickhouse steps", "postgres executions", "postgres dependencies", "postgres incidents")
    assert [kind for kind in shown if not before.tallies[kind].found] == []


def test_what_was_tampered_with_is_found(reports: Reports) -> None:
    _, _, after = reports
    assert wrong(after) == {
        "chain_execution_traces": (0, 0, 0, 1),
        "clickhouse windows": (1, 0, 0, 0),
        "postgres executions": (0, 0, 1, 0),
        "postgres dependencies": (1, 0, 0, 0),
        "postgres incidents": (0, 0, 1, 0),
        "violations": (0, 1, 0, 0),
    }


def test_the_first_difference_is_shown_as_field_expected_and_found(reports: Reports) -> None:
    _, _, after = reports
    first = after.tallies["postgres executions"].first[0]
    assert (first.field, first.expected, first.found) == ("status", "completed", "abandoned")


def test_a_run_that_has_not_caught_up_is_not_compared(reports: Reports) -> None:
    settings, _, _ = reports
    with pytest.raises(NotCaughtUp, match=r"ingest has 1 records of flowchain\.events\.v1 before it"):
        snapshot(settings, 0.0)
