"""The documentation says what is so: commands, topics, examples and links are held against the code."""

import ast
import importlib
import json
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import confluent_kafka
import pytest
import typer

import flowchain
import infra.cli
from schemas.analysis import Alert
from schemas.events import CHAIN_EVENT
from schemas.topics import CATALOGUE
from streams.events import MAX_RECORD_BYTES, Refused, decode_record

ROOT = Path(__file__).resolve().parents[2]
DOCS = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
README = (ROOT / "README.md").read_text()
ALERTS = (ROOT / "docs" / "alerts.md").read_text()
ids = [str(path.relative_to(ROOT)) for path in DOCS]


def commands_of(app: typer.Typer) -> dict[str, str]:
    """Return {command: help} of an app, groups spelled out."""
    found: dict[str, str] = {}

    def walk(command: Any, name: str) -> None:
        if hasattr(command, "commands"):
            for child, sub in command.commands.items():
                walk(sub, f"{name} {child}".strip())
        else:
            found[name] = command.help or ""

    walk(typer.main.get_command(app), "")
    return found


def all_commands() -> dict[str, str]:
    """Return the commands of every file of `infra/cli`."""
    app = typer.Typer()
    for info in pkgutil.iter_modules(infra.cli.__path__):
        if info.name != "__main__" and hasattr(
            module := importlib.import_module(f"infra.cli.{info.name}"), "register"
        ):
            module.register(app)
    return commands_of(app)


def documented_commands() -> set[str]:
    return set(re.findall(r"^\| `flowchain ([a-z0-9 -]+)` \|", README, re.MULTILINE))


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def block_with(text: str, needle: str) -> str:
    return next(block for block in blocks(text, "python") if needle in block)


# -- commands ---------------------------------------------------------------------------------------------------------


def test_every_command_has_a_row_and_every_row_a_command() -> None:
    assert documented_commands() == set(all_commands())
    assert set(commands_of(infra.cli.app)) <= documented_commands()


@pytest.mark.parametrize(("name", "text"), sorted(all_commands().items()))
def test_every_command_shows_an_example(name: str, text: str) -> None:
    assert text.strip()
    assert re.search(rf"^Example: `.*flowchain {name}\b.*`", text, re.MULTILINE), text


