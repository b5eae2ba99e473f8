"""What must be there against what is there: how many are missing, too many, different or twice, and which. Pure."""

from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from math import isclose
from typing import Any

import msgspec

Record = dict[str, Any]
Version = tuple[int, ...]
"""Orders the records of one thing: the highest is right."""
SHOWN = 5
"""Differences that are kept per kind, to be shown."""
pack = msgspec.msgpack.Encoder(order="deterministic").encode
unpack: Callable[[bytes], Record] = msgspec.msgpack.Decoder().decode


@dataclass(frozen=True)
class Difference:
    """One thing that is not as it must be."""

    record: str
    """Which one, in words."""
    field: str
    expected: Any
    found: Any


@dataclass
class Tally:
    """How one kind of record came out."""

    kind: str
    expected: int = 0
    found: int = 0
    missing: int = 0
    extra: int = 0
    different: int = 0
    duplicated: int = 0
    open: int = 0
    """Found and not compared: not settled where the log ends."""
    first: list[Difference] = field(default_factory=list)

    @property
    def right(self) -> bool:
        """Whether everything is as it must be."""
        return not (self.missing or self.extra or self.different or self.duplicated)

    def note(self, what: str, record: str, name: str, expected: Any, found: Any) -> None:
        """Count one as `what` (missing, extra, different or duplicated), and keep it to be shown."""
        setattr(self, what, getattr(self, what) + 1)
        if len(self.first) < SHOWN:
            self.first.append(Difference(record, name or what, expected, found))

    def add(self, other: "Tally") -> None:
        """Add what was found of the same kind elsewhere."""
        for name in ("expected", "found", "missing", "extra", "different", "duplicated", "open"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.first = (self.first + other.first)[:SHOWN]

    def document(self) -> Record:
        """Return it for JSON."""
        return asdict(self)


class Found:
    """The records of one kind as they are found: the newest version of each, and those said twice."""

    def __init__(self, tally: Tally, *, once: bool) -> None:
        """`once`: not even the same record may be there twice."""
        self._newest: dict[Any, tuple[Version, bytes]] = {}
        self._tally = tally
        self._once = once

    def add(self, key: Any, version: Version, packed: bytes) -> None:
        """Add one record, packed."""
        known = self._newest.get(key)
        if known is not None and known[0] == version and (self._once or known[1] != packed):
            changed = next(differing(unpack(known[1]), unpack(packed)), ("", "once", "twice"))
            self._tally.note("duplicated", f"{_words(key)} version {version[0]}", *changed)
        elif known is None or version > known[0]:
            self._newest[key] = version, packed

    @property
    def newest(self) -> dict[Any, bytes]:
        """The newest version of every record."""
        return {key: packed for key, (_, packed) in self._newest.items()}


def compare(
    tally: Tally,
    expected: Mapping[Any, bytes],
    found: Mapping[Any, bytes],
    unsettled: Container[Any],
    may_be: Callable[[Record], bool] = lambda _: False,
) -> None:
    """Hold what was found against what must be there.

    Keys that are `unsettled` are not compared; `may_be` says of what is found and not expected whether that is no harm.
    """
    for key in expected:
        if key not in unsettled and key not in found:
            compare_one(tally, key, expected[key], None)
    for key, packed in found.items():
        wanted = expected.get(key)
        if key in unsettled or (wanted is None and may_be(unpack(packed))):
            tally.open += 1
        else:
            compare_one(tally, key, wanted, packed)


def compare_one(tally: Tally, key: Any, wanted: bytes | None, got: bytes | None) -> None:
    """Hold one record against what it must be; None = it is not there, or must not be."""
    tally.expected += wanted is not None
    tally.found += got is not None
    if wanted == got:
        return
    if got is None and wanted is not None:
        tally.note("missing", _words(key), "", _brief(unpack(wanted)), None)
    elif wanted is None and got is not None:
        tally.note("extra", _words(key), "", None, _brief(unpack(got)))
    elif wanted is not None and got is not None:
        change = next(differing(unpack(wanted), unpack(got)), None)
        if change is not None:
            tally.note("different", _words(key), *change)


def compare_all(
    tally: Tally,
    expected: Mapping[str, Counter[bytes]],
    found: Mapping[str, Counter[bytes]],
    unsettled: Container[str],
    may_repeat: Callable[[Record], bool],
) -> None:
    """The same for records that have no revision: of each id, all that must be said and all that was said."""
    for key in expected.keys() | found.keys():
        wanted, got = expected.get(key, Counter()), found.get(key, Counter())
        if key in unsettled:
            tally.open += got.total()
            continue
        tally.expected += len(wanted)
        tally.found += len(got)
        lacking, more = [*(wanted.keys() - got.keys())], [*(got.keys() - wanted.keys())]
        while lacking and more:
            one, other = unpack(lacking.pop()), unpack(more.pop())
            tally.note("different", key, *next(differing(one, other), ("", one, other)))
        for packed in lacking:
            tally.note("missing", key, "", _brief(unpack(packed)), None)
        for packed in more:
            tally.note("extra", key, "", None, _brief(unpack(packed)))
        for packed in wanted.keys() & got.keys():
            if got[packed] != wanted[packed] and not may_repeat(unpack(packed)):
                tally.note("duplicated", key, "times said", wanted[packed], got[packed])


def differing(expected: Any, found: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield (field, expected, found) where two records differ; floats may differ by rounding."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in dict.fromkeys([*expected, *found]):
            path = f"{name}.{key}" if name else str(key)
            yield from differing(expected.get(key), found.get(key), path)
    elif isinstance(expected, float) or isinstance(found, float):
        if expected is None or found is None or not isclose(expected, found, rel_tol=1e-9, abs_tol=1e-12):
            yield name, expected, found
    elif expected != found:
        yield name, expected, found


def _words(key: Any) -> str:
    return " ".join(map(str, key)) if isinstance(key, tuple) else str(key)


def _brief(record: Record) -> Record:
    """Return what tells a person which record it is."""
    return {name: value for name, value in record.items() if value and isinstance(value, str | int)}
