"""What ingest sends to the dead letters: the refused record, or of an array the refused event alone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby

from confluent_kafka import Message

from schemas.operations import DeadLetter
from streams.events import Decoded, Refused, split_array
from streams.tracker import Refusal


@dataclass(frozen=True)
class Dead:
    """An event that was refused, and where it stood."""

    message: Message
    index: int | None
    """Which event of an array; None = the record as a whole."""
    value: bytes | None
    refused: Refused

    def letter(self) -> DeadLetter:
        """Return what the headers say."""
        return DeadLetter(
            topic=self.message.topic() or "", partition=self.message.partition() or 0, offset=self.message.offset() or 0,
            index=self.index, stage=self.refused.stage, reason=self.refused.reason,
        )  # fmt: skip


def dead_letters(chunk: Sequence[Message], decoded: Decoded, refused: Sequence[Refusal]) -> Iterator[Dead]:
    """Yield the letters of a chunk's refusals."""
    owners = decoded.spread(list(range(len(chunk))))
    firsts = list(accumulate(decoded.sizes or [1] * len(chunk), initial=0))
    for owner, run in groupby(refused, lambda refusal: owners[refusal[0]]):
        message = chunk[owner]
        events = _events(message.value())
        for number, reason in run:
            index = number - firsts[owner]
            if events is None:
                yield Dead(message, None, message.value(), reason)
            else:
                yield Dead(message, index, events[index], reason)


def _events(value: bytes | None) -> list[bytes] | None:
    """Return the events of an array; None where there is nothing to tell apart."""
    try:
        return split_array(value) or None
    except (ValueError, RecursionError):
        return None  # refused as a whole: no JSON
