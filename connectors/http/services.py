"""What the operations answer with: connections, the live view, the registry. Opened once per process."""

import structlog
from confluent_kafka import KafkaException

from connectors.acknowledged import AcknowledgedProducer
from connectors.database import Database
from connectors.http.clickhouse import ClickHouse
from connectors.http.limiting import RateLimits
from connectors.http.live.feed import Feed
from connectors.http.live.hub import Hub
from connectors.http.tokens import Tokens
from connectors.registry import Registry, relay_outbox
from connectors.settings import Settings

log = structlog.get_logger("http")


class Services:
    """Everything an operation needs; `close` ends it all."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.database = Database(settings)
        self.clickhouse = ClickHouse(settings)
        self.registry = Registry(self.database)
        self.tokens = Tokens(settings, self.database)
        self.limits = RateLimits(settings.api_rate_storage)
        self.hub = Hub(settings.live_frames)
        self.feed = Feed(settings, self.hub)
        self.events = AcknowledgedProducer(settings)

    def relay(self) -> None:
        """Publish what the registry has written; what the brokers do not take now is published by the next call."""
        try:
            relay_outbox(self.settings, self.database)
        except KafkaException as error:
            log.warning("the registry's records wait for the brokers", reason=str(error.args[0]))

    def close(self) -> None:
        """Close every connection."""
        self.feed.close()
        self.events.close()
        self.clickhouse.close()
        self.database.close()
