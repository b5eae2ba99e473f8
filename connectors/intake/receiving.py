"""What the OTLP receivers share: a request is answered when the brokers have its spans."""

import threading
from concurrent.futures import Future

from connectors.acknowledged import AcknowledgedProducer
from connectors.intake.spans import Received
from connectors.settings import Settings
from connectors.spans.model import Options
from connectors.telemetry import INTAKE_SPANS
from schemas.topics import SPANS


def options_of(settings: Settings) -> Options:
    """Return how spans are read."""
    return Options(tenant_attribute=settings.intake_tenant_attribute)


class Reception:
    """Takes what requests hold; any thread may call."""

    def __init__(self, settings: Settings, producer: AcknowledgedProducer) -> None:
        self.options = options_of(settings)
        self._topic = settings.topic(SPANS.name)
        self._producer = producer
        self._free = threading.BoundedSemaphore(settings.intake_requests)

    def enter(self) -> bool:
        """Return whether one more request may be worked on; whoever may says `leave` at its end."""
        return self._free.acquire(blocking=False)

    def leave(self) -> None:
        """Make room for the next request."""
        self._free.release()

    def store(self, received: Received, way: str) -> Future[None]:
        """Have the spans of a request stored; the future ends as the brokers say."""
        stored = self._producer.send((self._topic, trace, spans) for trace, spans in received.records)
        stored.add_done_callback(lambda done: _count(received, way, stored=done.exception() is None))
        return stored


def _count(received: Received, way: str, *, stored: bool) -> None:
    INTAKE_SPANS.labels(way, "stored" if stored else "refused").inc(received.spans)
    INTAKE_SPANS.labels(way, "rejected").inc(received.rejected)
