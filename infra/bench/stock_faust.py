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

from infra.bench.counting import Count


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
        async for value in stream:
            events = len(orjson.loads(value)) if value.startswith(b"[") else 1
            if count.finished(time.perf_counter(), events):
                count.write(report, time.perf_counter())
                return

    app.agent(app.topic(topic), name="counter")(counter)
    return app


def main(servers: str, topic: str, group: str, seconds: str, events: str, report: str) -> None:
    """Run the agent; whoever started it ends it once the report is there."""
    app = counting_app(servers, topic, group, Count(float(seconds), int(events)), Path(report))
    faust.Worker(app, loglevel="error", redirect_stdouts=False).execute_from_commandline()


if __name__ == "__main__":
    main(*sys.argv[1:])
