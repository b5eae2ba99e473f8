"""Tenants on their compacted topic: published by the registry, followed by the analysis while it runs."""

from collections.abc import Iterable

from connectors.follow import Follower
from connectors.producers import publish
from connectors.settings import Settings
from connectors.telemetry import LIMIT_REACHED
from schemas.tenants import TIERS, Tenant
from schemas.topics import TENANTS
from streams.tenants import TenantBook


def publish_tenants(settings: Settings, tenants: Iterable[Tenant]) -> int:
    """Publish tenants past the registry; return how many. Raises KafkaException when the brokers do not take one."""
    return publish(settings, TENANTS, ((tenant.tenant.encode(), tenant.encode()) for tenant in tenants))


def tenant_book(settings: Settings) -> TenantBook:
    """Return a book without records: every tenant is of the default tier."""
    return TenantBook(settings.default_tier, TIERS[settings.default_tier], settings.max_tenant_records)


class TenantReader(Follower):
    """Puts every tenant on the topic in force."""

    def __init__(self, settings: Settings, book: TenantBook) -> None:
        self._book = book
        super().__init__(settings, TENANTS, self._put)

    def _put(self, key: bytes, value: bytes | None) -> None:
        refused = self._book.refused
        if value is None:
            self._book.remove(key.decode("utf-8", "replace"))
        else:
            self._book.put(Tenant.decode(value))
        LIMIT_REACHED.labels("tenant_records_over_limit").inc(self._book.refused - refused)


def read_tenants(settings: Settings) -> TenantBook:
    """Return the tenants as the topic has them now; what is not valid is passed over, as the analysis does."""
    book = tenant_book(settings)
    TenantReader(settings, book).close()
    return book
