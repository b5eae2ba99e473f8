"""Stretches of event time that operations are asked about."""

import re
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated

from fastapi import Depends, Query
from pydantic import AwareDatetime, BeforeValidator

from connectors.http.problems import FieldProblem, Refused

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DATE_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d")


def _is_date(value: object) -> object:
    """Refuse what pydantic would take for seconds since 1970: the document says date-time, and a number may mean anything."""
    if isinstance(value, str) and not DATE_TIME.match(value):
        raise ValueError("not a date and time as ISO 8601 has them, like 2026-11-30T12:00:00Z")
    return value


Moment = Annotated[AwareDatetime, BeforeValidator(_is_date)]
"""A moment with its offset from UTC."""
Since = Annotated[Moment | None, Query(description="from then on, ISO 8601 with an offset")]
Until = Annotated[Moment | None, Query(description="before then, ISO 8601 with an offset; now where left out")]


class Stretch:
    """From `since_us` to before `until_us`."""

    def __init__(self, since_us: int, until_us: int) -> None:
        self.since_us = since_us
        self.until_us = until_us

    @property
    def since(self) -> datetime:
        """The beginning, for PostgreSQL."""
        return datetime.fromtimestamp(self.since_us / 1e6, UTC)

    @property
    def until(self) -> datetime:
        """The end, excluded, for PostgreSQL."""
        return datetime.fromtimestamp(self.until_us / 1e6, UTC)


def unix_us(moment: datetime | None) -> int | None:
    """Return a moment as microseconds since 1970; None stays None."""
    if moment is None:
        return None
    gone = moment - EPOCH
    return (gone.days * 86_400 + gone.seconds) * 1_000_000 + gone.microseconds


def _stretch(hours: float) -> Callable[..., Awaitable[Stretch]]:
    """Return the dependency that reads `since` and `until`; `since` is so many hours before `until` where left out."""

    async def read(since: Since = None, until: Until = None) -> Stretch:
        end = _bounded(unix_us(until)) if until is not None else time.time_ns() // 1000 + 60_000_000
        start = _bounded(unix_us(since)) if since is not None else max(0, end - round(hours * 3_600_000_000))
        if start > end:
            raise Refused(422, "query.since: it is after `until`", errors=[FieldProblem(field="query.since", reason="it is after `until`")])
        return Stretch(start, end)

    return read


def _bounded(moment_us: int | None) -> int:
    """Return a time that the databases can hold: from 1970 to 2100."""
    return max(0, min(moment_us or 0, 4_102_444_800_000_000))


Hour = Annotated[Stretch, Depends(_stretch(1))]
Day = Annotated[Stretch, Depends(_stretch(24))]
Week = Annotated[Stretch, Depends(_stretch(24 * 7))]
Month = Annotated[Stretch, Depends(_stretch(24 * 30))]
