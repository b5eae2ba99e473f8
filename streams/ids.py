"""Deterministic ids: the same thing has the same id whenever and wherever it is derived."""

import json
from functools import lru_cache
from hashlib import blake2b

SEPARATOR = "\x1f"


def derived_id(*parts: str | int) -> str:
    """Return 32 hex digits that identify `parts` (128 bits of BLAKE2b over the parts in order)."""
    text = SEPARATOR.join(map(str, parts))
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


@lru_cache(maxsize=16_384)
def key_of(*parts: str | int) -> str:
    """Return a key that `parts_of` takes apart again, whatever the parts hold: a JSON array of strings."""
    return json.dumps(list(map(str, parts)), separators=(",", ":"))


def parts_of(key: str) -> list[str]:
    """Return the parts that a key was made of; raises ValueError if it is none."""
    parts = json.loads(key)
    if not isinstance(parts, list) or not parts or not all(isinstance(part, str) for part in parts):
        raise ValueError(f"not a key: {key!r}")
    return parts
