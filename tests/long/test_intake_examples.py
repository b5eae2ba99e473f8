"""The examples in other languages run as they stand: each where its tools are on PATH, with what it depends on from its registry."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import Message, Producer
from helpers_ingest import pipeline
from helpers_intake import events, running_intake

from infra.devstack import Stack
from schemas.events import CHAIN_EVENT
from schemas.topics import EVENTS

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


def run(command: list[str], folder: Path) -> None:
    """Run a command that must end well; what it said is the failure otherwise."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, command))[:200]}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"


def with_packages(example: str, tmp_path: Path) -> Path:
    """Return a copy of a folder of examples with its npm packages."""
    folder = shutil.copytree(EXAMPLES / example, tmp_path / example)
    run(["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--loglevel", "error"], folder)
    return folder


def python(tmp_path: Path) -> tuple[list[str], Path]:
    return [sys.executable, "produce.py"], EXAMPLES / "produce"


def node(tmp_path: Path) -> tuple[list[str], Path]:
    return ["node", "produce.mjs"], with_packages("produce", tmp_path)


def go(tmp_path: Path) -> tuple[list[str], Path]:
    return ["go", "run", "."], EXAMPLES / "produce" / "go"


def java(tmp_path: Path) -> tuple[list[str], Path]:
    import jgo

    jars = ":".join(map(str, jgo.build("org.apache.kafka:kafka-clients:4.3.1+org.slf4j:slf4j-nop:1.7.36").all_jars))
    run(["javac", "-cp", jars, "-d", str(tmp_path), str(EXAMPLES / "produce" / "Produce.java")], tmp_path)
    return ["java", "-cp", f"{jars}:{tmp_path}", "Produce"], tmp_path


def needs(*tools: str) -> pytest.MarkDecorator:
    missing = [tool for tool in tools if shutil.which(tool) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not on PATH: {', '.join(missing)}")


LANGUAGES = [
    pytest.param(python, "order-python", id="python"), pytest.param(node, "order-node", id="node", marks=needs("node", "npm")),
    pytest.param(go, "order-go", id="go", marks=needs("go")), pytest.param(java, "order-java", id="java", marks=needs("javac", "java")),
]  # fmt: skip


@pytest.mark.parametrize(("prepared", "execution"), LANGUAGES)
def test_an_event_of_any_client_is_in_the_partition_that_all_others_choose(
    stack: Stack, tmp_path: Path, prepared: Callable[[Path], tuple[list[str], Path]], execution: str
) -> None:
    with pipeline(stack, tmp_path, source_partitions=16) as pipe:
        topic = pipe.settings.topic(EVENTS.name)
        command, folder = prepared(tmp_path)
        run([*command, stack.bootstrap_servers, topic], folder)
        (message,) = pipe.read(EVENTS)
        event = CHAIN_EVENT.validate_json(message.value() or b"")
        assert (message.key(), event.execution) == (execution.encode(), execution)  # type: ignore[union-attr]
        assert abs(event.time_unix_us / 1e6 - time.time()) < 3600
        assert message.partition() == partition_of(stack, topic, execution)


def partition_of(stack: Stack, topic: str, key: str) -> int:
    """Return the partition that murmur2 chooses."""
    placed: list[Message] = []
    producer = Producer({"bootstrap.servers": stack.bootstrap_servers, "partitioner": "murmur2_random"})
    producer.produce(topic, b"{}", key, on_delivery=lambda _, message: placed.append(message))
    producer.flush(30)
    return placed[0].partition() or 0


@needs("node", "npm")
def test_a_service_of_node_with_opentelemetry_only_is_an_execution(stack: Stack, tmp_path: Path) -> None:
    folder = with_packages("otel", tmp_path)
    with running_intake(stack, tmp_path) as pipe:
        run(["node", "trace.mjs", f"http://127.0.0.1:{pipe.settings.intake_http_port}/v1/traces"], folder)
        pipe.eventually(lambda: len(events(pipe)) == 4)
        started, charge, order, completed = events(pipe)
        assert [event["type"] for event in (started, charge, order, completed)] == ["execution.started", "step.failed", "step.completed", "execution.completed"]
        assert {(event["chain"], event["component"], event["tenant"]) for event in events(pipe)} == {("checkout POST /orders", "checkout", "acme")}
        assert (charge["error_type"], charge["error_message"], charge["parents"]) == ("TypeError", "card declined", [{"span": order["span"]}])
