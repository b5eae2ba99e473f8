"""The baseline: a stock Faust agent that only counts. Run as its own process, because Faust owns its event loop.

usage: python -m infra.bench.stock_faust BOOTSTRAP_SERVERS TOPIC GROUP SECONDS EVENTS REPORT

After so many seconds, or when it has read all events, it writes {"events": …, "seconds": …} to the file REPORT: what
was read after the first second, so that neither the start nor the join counts.
"""

import sys
import time
from pathlib import Path

import faust
import orjson

WARM_UP_S = 1.0


class Count:
    """Counts from the end of the warm-up on; `finished` once the time is up or all events are read."""

    def __init__(self, seconds: float, events: int) -> None:
        self._seconds = seconds
        self._events = events
        self._read = 0
        self._begin_s = 0.0
        self._read_before = 0

    def finished(self, now_s: float) -> bool:
        """Count one event; tell whether it was the last."""
        self._read += 1
        self._begin_s = self._begin_s or now_s + WARM_UP_S
        if now_s < self._begin_s:
            self._read_before = self._read
        return now_s >= self._begin_s + self._seconds or self._read >= self._events

    def report(self, now_s: float) -> dict[str, float]:
        """Return what was read since the warm-up, and how long it took."""
        return {"events": self._read - self._read_before, "seconds": now_s - self._begin_s}


def counting_app(servers: str, topic: str, group: str, count: Count, report: Path) -> faust.App:
    """Return an app as Faust's own guide has it; only JSON decoding is off, and the topic is there beforehand."""
    app = faust.App(
        group,
        broker=[f"kafka://{address.strip()}" for address in servers.split(",")],
        store="memory://",
        value_serializer="raw",
        key_serializer="raw",
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        consumer_auto_offset_reset="earliest",
        autodiscover=False,
    )

    async def counter(stream: faust.StreamT[bytes]) -> None:
        async for _ in stream:
            if count.finished(time.perf_counter()):
                partial = report.with_suffix(".tmp")
                partial.write_bytes(orjson.dumps(count.report(time.perf_counter())))
                partial.replace(report)  # complete from the moment it is there
                return

    app.agent(app.topic(topic), name="counter")(counter)
    return app


def main(servers: str, topic: str, group: str, seconds: str, events: str, report: str) -> None:
    """Run the agent; whoever started it ends it once the report is there."""
    app = counting_app(servers, topic, group, Count(float(seconds), int(events)), Path(report))
    faust.Worker(app, loglevel="error", redirect_stdouts=False).execute_from_commandline()


if __name__ == "__main__":
    main(*sys.argv[1:])
