"""Deterministic ids: the same thing has the same id whenever and wherever it is derived."""

from hashlib import blake2b

SEPARATOR = "\x1f"


def derived_id(*parts: str | int) -> str:
    """Return 32 hex digits that identify `parts` (128 bits of BLAKE2b over the parts in order)."""
    text = SEPARATOR.join(map(str, parts))
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
