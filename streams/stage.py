"""The contract of a stage: pure state that is fed batches in order, saved in small entries, and restored exactly.

A stage's shell calls, for one partition and from one thread:

1. `restore(key, value)` once for every saved entry, before anything else;
2. the stage's own `apply(...)` with what came, in log order. It may take long, must not block on anything outside,
   must not look at the wall clock (time is in the data), and returns what is to be published. It raises only on a
   programming error: bad input has been refused before it gets here;
3. `changes()` after the outputs of `apply` are safely published: the entries that differ from what was saved last,
   `None` for those that are to be forgotten. The shell writes them and only then acknowledges the input.

So after a crash some input is applied again, on an older state: `apply` must give the same outputs again, under the
same ids and revisions, and must skip what an entry has already seen.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Protocol


class Stage(Protocol):
    """State that can be saved and restored entry by entry."""

    reached: Counter[str]
    """How often a bound was reached, by its name; the shell takes the counts away."""

    def restore(self, key: str, value: bytes) -> None:
        """Take back one entry that `changes` gave; raises ValueError if it is not one."""

    def changes(self) -> Iterator[tuple[str, bytes | None]]:
        """Yield (key, value) of entries changed since the last call; None = forget it."""
