"""How many requests a principal may make: what the tenant's tier allows per minute."""

import time

from limits import RateLimitItemPerMinute
from limits.storage import storage_from_string
from limits.strategies import MovingWindowRateLimiter

from connectors.http.principal import Principal
from connectors.http.problems import Refused


class RateLimits:
    """Counts requests per principal over the last minute.

    With the storage `memory://` each API process counts for itself; a shared one (`redis://…`) counts over all of them.
    """

    def __init__(self, storage: str) -> None:
        self._limiter = MovingWindowRateLimiter(storage_from_string(storage))

    def take(self, principal: Principal) -> None:
        """Count one request; raises Refused (429) when it is too many, saying when to come back."""
        if principal.requests_per_minute is None:
            return
        item = RateLimitItemPerMinute(principal.requests_per_minute)
        if not self._limiter.hit(item, principal.id):
            wait_s = max(1, round(self._limiter.get_window_stats(item, principal.id).reset_time - time.time()))
            detail = f"{principal.requests_per_minute} requests per minute are allowed"
            raise Refused(429, detail, headers={"Retry-After": str(wait_s)})
