"""Entries of a changelog that are larger than a message: saved in pieces, joined when they are read back.

The first piece stands under the entry's own key, the others under that key, a unit separator and their number; so an
entry that fits looks as if there were no pieces. Keys themselves hold no control characters (`streams.ids.key_of`).
"""

from collections.abc import Iterator, Mapping

PIECE_BYTES = 8_000_000
SEPARATOR = b"\x1f"


class Pieces:
    """Cuts entries, and remembers of how many pieces the large ones are, so that none is left behind."""

    def __init__(self) -> None:
        self._more: dict[bytes, int] = {}
        """Pieces beyond the first, of the entries that have any."""

    def cut(self, key: bytes, value: bytes | None) -> Iterator[tuple[bytes, bytes | None]]:
        """Yield what is to be written for an entry; None = to be forgotten."""
        more = [] if value is None else [value[at : at + PIECE_BYTES] for at in range(PIECE_BYTES, len(value), PIECE_BYTES)]
        yield key, value if value is None else value[:PIECE_BYTES]
        for number, piece in enumerate(more, 1):
            yield _name(key, number), piece
        for number in range(len(more) + 1, self._more.pop(key, 0) + 1):
            yield _name(key, number), None
        if more:
            self._more[key] = len(more)

    def join(self, entries: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
        """Return whole entries of what was written; call before the first `cut`."""
        whole = {key: value for key, value in entries.items() if SEPARATOR not in key}
        for key in {key.partition(SEPARATOR)[0] for key in entries if SEPARATOR in key}:
            number = 1
            while (piece := entries.get(_name(key, number))) is not None:
                whole[key] += piece
                self._more[key] = number
                number += 1
        return whole


def _name(key: bytes, number: int) -> bytes:
    return key + SEPARATOR + str(number).encode()
