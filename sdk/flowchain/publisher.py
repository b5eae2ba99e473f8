"""The way out of a service: one bounded queue, emptied by a thread of its own."""

import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from flowchain.channels import Channel, Encoded, MakeChannel
from flowchain.counts import Counts

_CHUNK = 64
"""Events given to the channel at once: the thread holds the interpreter no longer than about 0.1 ms."""
_TICK_S, _IDLE_TICK_S = 0.01, 0.05
"""How long the thread sleeps between looks at the queue, and after a second without an event. It is never woken by an event:
setting a `threading.Event` costs the host's thread several times what queueing does, and hands the interpreter over right there."""
_IDLE_AFTER_TICKS = 100
_REPORTS_S = 0.02
_ANEW_S = 1.0


@dataclass(frozen=True)
class Stats:
    """What became of the events so far (a little behind while they are on their way)."""

    published: int = 0
    delivered: int = 0
    queued: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    channels: "dict[str, Stats]" = field(default_factory=dict)
    """What became of them on each channel, where there are several; then each event counts once per channel above."""

    @property
    def lost(self) -> int:
        """Events dropped for any reason."""
        return sum(self.dropped.values())

    @property
    def pending(self) -> int:
        """Events neither delivered nor dropped yet."""
        return max(0, self.published - self.delivered - self.lost)


