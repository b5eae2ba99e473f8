"""Deterministic ids: the same thing has the same id whenever and wherever it is derived."""

from collections.abc import Sequence
from hashlib import blake2b

SEPARATOR, ESCAPE = "\x1f", "\x1b"


def derived_id(*parts: str | int) -> str:
    """Return 32 hex digits that identify `parts` (128 bits of BLAKE2b over the parts in order)."""
    text = SEPARATOR.join(map(str, parts))
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def join_key(parts: Sequence[str]) -> str:
    """Return the key of an entry of state that is told by `parts`: different parts never have the same key.

    Parts without control characters, as the contract has them, are joined as they are.
    """
    key = SEPARATOR.join(parts)
    if ESCAPE not in key and key.count(SEPARATOR) == len(parts) - 1:
        return key
    return SEPARATOR.join(part.replace(ESCAPE, ESCAPE + "[").replace(SEPARATOR, ESCAPE + "_") for part in parts)


def split_key(key: str) -> list[str]:
    """Return the parts of a key that `join_key` made."""
    return [part.replace(ESCAPE + "_", SEPARATOR).replace(ESCAPE + "[", ESCAPE) for part in key.split(SEPARATOR)]
