"""The TrainTicket layout: every gotcha of it, on a miniature of our own (tests/fixtures/spans/bakery)."""

import shutil
import tarfile
from pathlib import Path
from typing import Any

import orjson
import pytest

from connectors.spans import Options, SpanImportError, detect_format, load
from schemas.events import CHAIN_EVENT

BAKERY = Path(__file__).parents[1] / "fixtures" / "spans" / "bakery"
DAY = "2024-03-05"
NINE = 1_709_629_200_000_000


def read(path: Path = BAKERY, **options: Any) -> list[dict[str, Any]]:
    events = list(load(path, Options(**options)).events())
    for event in events:
        CHAIN_EVENT.validate_json(event.value)
    return [orjson.loads(event.value) for event in events]


def of(kind: str, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in events if event["type"] == kind]


def test_every_row_is_an_event_or_counted_with_its_reason() -> None:
    summary = load(BAKERY).summary
    assert (summary.steps, summary.executions, summary.logs, summary.samples) == (6, 3, 5, 2)
    assert summary.skipped == {
        "span: repeated (same trace id and span id)": 1,
        "span: StartTimeUnixNano or EndTimeUnixNano is not a whole number": 1,
        "span: columns are missing": 1,
        "log: repeated (same time, pod, span and text)": 1,
        "log: neither TimeUnixNano nor Timestamp is a time": 1,
        "metric: repeated (same pod and time)": 1,
        "metric: TimeStamp is not a whole number": 1,
        "metric: no PodName, so no resource of a component": 1,
    }
    assert summary.rows == summary.steps + summary.logs + summary.samples + sum(summary.skipped.values())
    assert summary.events == summary.steps + summary.logs + summary.samples + 2 * summary.executions
    assert summary.first_seen["span: columns are missing"] == f"{DAY}/trace/09_01.csv row 5"


def test_a_trace_becomes_one_execution_in_time_order_inner_spans_first() -> None:
    events = [event for event in read(inputs=frozenset(["traces"])) if event["execution"] == "a1" * 16]
    assert [(event["type"], event.get("step")) for event in events] == [
        ("execution.started", None),
        ("step.completed", "/cart/{id}"),
        ("step.completed", "HTTP GET"),
        ("step.completed", "/*"),
        ("execution.completed", None),
    ]
    cart = events[1]
    assert (cart["component"], cart["time_unix_us"], cart["duration_us"]) == (
        "bk-cart-service",
        NINE + 8000,
        6000,
    )
    assert cart["parents"] == [{"span": "2" * 16, "component": "bk-gateway"}]
    assert (events[0]["time_unix_us"], events[-1]["duration_us"]) == (NINE + 1000, 8000)


def test_the_chain_is_named_after_the_root_or_what_the_gateway_called() -> None:
    assert {event["chain"] for event in read(inputs=frozenset(["traces"]))} == {"bk-gateway /*"}
    by_entry = {event["chain"] for event in read(inputs=frozenset(["traces"]), chain_by="entry")}
    assert by_entry == {"bk-cart-service /cart/{id}", "bk-oven /bake, twice", "bk-gateway /*"}


def test_a_negative_time_is_replaced_and_a_broken_text_kept() -> None:
    logs = of("log.observed", read(normal="exclude"))
    assert [(log["template"], log["time_unix_us"] - NINE) for log in logs] == [
        ("b.c.CartController#42", 3000),
        ("o.a.[.[dispatcher]#175", 4000),
        ("b.c.CartController#48", 5000),
        ("WARN oven * at * degrees, order *", 70_000),
    ]
    assert (logs[1]["level"], logs[1]["step"], logs[1]["span"]) == ("error", "/cart/{id}", "3" * 16)


def test_a_log_line_without_its_trace_still_names_execution_and_span() -> None:
    log = of("log.observed", read(inputs=frozenset(["logs"])))[1]
    assert (log["execution"], log["span"], log.get("chain"), log.get("step")) == (
        "a1" * 16,
        "3" * 16,
        None,
        None,
    )


def test_metric_rows_are_samples_of_the_pod_without_what_is_no_amount() -> None:
    first, second = of("resource.sampled", read())
    assert (first["component"], first["instance"]) == ("bk-cart-service", "bk-cart-service-66bdf75c4d-x2z9k")
    assert (first["cpu_ratio"], first["memory_ratio"], first["memory_bytes"]) == (0.125, 0.25, 512 << 20)
    assert (first["network_receive_bytes_per_s"], first["network_transmit_bytes_per_s"]) == (2048.5, 1024.0)
    assert {"cpu_ratio", "network_receive_bytes_per_s", "network_transmit_bytes_per_s"}.isdisjoint(second)


