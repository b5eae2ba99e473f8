"""What a channel is."""

from collections.abc import Callable
from typing import Protocol

from flowchain.counts import Counts

Encoded = tuple[bytes, bytes]
"""(key, value) of one event."""


class Channel(Protocol):
    """Takes events in order. It may raise; the publisher then counts the events as lost and goes on."""

    def send(self, events: list[Encoded]) -> list[Encoded]:
        """Take events and return those that there was no room for, to be given again later."""

    def poll(self, timeout_s: float) -> None:
        """Do what is due (delivery reports, a batch), waiting at most `timeout_s` where there is nothing to do."""

    def close(self, timeout_s: float) -> int:
        """Deliver what was taken, within `timeout_s`; return how many events are given up."""


MakeChannel = Callable[[Counts], Channel]
