"""The step between two requests of a consumer for records: what it was given is worked on until it asks for more."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from flowchain import records
from flowchain.integrations.guarding import tracker
from flowchain.integrations.work import Work, process

_open: "WeakKeyDictionary[Any, Work]" = WeakKeyDictionary()


def received(consumer: Any, batch: Sequence[Any]) -> None:
    """Begin the work on what the consumer returns; nothing begins where no record came with a flow."""
    if not batch:
        return
    contexts = records.contexts(tracker(), batch)
    if contexts:
        first = records.consumed(batch[0])
        _open[consumer] = process(first.topic, contexts, first)


def asked(consumer: Any) -> None:
    """End the work on what the consumer returned before, badly where it is asked (closed) while an error goes up."""
    work = _open.pop(consumer, None)
    if work is not None:
        error = sys.exc_info()[1]
        work.end(None if isinstance(error, GeneratorExit) else error)
        work.leave()


def flat(batches: Mapping[Any, Iterable[Any]]) -> list[Any]:
    """Return the records of every partition together."""
    return [record for batch in batches.values() for record in batch]
