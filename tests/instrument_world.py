"""What a process reports while it is instrumented, each event held to the contract."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson

import flowchain
from schemas.events import CHAIN_EVENT


class Reported:
    """The events so far."""

    def __init__(self) -> None:
        self.encoded: list[tuple[bytes, bytes]] = []

    def __call__(self, type_prefix: str = "", step: str | None = None) -> list[dict[str, Any]]:
        publisher = flowchain._publisher
        assert publisher is not None and publisher.flush(5.0)
        for _, value in self.encoded:
            CHAIN_EVENT.validate_json(value)
        events = [orjson.loads(value) for _, value in self.encoded]
        return [e for e in events if e["type"].startswith(type_prefix) and step in (None, e.get("step"))]


@contextmanager
def reporting(service: str) -> Iterator[Reported]:
    """Keep what this process reports as `service`; nothing may be lost."""
    kept = Reported()
    flowchain.init(service, channel=lambda counts: flowchain.MemoryChannel(counts, kept.encoded))
    yield kept
    assert flowchain.stats().dropped == {}
    assert flowchain.shutdown(5.0)
