"""Names and ids within the bounds of the contract: the same text always becomes the same name."""

import re
from functools import lru_cache
from hashlib import blake2b

MAX_NAME, MAX_ID, MAX_TEMPLATE, MAX_MESSAGE, MAX_PARENTS = 128, 64, 512, 2048, 256
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")
_POD = re.compile(r"-[0-9a-f]{6,10}-[a-z0-9]{5}$")


def _digest(text: str, size: int) -> str:
    return blake2b(text.encode("utf-8", "replace"), digest_size=size).hexdigest()


def shorten(text: str, limit: int) -> str:
    """Return at most `limit` characters; a hash stands for what was cut: different texts stay different."""
    if len(text) <= limit:
        return text
    return f"{text[: limit - 9]}~{_digest(text, 4)}"


@lru_cache(maxsize=1 << 16)
def clean_name(text: str, default: str = "unknown") -> str:
    """Return a name of a tenant, chain, step or component: 1 to 128 characters, no control characters."""
    return shorten(_CONTROL.sub(" ", text).strip() or default, MAX_NAME)


def clean_id(text: str) -> str:
    """Return an id of at most 64 characters: the text itself, or its 128-bit hash."""
    return text if len(text) <= MAX_ID else _digest(text, 16)


@lru_cache(maxsize=1 << 16)
def service_of_pod(pod: str) -> str:
    """Return the service of a pod: its name without the replica set's hash and the pod's suffix."""
    return _POD.sub("", pod)
