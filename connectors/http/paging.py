"""Pages by cursor: where the last page ended, never how many rows to skip, so that new rows shift nothing."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Generic, TypeVar

import orjson
from fastapi import Depends, Query
from pydantic import BaseModel, Field

from connectors.http.problems import FieldProblem, Refused

Limit = Annotated[int, Query(ge=1, le=1000, description="at most so many")]
Cursor = Annotated[str | None, Query(max_length=1024, description="`next` of the page before")]


R = TypeVar("R")
T = TypeVar("T")


class Page(BaseModel, Generic[T]):
    """Some of a list."""

    items: list[T]
    next: str | None = Field(None, description="cursor of the next page; null: this was the last")


class Paging:
    """Which page is asked for."""

    def __init__(self, limit: int, cursor: str | None) -> None:
        self.limit = limit
        self._cursor = cursor

    def after(self, *kinds: type) -> tuple[Any, ...] | None:
        """Return the key of the last row of the page before, None on the first page.

        Raises Refused when the cursor is none of ours, or one of another list: its parts are not of these kinds.
        """
        if self._cursor is None:
            return None
        try:
            key = orjson.loads(urlsafe_b64decode(self._cursor.encode()))
        except ValueError:
            key = None
        if not isinstance(key, list) or [type(part) for part in key] != list(kinds):
            raise Refused(422, "query.cursor: not a cursor of this list", errors=[FieldProblem(field="query.cursor", reason="not a cursor of this list")])
        return tuple(key)

    def behind(self) -> dict[str, Any]:
        """Return `after_us` and `after_id` of a list by time and id; `after_us` is None on the first page."""
        after_us, after_id = self.after(int, str) or (None, "")
        return {"after_us": after_us, "after_id": after_id}

    def page(self, rows: Sequence[R], key: Callable[[R], Sequence[Any]], item: Callable[[R], T]) -> Page[T]:
        """Return the page of rows that were asked for with one more than `limit`."""
        some = rows[: self.limit]
        following = urlsafe_b64encode(orjson.dumps(list(key(some[-1])))).decode() if len(rows) > self.limit else None
        return Page(items=[item(row) for row in some], next=following)


async def _paging(limit: Limit = 100, cursor: Cursor = None) -> Paging:
    return Paging(limit, cursor)


Paged = Annotated[Paging, Depends(_paging)]
