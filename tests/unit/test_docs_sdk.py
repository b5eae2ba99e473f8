"""docs/sdk.md says what is so: its examples run, its tables are those of the code."""

import re
from pathlib import Path

import orjson
import pytest

import flowchain
from flowchain.metrics import MAX_SERIES, PrometheusBackend
from flowchain.sampling import MAX_HELD, MAX_SLOW_MS
from flowchain.settings import Settings
from schemas.events import CHAIN_EVENT

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "sdk.md").read_text()


def first_column(heading: str) -> list[str]:
    """Return the names in the first column of the first table under a heading."""
    table = TEXT.partition(heading)[2].partition("\n|")[2].partition("\n\n")[0]
    return re.findall(r"^\| `([a-z_]+)`", table, re.MULTILINE)


def test_the_examples_run_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWCHAIN_CHANNEL", "file")
    monkeypatch.setenv("FLOWCHAIN_FILE", str(tmp_path / "events"))
    names: dict[str, object] = {}
    for block in re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL):
        exec(block, names)
    assert flowchain.shutdown(5.0)
    lines = (tmp_path / "events").read_bytes().splitlines()
    for line in lines:
        CHAIN_EVENT.validate_json(line)
    chains = {orjson.loads(line)["chain"] for line in lines}
    assert chains == {"order_to_cash", "import", "signal"}
    completed = {event["step"] for event in map(orjson.loads, lines) if event["type"] == "step.completed"}
    assert completed == {"validate", "charge", "resize", "pages", "load", "mean", "peak", "decide"}


def test_the_settings_are_those_of_the_code() -> None:
    rows = re.findall(r"^\| `([a-z_]+)` \| (?:`([^`|]*)`)? ?\| [^|]*\|$", TEXT.partition("| setting |")[2], re.MULTILINE)
    assert rows == [(name, str(value)) for name, value in Settings._field_defaults.items()]


def test_the_categories_are_those_of_the_code() -> None:
    assert first_column("## Errors") == list(flowchain.CATEGORIES)


def test_the_channels_are_those_of_the_code() -> None:
    assert first_column("## Channels and settings") == ["kafka", "http", "websocket", "file", "log"]


def test_the_metrics_are_those_of_the_code() -> None:
    import prometheus_client

    registry = prometheus_client.CollectorRegistry()
    PrometheusBackend(registry)
    made = {metric.name for metric in registry.collect()}
    section = TEXT.partition("## Metrics")[2].partition("\n## ")[0]
    named = {name.removesuffix("_total") for name in re.findall(r"`((?:flowchain_)?chains?_\w+|(?:flowchain_)?step_execution_\w+)`", section)}
    assert named - {"chain_id"} == made


def test_the_bounds_are_those_of_the_code() -> None:
    assert f"When {MAX_HELD:,} events are held" in TEXT and f"at most {MAX_SLOW_MS:.0f}" in TEXT
    assert f"At most {MAX_SERIES:,} chains and steps" in TEXT and f"within {flowchain.EXIT_TIMEOUT_S:.0f} s" in TEXT


def test_every_public_name_is_there_and_the_concept_s_names_too() -> None:
    assert all(getattr(flowchain, name) is not None for name in flowchain.__all__)
    assert {"FlowTracker", "ChainContextManager", "FlowMetricsCollector", "ChainEventPublisher"} <= set(flowchain.__all__)
    assert issubclass(flowchain.Step, flowchain.ChainContextManager)
