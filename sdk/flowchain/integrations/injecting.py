"""Headers on produced records, as long as the broker takes them."""

from typing import Any

from flowchain.integrations.carrying import carried
from flowchain.integrations.guarding import tracker

REFUSALS = frozenset(("UNSUPPORTED_VERSION", "UNSUPPORTED_FOR_MESSAGE_FORMAT", "UnsupportedVersionError", "UnsupportedForMessageFormatError"))
"""Errors of brokers that know no headers."""
TOO_LARGE = frozenset(("MSG_SIZE_TOO_LARGE", "MESSAGE_TOO_LARGE", "MessageSizeTooLargeError"))

KafkaHeaders = list[tuple[str, bytes | None]]
_refused: set[str] = set()
"""Topics that get no headers any more; `*` for all."""


def headers_for(topic: str, given: Any) -> KafkaHeaders | None:
    """Return the headers to produce with; None: leave those that the host gave."""
    if "*" in _refused or topic in _refused:
        return None
    headers = carried(given)
    return headers and [(name, value.encode() if isinstance(value, str) else value) for name, value in headers]


def with_headers(given: dict[str, Any]) -> dict[str, Any] | None:
    """Return the arguments of a send with the flow in their `headers`; None: send with what the host gave."""
    headers = headers_for(given["topic"], given.get("headers"))
    return None if headers is None else {**given, "headers": headers}


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
