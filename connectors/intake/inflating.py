"""Bodies that came compressed."""

import zlib


class TooLong(ValueError):
    """More bytes than are taken, once decompressed."""


def inflate(body: bytes, most_bytes: int) -> bytes:
    """Return the content of one whole gzip stream; TooLong beyond `most_bytes`, ValueError where it is none."""
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        found = unpacker.decompress(body, most_bytes + 1)
    except zlib.error as error:
        raise ValueError("the body is not gzip") from error
    if len(found) > most_bytes:
        raise TooLong(f"at most {most_bytes:,} bytes are taken")
    if not unpacker.eof or unpacker.unused_data:
        raise ValueError("the body is not one whole gzip stream")
    return found
