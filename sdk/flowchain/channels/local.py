"""Channels that leave no machine: a list, a file of JSON lines, the host's log."""

import logging
from typing import TYPE_CHECKING

from flowchain.channels.base import Encoded
from flowchain.counts import Counts

if TYPE_CHECKING:
    from pathlib import Path


class MemoryChannel:
    """Keeps the events in a list, for tests and small simulations."""

    def __init__(self, counts: Counts, events: list[Encoded]) -> None:
        self._counts = counts
        self._events = events

    def send(self, events: list[Encoded]) -> list[Encoded]:
        self._events.extend(events)
        self._counts.delivered(len(events))
        return []

    def poll(self, timeout_s: float) -> None:
        pass

    def close(self, timeout_s: float) -> int:
        return 0


class FileChannel:
    """Appends JSON lines to a file, for hosts without a way to Kafka and for tests."""

    def __init__(self, counts: Counts, path: "str | Path") -> None:
        self._counts = counts
        self._file = open(path, "ab")  # noqa: SIM115 - as long as the channel

    def send(self, events: list[Encoded]) -> list[Encoded]:
        self._file.write(b"".join(value + b"\n" for _, value in events))
        self._counts.delivered(len(events))
        return []

    def poll(self, timeout_s: float) -> None:
        self._file.flush()

    def close(self, timeout_s: float) -> int:
        self._file.close()
        return 0


class LogChannel:
    """Logs each event as one line of JSON through the logger `flowchain.events`, at INFO."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._logger = logging.getLogger("flowchain.events")

    def send(self, events: list[Encoded]) -> list[Encoded]:
        for _, value in events:
            self._logger.info("%s", value.decode())
        self._counts.delivered(len(events))
        return []

    def poll(self, timeout_s: float) -> None:
        pass

    def close(self, timeout_s: float) -> int:
        return 0
