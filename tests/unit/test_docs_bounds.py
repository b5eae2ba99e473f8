"""The table of bounds names settings, counters and metrics that exist, and leaves none out."""

import inspect
import re
from pathlib import Path

import flowchain
from agents.ingest_metrics import LIMIT_COUNTS
from connectors import telemetry
from connectors.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
BOUNDS = (ROOT / "docs" / "bounds.md").read_text()
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in BOUNDS.splitlines() if re.match(r"\| (?!what|---)", line)]
COUNTED = re.compile(r'(?:count|labels)\("(\w+_over_limit)"\)|reached\["(\w+)"\]')


def counted_in_code() -> set[str]:
    sources = [path.read_text() for folder in ("streams", "agents", "connectors") for path in (ROOT / folder).rglob("*.py")]
    return {name for source in sources for found in COUNTED.findall(source) for name in found if name} | set(LIMIT_COUNTS)


def test_every_setting_that_is_named_exists() -> None:
    arguments = set(inspect.signature(flowchain.init).parameters)
    named = {name for row in ROWS for name in re.findall(r"`([a-z_]+)`", row[1])}
    assert named <= set(Settings.model_fields) | arguments | {"flowchain"}


def test_every_limit_among_the_settings_is_named() -> None:
    limits = {name for name in Settings.model_fields if name.startswith("max_")}
    assert limits <= set(re.findall(r"`(max_\w+)`", BOUNDS))


def test_every_counter_of_a_bound_has_a_row_and_every_row_a_counter() -> None:
    named = {name for row in ROWS for name in re.findall(r"`(\w+_limit|untracked_steps)`", row[3])}
    assert named == counted_in_code()


def test_every_metric_that_is_named_exists() -> None:
    source = inspect.getsource(telemetry)
    assert all(f'"{name}"' in source for name in re.findall(r"flowchain_\w+_(?:total|records)\b", BOUNDS))


def test_no_metric_has_a_label_that_an_event_can_choose() -> None:
    ours = {"outcome", "type", "status", "bound", "worker", "topic", "partition", "table", "stage", "kind", "method", "route", "way", "basis"}
    source = inspect.getsource(telemetry)
    labels = {name for found in re.findall(r'(?:Counter|Gauge|Histogram)\(.*?\[(.*?)\]\)', source) for name in re.findall(r'"(\w+)"', found)}
    assert labels
    assert labels <= ours
