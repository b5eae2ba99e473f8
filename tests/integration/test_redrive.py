"""A second chance for dead letters, on a real broker: each passes once, and what cannot pass stays with the reason."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers_ingest import Pipeline, Raw, completed, now_us, pipeline, stop
from typer.testing import CliRunner

from connectors.deadletters import letter_headers
from infra.cli import app
from infra.devstack import Stack
from schemas.operations import DeadLetter
from schemas.topics import EVENTS, EVENTS_DLQ

pytestmark = pytest.mark.timeout(200)
S = 1_000_000


def dlq(pipe: Pipeline, *arguments: str, **env: str) -> Any:
    """Run a `flowchain dlq` command; return what it prints."""
    given = {name: str(getattr(pipe.settings, name)) for name in pipe.settings.model_fields_set}
    variables = {f"FLOWCHAIN_{name.upper()}": value for name, value in {**given, **env}.items()}
    done = CliRunner().invoke(app, ["dlq", *arguments, "--json"], env=variables, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def kept(report: dict[str, Any]) -> dict[str, str]:
    return {entry["letter"]: entry["why"] for entry in report["kept"]}


def test_each_letter_passes_once_and_what_cannot_pass_stays_with_the_reason(stack: Stack, tmp_path: Path) -> None:
    with pipeline(stack, tmp_path, source_partitions=2, grace_s=5, future_s=5, tick_idle_s=60) as pipe:
        pipe.send(
            [
                Raw(completed("good", now_us()), partition=1),
                Raw(completed("ahead", now_us() + 100 * S), b"ahead", 1, [("trace", b"1")]),
                Raw(completed("behind", now_us() - 100 * S), b"behind", 1),
                Raw(b"{", b"broken", 1),
            ]
        )
        pipe.start()
        pipe.eventually(lambda: pipe.refused() == 3)
        # Refused by a contract of yesterday, and a record that nobody here has refused.
        told = DeadLetter(topic=pipe.settings.topic("flowchain.events.v1"), partition=0, offset=7, stage="validate", reason="unknown field")
        pipe.put(EVENTS_DLQ, {b"mended": completed("mended", now_us())}, letter_headers([], told))
        pipe.put(EVENTS_DLQ, {b"foreign": b"\xff"}, [("__connect.errors.topic", b"\xff")])

        listed = {entry["letter"]: entry for entry in dlq(pipe, "list")}
        assert sorted(entry["stage"] for entry in listed.values()) == ["decode", "foreign", "future", "late", "validate"]
        assert {entry["disposition"] for entry in listed.values()} == {"refused"}
        name = {entry["stage"]: letter for letter, entry in listed.items()}

        assert dlq(pipe, "redrive", name["decode"])["sent"] == 0
        assert dlq(pipe, "redrive", "--dry-run") | {"kept": 0} == {"letters": 5, "sent": 0, "would_pass": 1, "kept": 0}
        report = dlq(pipe, "redrive")
        assert (report["letters"], report["sent"]) == (5, 1)
        why = kept(report)
        assert why[name["late"]].startswith("late: 1") and "(grace_s)" in why[name["late"]]
        assert "(future_s)" in why[name["future"]]
        assert why[name["decode"]].startswith("decode: not JSON")
        assert why[name["foreign"]].startswith("foreign")
        pipe.settles_at(2)

        assert kept(dlq(pipe, "redrive", "--stage", "validate")) == {name["validate"]: "it was sent again before"}
        listed = {entry["letter"]: entry for entry in dlq(pipe, "list")}
        assert len(listed) == 5, "marks are no letters"
        assert listed[name["validate"]]["disposition"] == "redriven"
        assert dlq(pipe, "redrive", "--stage", "validate", "--again")["sent"] == 1
        assert stop(pipe.workers[-1]) == 0

        # With other limits they pass, with their own headers, in their own partition.
        pipe.start(GRACE_S="600", FUTURE_S="600")
        partition, offset = name["future"].split(":")
        assert dlq(pipe, "redrive", f"{partition}:0-{offset}", "--stage", "future", FUTURE_S="600")["sent"] == 1
        pipe.settles_at(3)
        assert dlq(pipe, "redrive", "--stage", "late", GRACE_S="600")["sent"] == 1
        pipe.settles_at(4)
        assert pipe.events_counted() == 4, "the letter that was sent twice was a duplicate"
        again = [m for m in pipe.read(EVENTS) if m.key() == b"ahead"]
        assert [(m.partition(), m.headers()) for m in again] == [(1, [("trace", b"1")])] * 2
