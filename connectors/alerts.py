"""The alert topic as anybody may read it."""

import time

from confluent_kafka import Consumer

from connectors.log import read_topic
from connectors.settings import Settings
from schemas.analysis import Alert
from schemas.topics import ALERTS


def alert_consumer(settings: Settings, from_start: bool) -> Consumer:
    """Return a consumer of the alert topic in a group of its own."""
    consumer = Consumer(
        {
            **settings.kafka(),
            "group.id": settings.group(f"alerts-tail-{time.time_ns()}"),
            "auto.offset.reset": "earliest" if from_start else "latest",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe([settings.topic(ALERTS.name)])
    return consumer


def newest_alerts(settings: Settings) -> list[Alert]:
    """Return the newest revision of every alert, by the time of its first fault."""
    newest: dict[str, Alert] = {}
    for message in read_topic(settings, settings.topic(ALERTS.name)):
        alert = Alert.decode(message.value() or b"")
        newest[alert.id] = alert
    return sorted(newest.values(), key=lambda alert: (alert.first_fault_unix_us, alert.id))
