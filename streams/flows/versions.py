"""Which revisions of a flow executions may be held to: those in force by their effective times."""

from collections.abc import Iterable
from typing import NamedTuple

from streams.rules import VERSIONS


class Version(NamedTuple):
    """A revision and when it begins to hold, µs since 1970 UTC; a deleted one ends all before it."""

    revision: int
    effective_from_us: int
    deleted: bool = False


def in_force(revisions: Iterable[Version]) -> list[Version]:
    """Return the revisions that hold executions, by effective time, of revisions in their order.

    A revision holds from its effective time on, in place of all that were to hold from then on or later; as many are kept
    as workers keep.
    """
    held: list[Version] = []
    for version in revisions:
        if version.deleted:
            held = []
        else:
            held = [*(old for old in held if old.effective_from_us < version.effective_from_us), version][-VERSIONS:]
    return held
