"""A second chance for dead letters: sent to the events topic again and marked as such, in one Kafka transaction."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import msgspec

from connectors.deadletters import StoredLetter, letter_headers
from connectors.log import read_changelog
from connectors.producers import TIMEOUT_S, transactional_producer
from connectors.settings import Settings
from connectors.topics import partition_counts
from schemas.internal import PARTITION_STATE, PartitionState
from schemas.operations import DeadLetter
from schemas.topics import EVENTS, EVENTS_DLQ, OPEN_EXECUTIONS
from streams.events import Event, Refused, decode_message

PER_TRANSACTION = 1_000


@dataclass(frozen=True)
class Kept:
    """A letter that was not sent, and why."""

    stored: StoredLetter
    why: str


class Gate:
    """Tells which letters ingest would take now."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._partitions = partition_counts(settings).get(settings.topic(EVENTS.name), 0)
        self._watermarks: dict[int, int] = {}

    def why_not(self, stored: StoredLetter) -> str | None:
        """Return why a letter would be refused again; None = it would pass."""
        if stored.letter is None:
            return "foreign: it is no dead letter of FlowChain"
        if stored.letter.partition >= self._partitions:
            return f"the events topic has no partition {stored.letter.partition}"
        return next(filter(None, (self._why_no_event(event, stored.letter) for event in decode_message(stored.value))), None)

    def _why_no_event(self, event: Event | Refused, letter: DeadLetter) -> str | None:
        if isinstance(event, Refused):
            return f"{event.stage}: {event.reason}"
        limits, time_us = self._settings.limits, event.time_unix_us
        ahead_us = time_us - time.time_ns() // 1000
        if ahead_us > limits.future_us:
            return f"future: {ahead_us / 1e6:.0f} s ahead of the clock, and {self._settings.future_s:g} are allowed (future_s)"
        behind_us = self._watermark_us(letter.partition) - time_us
        if behind_us > limits.grace_us:
            return f"late: {behind_us / 1e6:.0f} s behind its partition, and {self._settings.grace_s:g} are allowed (grace_s)"
        return None

    def _watermark_us(self, partition: int) -> int:
        """Return the event time that a partition had reached at the last commit; 0 when there was none."""
        if partition not in self._watermarks:
            entries = read_changelog(self._settings, self._settings.topic(OPEN_EXECUTIONS.name), partition)
            state = entries.get(PARTITION_STATE)
            known = 0 if state is None else msgspec.json.decode(state, type=PartitionState).watermark_unix_us
            self._watermarks[partition] = known
        return self._watermarks[partition]


def sort_out(settings: Settings, letters: Iterable[StoredLetter], *, again: bool) -> tuple[list[StoredLetter], list[Kept]]:
    """Return (letters to send, letters to keep and why); `again` = also those that were sent before."""
    gate = Gate(settings)
    send: list[StoredLetter] = []
    keep: list[Kept] = []
    for stored in letters:
        why = "it was sent again before" if stored.redriven and not again else gate.why_not(stored)
        if why is None:
            send.append(stored)
        else:
            keep.append(Kept(stored, why))
    return send, keep


def redrive(settings: Settings, letters: list[StoredLetter]) -> None:
    """Send letters to the partitions they came from, without our headers, and mark them.

    A letter and its mark are one transaction; an earlier redrive that still runs is fenced. Raises KafkaException when the
    brokers refuse.
    """
    producer = transactional_producer(settings, settings.group("redrive"))
    for batch in _batches(letters):
        producer.begin_transaction()
        for stored in batch:
            if stored.letter is None:
                raise ValueError(f"{stored.id} is no dead letter of ours")
            producer.produce(
                settings.topic(EVENTS.name), stored.value, stored.key, stored.letter.partition, headers=stored.own_headers
            )
            mark = stored.letter.model_copy(update={"disposition": "redriven", "letter_offset": stored.offset})
            producer.produce(
                settings.topic(EVENTS_DLQ.name), None, stored.key, stored.partition, headers=letter_headers([], mark)
            )
        producer.commit_transaction(TIMEOUT_S)


def _batches(letters: list[StoredLetter]) -> Iterator[list[StoredLetter]]:
    for start in range(0, len(letters), PER_TRANSACTION):
        yield letters[start : start + PER_TRANSACTION]