def test_the_set_up_is_two_commands_of_the_makefile() -> None:
    set_up = README.partition("## Set-up")[2].partition("\n## ")[0]
    assert blocks(set_up, "sh") == ["make demo\nmake test\n"]
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)`", README)) <= targets


# -- topics and settings ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [topic.name for topic in CATALOGUE])
def test_every_topic_is_named(name: str) -> None:
    assert any(name in path.read_text() for path in DOCS)


@pytest.mark.parametrize("path", DOCS, ids=ids)
def test_no_topic_is_invented(path: Path) -> None:
    named = set(re.findall(r"(?:dlq\.)?flowchain\.[a-z.]+\.v1(?!\.schema)", path.read_text()))
    assert named <= {topic.name for topic in CATALOGUE}


def test_limits_are_those_of_the_code() -> None:
    assert f"{MAX_RECORD_BYTES:,} bytes" in README


# -- examples ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", DOCS, ids=ids)
def test_examples_parse(path: Path) -> None:
    text = path.read_text()
    for block in blocks(text, "json"):
        json.loads(block)
    for block in blocks(text, "python"):
        ast.parse(block)


def test_producer_and_consumer_examples_are_short() -> None:
    for needle in ("flowchain.init", "Producer(", "Consumer("):
        code = [line for line in block_with(README, needle).splitlines() if not re.match(r"(import|from) ", line)]
        assert len(code) <= 5, needle


def test_the_plain_json_example_is_an_event(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[str, str, str]] = []

    class FakeProducer:
        def __init__(self, config: dict[str, str]) -> None:
            assert config["partitioner"] == "murmur2_random"

        def produce(self, topic: str, value: str, key: str) -> None:
            sent.append((topic, value, key))

        def flush(self) -> None:
            pass

    monkeypatch.setattr(confluent_kafka, "Producer", FakeProducer)
    exec(block_with(README, "Producer("), {})
    [(topic, value, key)] = sent
    event = CHAIN_EVENT.validate_json(value)
    assert not isinstance(decode_record(value.encode()), Refused)
    assert (topic, key) == ("flowchain.events.v1", event.execution)  # type: ignore[union-attr]


def test_the_table_of_fields_names_what_must_be_there() -> None:
    documented: dict[str, set[str]] = {}
    fields: set[str] = set()
    for types, required in re.findall(r"^\| ((?:`[a-z]+\.[a-z]+`(?:, )?)+) \| (.+) \|$", README, re.MULTILINE):
        named = set(re.findall(r"`([a-z_]+)`", required))
        fields = fields | named if required.startswith("the same") else named
        for name in re.findall(r"`([a-z.]+)`", types):
            documented[name] = fields | {"type", "time_unix_us"}
    expected = {
        schema["properties"]["type"]["const"]: set(schema["required"])
        for schema in CHAIN_EVENT.json_schema()["$defs"].values()
        if "type" in schema["properties"]
    }
    assert documented == {name: required for name, required in expected.items() if name != "clock.tick"}


def test_the_sdk_example_reports_valid_events(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    events: list[tuple[bytes, bytes]] = []
    monkeypatch.setattr("flowchain.starting.KafkaChannel", lambda counts, *_: flowchain.MemoryChannel(counts, events))
    exec(block_with(README, "flowchain.init"), {})
    assert flowchain.shutdown(5.0)
    assert "work" in capsys.readouterr().out
    types = {CHAIN_EVENT.validate_json(value).type for _, value in events}
    assert {"step.completed", "execution.started", "execution.completed"} <= types


class FakeMessage:
    def __init__(self, alert: dict[str, Any]) -> None:
        self._value = json.dumps(alert).encode()

    def value(self) -> bytes:
        return self._value

    def error(self) -> None:
        return None


def consumer_of(alerts: list[dict[str, Any]], committed: list[Any]) -> type:
    class FakeConsumer:
        def __init__(self, config: dict[str, Any]) -> None:
            self._left: Iterator[dict[str, Any]] = iter(alerts)

        def subscribe(self, topics: list[str]) -> None:
            assert topics == ["flowchain.alerts.v1"]

        def poll(self, timeout: float) -> FakeMessage | None:
            alert = next(self._left, None)
            return None if alert is None else FakeMessage(alert)

        def commit(self, message: Any) -> None:
            committed.append(message)

    return FakeConsumer


def example_alert(**changes: Any) -> dict[str, Any]:
    return json.loads(blocks(ALERTS, "json")[0]) | changes


def test_the_alert_example_is_an_alert() -> None:
    alert = Alert.decode(blocks(ALERTS, "json")[0].encode())
    fields = set(re.findall(r"`([a-z_]+)`", ALERTS.partition("| field | meaning |")[2].partition("\n\n")[0]))
    assert set(Alert.model_fields) - {"tenant"} <= fields
    assert alert.cause is not None


def test_the_short_consumer_prints_alerts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(confluent_kafka, "Consumer", consumer_of([example_alert()], []))
    exec(block_with(README, "Consumer("), {})
    assert "probable cause" in capsys.readouterr().out


def test_the_right_consumer_handles_every_revision_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    committed: list[Any] = []
    alerts = [example_alert(revision=n) for n in (0, 1, 1, 0, 2)]
    monkeypatch.setattr(confluent_kafka, "Consumer", consumer_of(alerts, committed))
    exec(block_with(ALERTS, "Consumer("), {})
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert len(committed) == len(alerts)


# -- links and paths --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", DOCS, ids=ids)
def test_linked_files_exist(path: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text())
    missing = [link for link in links if "://" not in link and not (path.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("path", DOCS, ids=ids)
def test_no_machine_paths(path: Path) -> None:
    assert not re.findall(r"(?<![\w.])/(?:home|root|tmp|work|usr|var|Users|opt|mnt)/\S*", path.read_text())


def test_the_map_shows_the_folders_that_are_there() -> None:
    named = set(re.findall(r"^\| \[([a-z]+)/\]", README, re.MULTILINE))
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages <= named


def test_the_licence_is_there() -> None:
    assert "Apache License" in (ROOT / "LICENSE").read_text()
