"""Headers on produced records, as long as the broker takes them."""

from typing import Any

from flowchain.integrations.carrying import KafkaHeaders, kafka_headers
from flowchain.integrations.guarding import tracker

REFUSALS = frozenset(("UNSUPPORTED_VERSION", "UNSUPPORTED_FOR_MESSAGE_FORMAT", "UnsupportedVersionError", "UnsupportedForMessageFormatError"))
"""Errors of brokers that know no headers."""
TOO_LARGE = frozenset(("MSG_SIZE_TOO_LARGE", "MESSAGE_TOO_LARGE", "MessageSizeTooLargeError"))

_refused: set[str] = set()
"""Topics that get no headers any more; `*` for all."""


def headers_for(topic: str, given: Any) -> KafkaHeaders | None:
    """Return the headers to produce with; None: leave those that the host gave."""
    if "*" in _refused or topic in _refused:
        return None
    return kafka_headers(given)


def refused(topic: str, error: str) -> bool:
    """Note that a record with our headers was refused; True where that is because of them, and it stops."""
    if error in REFUSALS:
        _refused.add("*")
    elif error in TOO_LARGE:
        _refused.add(topic)
    else:
        return False
    tracker().guard("headers_refused", f"by the broker ({error}): records of {topic} go without them from now on")
    return True