@pytest.mark.parametrize(("normal", "executions"), [("include", 3), ("exclude", 2), ("only", 1)])
def test_the_normal_part_can_be_left_out_or_taken_alone(normal: str, executions: int) -> None:
    assert len(of("execution.started", read(normal=normal))) == executions


def test_single_minutes_can_be_chosen() -> None:
    summary = load(BAKERY, Options(minutes=frozenset(["09_00"]), normal="exclude")).summary
    assert (summary.steps, summary.logs, summary.samples) == (4, 3, 2)


def test_a_span_of_time_keeps_executions_whole_and_counts_the_rest() -> None:
    timeline = load(BAKERY, Options(from_unix_us=NINE, until_unix_us=NINE + 50_000))
    assert (timeline.summary.steps, timeline.summary.logs, timeline.summary.samples) == (3, 3, 0)
    assert timeline.summary.skipped["outside the chosen time"] == 7


@pytest.mark.parametrize("path", [BAKERY.parent / "bakery", BAKERY / DAY])
def test_a_set_and_a_day_are_recognised(path: Path) -> None:
    assert detect_format(path) == "trainticket"
    assert load(path).summary.steps == 6


def test_an_archive_is_read_as_the_folder_in_it(tmp_path: Path) -> None:
    archive = tmp_path / "set.tar.xz"
    with tarfile.open(archive, "w:xz") as tar:
        tar.add(BAKERY, "bakery")
        outside = tarfile.TarInfo("../outside.csv")
        tar.addfile(outside)
    assert list(load(archive).events()) == list(load(BAKERY).events())
    assert [path.name for path in tmp_path.iterdir()] == ["set.tar.xz"]


def test_errors_name_what_is_wrong_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SpanImportError, match=r"nowhere: no such file or folder\.$"):
        load(tmp_path / "nowhere")
    with pytest.raises(SpanImportError, match="neither OTLP/JSON traces"):
        load(tmp_path)
    with pytest.raises(SpanImportError, match="no day 1999-01-01 in it"):
        load(BAKERY, Options(days=frozenset(["1999-01-01"])))
    with pytest.raises(SpanImportError, match=r"no file 23_59\.csv in the chosen days"):
        load(BAKERY, Options(minutes=frozenset(["23_59"])))
    with pytest.raises(SpanImportError, match=r"09_01\.csv row 4: span: StartTimeUnixNano"):
        load(BAKERY, Options(strict=True))
    with pytest.raises(SpanImportError, match="more than 3 items"):
        load(BAKERY, Options(max_items=3))
    (tmp_path / "broken.tar.xz").write_bytes(b"no archive")
    with pytest.raises(SpanImportError, match=r"broken\.tar\.xz: cannot be unpacked"):
        load(tmp_path / "broken.tar.xz")


def test_a_missing_column_and_a_foreign_column_order(tmp_path: Path) -> None:
    day = tmp_path / "2024-01-01"
    (day / "trace").mkdir(parents=True)
    file = day / "trace" / "00_00.csv"
    file.write_text("SpanID,TraceID\ns,t\n")
    with pytest.raises(SpanImportError, match=r"00_00\.csv row 1: column ParentID is missing"):
        load(day)
    file.write_text(
        "\ufeffEndTimeUnixNano,StartTimeUnixNano,OperationName,PodName,ParentID,SpanID,TraceID\n3000,1000,op,pod,root,s,t\n"
    )
    assert of("step.completed", read(day))[0]["duration_us"] == 2


def test_wrong_utf_8_and_huge_fields_cost_no_other_row(tmp_path: Path) -> None:
    shutil.copytree(BAKERY / DAY, tmp_path / DAY)
    file = tmp_path / DAY / "trace" / "09_00.csv"
    with file.open("ab") as out:
        out.write(b'%s,x1,root,pod-\xff,"%s",1000,2000,1\n' % (b"d4" * 16, b"o" * 200_000))
        out.write(b'%s,x2,root,pod,"%s",1000,2000,1\n' % (b"d4" * 16, b"o" * (17 << 20)))
        out.write(b"%s,x3,root,pod,op,1000,2000,1\n" % (b"d5" * 16))
    summary = load(tmp_path / DAY).summary
    assert (summary.steps, summary.skipped["row: not CSV"]) == (8, 1)
