"""Who asks, for which tenant, and what they may do."""

from dataclasses import dataclass
from typing import Literal

from connectors.database import EVERY_TENANT
from connectors.keys import ROLES, Role

Right = Literal["read", "act", "define", "emit", "administer"]
RIGHTS: dict[Right, frozenset[Role]] = {
    "read": frozenset(ROLES),
    "act": frozenset({"operator", "admin"}),
    "define": frozenset({"admin", "service"}),
    "emit": frozenset({"service", "operator", "admin"}),
    "administer": frozenset({"admin"}),
}
"""read: see; act: acknowledge, silence, judge, redrive; define: register flows; emit: send events; administer: keys, credentials, tenants, audit."""


@dataclass(frozen=True)
class Principal:
    """Whoever is behind a key or a token."""

    id: str
    """`key:<id>` or `oidc:<subject>`; stands in the audit log."""
    tenant: str
    """One tenant, or EVERY_TENANT."""
    role: Role
    requests_per_minute: int | None = None
    """What the tenant's tier allows; None = no limit."""

    def may(self, right: Right) -> bool:
        """Whether the role has a right."""
        return self.role in RIGHTS[right]

    def reaches(self, tenant: str) -> bool:
        """Whether a tenant is this principal's."""
        return self.tenant in (EVERY_TENANT, tenant)
