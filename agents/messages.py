"""Messages that fit: what one transaction has to say may be more than a broker takes in one record."""

from collections.abc import Callable, Iterator
from typing import TypeVar

from schemas.internal import Slice

MAX_BYTES = 2_000_000
"""Larger ones are cut, as long as there is anything to cut. Brokers take `schemas.topics.MAX_BATCH_BYTES`."""
T = TypeVar("T")
Halve = Callable[[T], tuple[T, T] | None]
"""Returns the two halves of what can be cut; None = it cannot."""


def fitting(whole: T, encode: Callable[[T], bytes], halve: Halve[T]) -> Iterator[bytes]:
    """Yield the messages that hold `whole` in its order; one is encoded when those before it have been taken."""
    value = encode(whole)
    halves = halve(whole) if len(value) > MAX_BYTES else None
    if halves is None:
        yield value
        return
    for half in halves:
        yield from fitting(half, encode, halve)


def halve_list(items: list[T]) -> tuple[list[T], list[T]] | None:
    """Return the halves of a list."""
    middle = len(items) // 2
    return (items[:middle], items[middle:]) if middle else None


def halve_slices(slices: list[Slice]) -> tuple[list[Slice], list[Slice]] | None:
    """Return the halves of a list of slices; a single slice is itself cut in two."""
    if len(slices) != 1:
        return halve_list(slices)
    (one,) = slices
    deltas, edges = len(one.deltas) // 2, (len(one.edges) + 1) // 2
    if not deltas and len(one.deltas) + len(one.edges) < 2:
        return None
    return (
        [Slice(one.end_unix_us, one.deltas[:deltas], one.edges[:edges])],
        [Slice(one.end_unix_us, one.deltas[deltas:], one.edges[edges:])],
    )
