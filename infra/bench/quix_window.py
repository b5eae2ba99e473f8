"""The baseline of Quix Streams: a tumbling window that counts. Runs in an environment that has nothing of this project.

usage: python quix_window.py BOOTSTRAP_SERVERS TOPIC GROUP SECONDS EVENTS REPORT
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from counting import Count  # type: ignore[import-not-found]
from quixstreams import Application


def events_of(value: Any) -> list[Any]:
    """Return the events of a message."""
    return value if isinstance(value, list) else [value]


def main(servers: str, topic: str, group: str, seconds: str, events: str, report: str) -> None:
    """Run until the time is up or everything is read."""
    count = Count(float(seconds), int(events))
    with tempfile.TemporaryDirectory() as state:
        app = Application(
            broker_address=servers, consumer_group=group, auto_offset_reset="earliest", state_dir=state, loglevel="WARNING",
            auto_create_topics=True,
        )  # fmt: skip
        frame = app.dataframe(app.topic(topic, value_deserializer="json", key_deserializer="bytes"))
        frame = frame.apply(events_of, expand=True)

        def counted(_: Any) -> None:
            if count.finished(time.perf_counter()):
                count.write(Path(report), time.perf_counter())
                app.stop()

        frame.tumbling_window(1000, grace_ms=10_000).count().current().update(counted)
        app.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
