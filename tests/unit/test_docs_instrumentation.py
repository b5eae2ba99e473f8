"""docs/instrumentation.md says what is so: every wrapped library, every option, the examples."""

import argparse
import re
from pathlib import Path
from typing import Any

import pytest

import flowchain
from flowchain import w3c
from flowchain.context import READ
from flowchain.integrations import command, hooks, options
from flowchain.integrations.grpc import FAULTS
from flowchain.integrations.work import MAX_NAMES
from flowchain.tracker import MAX_PARENTS

TEXT = (Path(__file__).parents[2] / "docs" / "instrumentation.md").read_text()
LIBRARIES = {"kafka": "kafka-python", "confluent_kafka": "confluent-kafka"}


@pytest.mark.parametrize("library", sorted({name.partition(".")[0] for name in hooks.WRAPPERS}))
def test_every_wrapped_library_is_in_the_table(library: str) -> None:
    table = TEXT.partition("## What is wrapped")[2].partition("\n## ")[0]
    assert LIBRARIES.get(library, library).lower() in table.lower()


def test_options_are_those_of_the_command_and_of_the_environment() -> None:
    actions = command._parser()._actions
    flags = {flag for action in actions for flag in action.option_strings if not isinstance(action, argparse._HelpAction)}
    assert set(re.findall(r"`(--[a-z-]+)", TEXT)) == flags
    fields = {f"FLOWCHAIN_{name.upper()}" for name in options.Options.__dataclass_fields__}
    assert fields <= set(re.findall(r"FLOWCHAIN_[A-Z_]+", TEXT))


def test_headers_are_those_that_are_read() -> None:
    row = TEXT.partition("| `flowchain-chain`")[2].partition("|")[0]
    ours = {"flowchain-chain", *(f"flowchain{name}" for name in re.findall(r"`(-[a-z]+)`", row))}
    assert ours | {"traceparent", "tracestate", "baggage"} == READ


def test_limits_are_those_of_the_code() -> None:
    for limit in (
        f"{w3c.MAX_STATE_MEMBERS} members and {w3c.MAX_STATE_CHARS} characters",
        f"{w3c.MAX_BAGGAGE_MEMBERS} members and {w3c.MAX_BAGGAGE_BYTES:,} bytes", f"({MAX_PARENTS} at most)",
        f"{MAX_NAMES:,} names",
    ):  # fmt: skip
        assert limit in TEXT
    assert all(status in TEXT for status in FAULTS)


def test_the_examples_run() -> None:
    produced: list[dict[str, Any]] = []

    class Producer:
        def produce(self, topic: str, value: bytes, headers: dict[str, str]) -> None:
            produced.append(headers)

    class Record:
        topic, partition, offset, timestamp = "orders", 0, 0, 0
        headers = (("flowchain-chain", b"order"), ("flowchain-execution", b"e1"), ("flowchain-span", b"1" * 16))

    begin, join = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    before, found = options.current, dict[str, Any]()
    exec(begin, {})
    assert options.current.chain("POST /orders") == "order_to_cash" and options.current.chain("GET /health") is None
    exec(join, found)
    found["report"]([Record()], Producer())
    assert produced[0]["flowchain-execution"] == "e1" and produced[0]["flowchain-span"] != "1" * 16
    flowchain.shutdown(0.0)
    options.current = before
