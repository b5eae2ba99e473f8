"""A log line -> its level and the identity of its statement."""

import re

from connectors.spans.names import MAX_TEMPLATE, shorten

_LEVELS = {
    "TRACE": "trace",
    "DEBUG": "debug",
    "INFO": "info",
    "WARN": "warn",
    "WARNING": "warn",
    "ERROR": "error",
    "SEVERE": "error",
    "FATAL": "fatal",
    "CRITICAL": "fatal",
}
_LEVEL = "|".join(sorted(_LEVELS, key=len, reverse=True))
_STATEMENT = re.compile(rf"\d\d:\d\d:\d\d[.,]\d+\s+({_LEVEL})\s+(\S+#\d+)(?=\s|$)")
_LEVEL_WORD = re.compile(rf"\b({_LEVEL})\b")
_VALUES = re.compile(
    r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"  # UUID
    r"|\b(?=[0-9a-fA-F]*\d)[0-9a-fA-F]{8,}\b"  # trace and span ids, hashes
    r"|\d+"
)
_HEAD = 240
"""Characters in which level and code location are looked for: further on they would be quoted text."""


def parse_line(line: str) -> tuple[str, str]:
    """Return (level, template) of a log line.

    The template is the code location (`class#line`) where the line has one, because two statements can share
    a text; else the text with numbers and ids masked. A line without a level counts as info.
    """
    found = _STATEMENT.search(line, 0, _HEAD)
    if found:
        return _LEVELS[found[1]], shorten(found[2], MAX_TEMPLATE)
    word = _LEVEL_WORD.search(line, 0, _HEAD)
    return (_LEVELS[word[1]] if word else "info"), mask(line)


def mask(line: str) -> str:
    """Return the first line of a text with its values masked, 1 to 512 characters long."""
    first = line.strip().split("\n", 1)[0].replace("\x00", " ")
    return shorten(_VALUES.sub("*", first).strip() or "(empty)", MAX_TEMPLATE)