class Publisher:
    """Hands events to a channel. `publish` returns at once whatever the channel does, and raises nothing.

    When the queue is full, by events or by bytes, the oldest events go, counted as `queue_full`. The channel is made, used and closed in the
    publisher's thread, which starts with the first event (again in a forked child, where the queue begins empty).
    """

    def __init__(self, make_channel: MakeChannel, queue_size: int = 100_000, queue_bytes: int = 64_000_000) -> None:
        self.counts = Counts()
        self.chores: list[Callable[[], None]] = []
        """Done in the thread at every look at the queue; they must not wait."""
        self._make_channel = make_channel
        self._queue_size = max(1, queue_size)
        self._queue_bytes = queue_bytes
        self._begin()
        if hasattr(os, "register_at_fork"):
            # Weak: a publisher that nobody uses any more can go.
            reference = weakref.ref(self)
            os.register_at_fork(after_in_child=lambda: _after_fork(reference))

    def _begin(self) -> None:
        self._queue: deque[Encoded] = deque()
        self._room = threading.RLock()
        self._bytes = 0
        """Of the values in the queue; changed with `_room` held, which nobody holds for longer than that takes."""
        self._thread: threading.Thread | None = None
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._idle_ticks = 0
        self._stop_at = 0.0
        # Only the publisher's thread writes these two: the caller's side needs no counter of its own.
        self._taken = 0
        self._holding = False

    def publish(self, key: bytes, value: bytes) -> None:
        """Queue one event."""
        with self._room:
            self._bytes += len(value)
        self._queue.append((key, value))
        while len(self._queue) > self._queue_size or (self._bytes > self._queue_bytes and len(self._queue) > 1):
            self._drop_oldest()
        if self._thread is None:
            self.start()

    def stats(self) -> Stats:
        """Return the counts as of now."""
        delivered, dropped = self.counts.snapshot()
        queued = len(self._queue)
        return Stats(self._taken + queued + dropped.get("queue_full", 0), delivered, queued, dropped)

    def wait_for_room(self, events: int, timeout_s: float) -> bool:
        """Wait until the queue holds fewer than `events`; False if it took longer than `timeout_s`."""
        return _wait(lambda: len(self._queue) < events, timeout_s)

    def flush(self, timeout_s: float) -> bool:
        """Wait until every event so far is delivered or dropped; False if it took longer than `timeout_s`."""
        return _wait(self._is_settled, timeout_s)

    def _is_settled(self) -> bool:
        return not self._queue and not self._holding and self._open_reports() <= 0

    def _open_reports(self) -> int:
        """Return how many taken events the channel has not reported on yet."""
        delivered, dropped = self.counts.snapshot()
        return self._taken - delivered - sum(dropped.values()) + dropped.get("queue_full", 0)

    def close(self, timeout_s: float) -> bool:
        """Deliver what is queued within `timeout_s`, then stop; False if events were given up (they are counted).

        A later `publish` starts anew.
        """
        return self.ask_to_stop(timeout_s)()

    def ask_to_stop(self, timeout_s: float) -> Callable[[], bool]:
        """Begin to close, and return what waits for its end: so that several are closed at the same time."""
        with self._lock:
            thread = self._thread
            self._stop_at = time.monotonic() + timeout_s
            self._stop.set()
        lost = self.stats().lost

        def wait() -> bool:
            if thread is None:
                return True
            # A little longer than the thread allows itself, so that it can count what it gives up.
            thread.join(max(0.0, self._stop_at - time.monotonic()) + 1.0)
            return not thread.is_alive() and self.stats().lost == lost

        return wait

    def _drop_oldest(self) -> None:
        if self._take(1):  # else the thread was faster
            self.counts.drop("queue_full")

    def start(self) -> None:
        """Start the thread, unless it runs; the first event does so, too."""
        with self._lock:
            if self._thread is not None:
                return
            self._stop.clear()
            # Set before it runs: a finalizer that reports in between must not start another one.
            self._thread = threading.Thread(target=self._run_guarded, name="flowchain-publisher", daemon=True)
            try:
                self._thread.start()
            except RuntimeError as error:  # the interpreter is shutting down, or there are no threads left
                self._thread = None
                self._give_up("no_thread", error)

    def _run_guarded(self) -> None:
        """Run; begin anew a second after something unforeseen, since there is no one else to empty the queue."""
        while True:
            try:
                self._run()
                break
            except Exception as error:  # noqa: BLE001 - the host goes on
                self._tell_guarded(error)
                if self._stop.wait(_ANEW_S):
                    break
        self._thread = None

    def _tell_guarded(self, error: Exception) -> None:
        try:
            self.counts.tell("internal_error", error)
        except Exception:  # noqa: BLE001 - the host's logging is broken, too
            pass

    def _run(self) -> None:
        channel: Channel | None = None
        while not self._stop.is_set():
            self._do_chores()
            channel = channel or self._open()
            busy = channel is not None and self._send(channel)
            if not busy:
                self._rest()
        self._do_chores()
        self._finish(channel)

    def _open(self) -> Channel | None:
        try:
            return self._make_channel(self.counts)
        except Exception as error:  # noqa: BLE001 - the host goes on
            self.counts.tell("channel_not_opened", error)
            self._give_up("channel_not_opened")
            return None

    def _give_up(self, reason: str, error: object = "") -> None:
        """Count what is queued now as lost."""
        lost = self._take(len(self._queue))
        self._taken += len(lost)
        self.counts.drop(reason, error, len(lost))

    def _send(self, channel: Channel) -> bool:
        """Give the channel one chunk; False if there was none."""
        self._holding = True
        chunk = self._take(_CHUNK)
        refused = self._send_guarded(channel, chunk) if chunk else []
        self._taken += len(chunk) - len(refused)
        if refused:
            with self._room:
                self._bytes += sum(len(value) for _, value in refused)
            self._queue.extendleft(reversed(refused))
        self._holding = False
        self._poll_guarded(channel, _REPORTS_S if refused else 0.0)
        return bool(chunk)

    def _send_guarded(self, channel: Channel, chunk: list[Encoded]) -> list[Encoded]:
        try:
            return channel.send(chunk)
        except Exception as error:  # noqa: BLE001 - the host goes on
            self.counts.drop("channel_error", error, len(chunk))
            return []

    def _poll_guarded(self, channel: Channel, timeout_s: float) -> None:
        try:
            channel.poll(timeout_s)
        except Exception as error:  # noqa: BLE001 - the host goes on
            self.counts.tell("channel_error", error)

    def _take(self, events: int) -> list[Encoded]:
        queue = self._queue
        chunk: list[Encoded] = []
        try:
            for _ in range(events):
                chunk.append(queue.popleft())
        except IndexError:
            pass  # fewer than asked for
        with self._room:
            self._bytes -= sum(len(value) for _, value in chunk)
        return chunk

    def _do_chores(self) -> None:
        for chore in self.chores:
            try:
                chore()
            except Exception as error:  # noqa: BLE001 - the host goes on
                self.counts.tell("internal_error", error)

    def _rest(self) -> None:
        """Let events gather for a moment; a longer one when none have come for a while."""
        if self._queue or self._open_reports() > 0:
            self._idle_ticks = 0
        self._idle_ticks += 1
        self._stop.wait(_TICK_S if self._idle_ticks < _IDLE_AFTER_TICKS else _IDLE_TICK_S)

    def _finish(self, channel: Channel | None) -> None:
        while channel is not None and self._queue and time.monotonic() < self._stop_at:
            self._send(channel)
        self._give_up("closed")
        if channel is not None:
            self.counts.drop("closed", events=self._close_channel(channel))

    def _close_channel(self, channel: Channel) -> int:
        try:
            return channel.close(max(0.0, self._stop_at - time.monotonic()))
        except Exception as error:  # noqa: BLE001 - the host goes on
            self.counts.tell("channel_error", error)
            return 0


def _wait(is_done: Callable[[], bool], timeout_s: float) -> bool:
    until = time.monotonic() + timeout_s
    while not is_done():
        if time.monotonic() >= until:
            return False
        time.sleep(0.001)
    return True


def _after_fork(reference: weakref.ref[Publisher]) -> None:
    publisher = reference()
    if publisher is not None:
        publisher.counts.after_fork()
        publisher._begin()
