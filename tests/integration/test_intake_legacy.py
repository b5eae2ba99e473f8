"""Topics of others: followed by the intake worker, imported by the command, and what is refused."""

import os
import subprocess
import sys
from pathlib import Path

import orjson
from helpers_ingest import ROOT, now_us
from helpers_intake import events, foreign_topic, letters, put, running_intake

from infra.devstack import Stack

GOOD, BAD = {"id": "order-1", "at": 0, "what": "pay"}, {"at": 0, "what": "pay"}


def mapping(tmp_path: Path, topic: str) -> Path:
    file = tmp_path / "mapping.yaml"
    file.write_text(f"topic: {topic}\ntype: step.completed\ntime: unix_us\nset: {{chain: orders}}\ntake: {{execution: id, step: what, time: at}}\n")
    return file


def records(*bodies: dict[str, object]) -> list[tuple[bytes | None, bytes | None, None]]:
    return [(None, orjson.dumps({**body, "at": now_us()}), None) for body in bodies]


def test_the_worker_follows_a_mapped_topic(stack: Stack, tmp_path: Path) -> None:
    topic = foreign_topic(stack, "legacy")
    with running_intake(stack, tmp_path, intake_mapping=str(mapping(tmp_path, topic))) as pipe:
        put(stack, topic, [*records(GOOD, BAD, {**GOOD, "id": "order-2"}), (None, b"{", None), (None, None, None)])
        pipe.eventually(lambda: len(events(pipe)) == 2 and len(letters(pipe)) == 3)
        assert {(event["execution"], event["step"], event["chain"]) for event in events(pipe)} == {("order-1", "pay", "orders"), ("order-2", "pay", "orders")}
        told = {letter.letter.reason for letter in letters(pipe) if letter.letter and letter.stage == "validate"}
        assert told == {"execution: its expression gives nothing"}
        assert {letter.letter.topic for letter in letters(pipe) if letter.letter} == {topic}


def test_a_topic_and_a_file_are_imported(stack: Stack, tmp_path: Path) -> None:
    topic = foreign_topic(stack, "legacy")
    put(stack, topic, records(GOOD, BAD, {**GOOD, "id": "order-2"}))
    lines = tmp_path / "records.jsonl"
    lines.write_bytes(b"\n".join(value or b"" for _, value, _ in records({**GOOD, "id": "order-3"})))
    with running_intake(stack, tmp_path) as pipe:

        def imported(*arguments: str) -> subprocess.CompletedProcess[str]:
            environment = {
                **os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'sdk'}", "FLOWCHAIN_BOOTSTRAP_SERVERS": stack.bootstrap_servers,
                "FLOWCHAIN_TOPIC_PREFIX": pipe.settings.topic_prefix, "COLUMNS": "1000",
            }  # fmt: skip
            command = [sys.executable, "-m", "infra.cli", "import", "legacy", str(mapping(tmp_path, topic)), *arguments]
            return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

        tried = imported("--dry-run", "--json")
        assert (tried.returncode, orjson.loads(tried.stdout)[topic]["events"], events(pipe)) == (1, 2, [])
        assert imported().returncode == 1
        assert {event["execution"] for event in events(pipe)} == {"order-1", "order-2"}
        done = imported(str(lines))
        assert (done.returncode, "1 records, 1 events published, 0 match no mapping" in done.stdout) == (0, True), done.stdout + done.stderr
        assert {event["execution"] for event in events(pipe)} == {"order-1", "order-2", "order-3"}
        assert orjson.loads(imported("--since", "2099-01-01", "--json").stdout)[topic]["records"] == 0


def test_an_error_in_a_mapping_file_is_told_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text("topic: t\ntype: step.stopped\ntake: {execution: id}\n")
    command = [sys.executable, "-m", "infra.cli", "import", "legacy", str(file), "--dry-run"]
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "1000"}, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr.startswith(f"error: {file}:2: type: "), done.stderr
