"""What tenants are allowed, as far as this process has read it."""

from bisect import insort

from schemas.tenants import Tenant, TierLimits


class TenantBook:
    """What every tenant is allowed: by its own record, or as the default tier is."""

    def __init__(self, tier: str = "enterprise", limits: TierLimits | None = None, limit: int = 10_000) -> None:
        """At most `limit` records are in force: of more those first by name, whatever the order in which they came."""
        self.refused = 0
        """Records that were left out because of the limit."""
        self._default = (tier, limits or TierLimits())
        self._limit = limit
        self._names: list[str] = []
        self._tenants: dict[str, Tenant] = {}

    def put(self, tenant: Tenant) -> None:
        """Put a record in force in place of the one before it."""
        if tenant.tenant not in self._tenants:
            insort(self._names, tenant.tenant)
        self._tenants[tenant.tenant] = tenant
        if len(self._names) > self._limit:
            del self._tenants[self._names.pop()]
            self.refused += 1

    def remove(self, name: str) -> None:
        """Forget a tenant: the default holds for it."""
        if self._tenants.pop(name, None) is not None:
            self._names.remove(name)

    def find(self, name: str) -> tuple[str, TierLimits]:
        """Return (tier, limits) of a tenant."""
        tenant = self._tenants.get(name)
        return self._default if tenant is None else (tenant.tier, tenant.limits)

    def __contains__(self, name: str) -> bool:
        return name in self._tenants
