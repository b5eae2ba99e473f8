"""The upper bound: a loop that only consumes and decodes, with the worker's decoder and client settings.

usage: python -m infra.bench.raw_consume BOOTSTRAP_SERVERS TOPIC GROUP SECONDS EVENTS REPORT
"""

import sys
import time
from pathlib import Path

from confluent_kafka import Consumer, Message

from infra.bench.counting import Count
from streams.events import decode_chunk

CHUNK = 5_000


def main(servers: str, topic: str, group: str, seconds: str, events: str, report: str) -> None:
    """Read until the time is up or everything is read."""
    count = Count(float(seconds), int(events))
    consumer = Consumer(
        {
            "bootstrap.servers": servers, "group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False,
            "fetch.queue.backoff.ms": 5, "queued.max.messages.kbytes": 65_536,
        }
    )  # fmt: skip
    consumer.subscribe([topic])
    while True:
        messages = [message for message in consumer.consume(CHUNK, 0.02) if message.error() is None]
        decoded = decode_chunk(list(map(Message.value, messages)))
        if messages and count.finished(time.perf_counter(), len(decoded.events)):
            break
    count.write(Path(report), time.perf_counter())
    consumer.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
