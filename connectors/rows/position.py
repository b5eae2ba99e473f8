"""Where a record stood on the log, and how times and texts are put into columns."""

from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Position(NamedTuple):
    """Topic, partition and offset of the message that rows come from."""

    topic: str
    partition: int
    offset: int


def turned(rows: list[tuple[Any, ...]], width: int) -> list[tuple[Any, ...]]:
    """Return rows as columns; `width` empty columns when there are none."""
    return list(zip(*rows, strict=True)) if rows else [()] * width


def timestamp(unix_us: int) -> datetime:
    """Return microseconds since 1970 as a time, exactly (a float of seconds would not be)."""
    return EPOCH + timedelta(microseconds=unix_us)


def optional_timestamp(unix_us: int) -> datetime | None:
    """Return the time, or None for 0, which means unknown."""
    return timestamp(unix_us) if unix_us else None


def text(value: str) -> str:
    """Return a text that PostgreSQL takes: it refuses the character NUL, which JSON may hold."""
    return value.replace("\x00", "\ufffd") if "\x00" in value else value
