"""How many of a worker's last records were refused, also across its restarts: a bad deploy stops it, and it stays stopped."""

from collections import deque


class Refusals:
    """A window over the last `window` records of all partitions; a piece of it per chunk of a partition.

    The limit is reached when more than `ratio` of a full window and of the newest chunk were refused. So a worker that
    begins again with the window of the one before it stops at the first bad chunk, and goes on once the input is good.
    """

    def __init__(self, window: int, ratio: float) -> None:
        self._window = window
        self._ratio = ratio
        self._pieces: deque[tuple[int, int, int]] = deque()
        """(partition, records, refused of them), the newest last."""

    def restore(self, partition: int, records: int, refused: int) -> None:
        """Take back what `of` said when the partition was committed last."""
        if records:
            self._pieces.appendleft((partition, records, refused))

    def add(self, partition: int, records: int, refused: int) -> bool:
        """Note a chunk; return whether the limit is reached."""
        self._pieces.append((partition, records, refused))
        seen, bad = self.total
        while len(self._pieces) > 1 and seen - self._pieces[0][1] >= self._window:
            _, fewer, fewer_bad = self._pieces.popleft()
            seen, bad = seen - fewer, bad - fewer_bad
        return seen >= self._window and bad > seen * self._ratio and refused > records * self._ratio

    def sentence(self, topic: str) -> str:
        """Return what to tell a person when the limit is reached."""
        seen, bad = self.total
        return (
            f"{bad} of the last {seen} records of {topic} were refused, more than dead_letter_ratio {self._ratio} allows; "
            "nothing behind them is read until it is raised"
        )

    def of(self, partition: int) -> tuple[int, int]:
        """Return (records, refused of them) of a partition in the window."""
        return self._sum(partition)

    def forget(self, partition: int) -> None:
        """Leave a partition to its next owner."""
        self._pieces = deque(piece for piece in self._pieces if piece[0] != partition)

    @property
    def total(self) -> tuple[int, int]:
        """(records, refused of them) in the window."""
        return self._sum(None)

    def _sum(self, partition: int | None) -> tuple[int, int]:
        held = [piece for piece in self._pieces if partition in (None, piece[0])]
        return sum(records for _, records, _ in held), sum(refused for _, _, refused in held)
