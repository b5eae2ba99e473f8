"""Sampling that never hurts: of executions that went well, and only their detail.

Detail is what no count is made of: the `attributes` of events. Every event is sent, always, so windows, traces, missing steps and
graphs are the same with and without sampling; only attributes may be left out. A share of the executions (chosen by a hash of
their ids, so that every service chooses the same ones) keeps them, with the attribute `sampledrate` = how many executions
like it this one's detail stands for (CloudEvents' extension of that name). An execution that failed or was slow in this service keeps them
too, without `sampledrate`: it stands for itself.

Whether it went well is known at its end. So the events of an execution are held back from the first attribute on, until this
process leaves the execution, but never longer than `slow_ms`: what lasts longer is slow, and goes out whole at once. When
too many are held, the detail of further ones is sent whole, too.
"""

import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from flowchain.clock import Clock

MAX_HELD = 10_000
"""Events; further executions keep their detail."""
MAX_TROUBLED = 10_000
"""Executions remembered as failed or slow; the oldest are forgotten."""
MAX_SLOW_MS = 1_000.0
"""The pipeline waits 2 s for late events: what is held back must be well within that."""

Event = dict[str, Any]


@dataclass
class _Open:
    """An execution this process works on, or holds events of."""

    scopes: int = 0
    since_us: int = 0
    """When the first event was held."""
    events: list[Event] = field(default_factory=list)


class Sampler:
    """Decides about detail. `send(key, event)` takes what is decided; safe to use from any thread."""

    def __init__(self, send: Callable[[str, Event], None], clock: Clock, rate: float, slow_ms: float = 500.0) -> None:
        self._send = send
        self._clock = clock
        self._share = max(0.0, min(rate, 1.0))
        self._stands_for = round(1 / self._share) if self._share else 0
        self._slow_us = int(max(0.0, min(slow_ms, MAX_SLOW_MS)) * 1000)
        self._begin()
        if hasattr(os, "register_at_fork"):
            reference = weakref.ref(self)
            os.register_at_fork(after_in_child=lambda: _after_fork(reference))

    def _begin(self) -> None:
        self._lock = threading.RLock()
        self._open: OrderedDict[str, _Open] = OrderedDict()
        self._troubled: OrderedDict[str, None] = OrderedDict()
        self._held = 0

    def enter(self, execution: str) -> None:
        """Note that one more scope of this process works on an execution."""
        with self._lock:
            self._open.setdefault(execution, _Open()).scopes += 1

    def leave(self, execution: str) -> None:
        """Note that one fewer does; with the last one, what is held goes out: all went well."""
        with self._lock:
            state = self._open.get(execution)
            if state is None:
                return
            state.scopes -= 1
            if state.scopes > 0:
                return
            del self._open[execution]
            events = self._taken(state)
        chosen = bool(events) and self._is_chosen(execution)
        for event in events:
            self._send(execution, self._weighted(event) if chosen else _reduced(event))

    def emit(self, key: str, event: Event) -> None:
        """Send an event, now or when its execution is decided."""
        execution = event.get("execution")
        if execution is not None:
            with self._lock:
                released = self._decided(execution, event)
            if released is None:
                return
            for earlier in released:
                self._send(execution, earlier)
        self._send(key, event)

    def _decided(self, execution: str, event: Event) -> list[Event] | None:
        """Return the earlier events that go out with this one; None where this one is held, too."""
        if execution in self._troubled:
            return []
        state = self._open.get(execution)
        if self._is_trouble(event):
            return self._found_troubled(execution, state)
        if state is not None and state.events:
            if self._held >= MAX_HELD:
                return self._found_troubled(execution, state)
        elif "attributes" not in event or self._held >= MAX_HELD:
            return []
        else:
            state = state or self._open.setdefault(execution, _Open())
            state.since_us = self._clock.elapsed_us()
            self._open.move_to_end(execution)
        state.events.append(event)
        self._held += 1
        return None

    def _is_trouble(self, event: Event) -> bool:
        return bool(event["type"].endswith(".failed") or event.get("duration_us", 0) >= self._slow_us)

    def _is_chosen(self, execution: str) -> bool:
        digest = blake2b(execution.encode("utf-8", "replace"), digest_size=4).digest()
        return int.from_bytes(digest) < self._share * 2**32

    def _weighted(self, event: Event) -> Event:
        """Return an event with `sampledrate` among its attributes, if it has any; the contract allows 32."""
        if "attributes" not in event:
            return event
        attributes = dict(list(event["attributes"].items())[:31])
        return {**event, "attributes": {**attributes, "sampledrate": self._stands_for}}

    def _found_troubled(self, execution: str, state: _Open | None) -> list[Event]:
        self._troubled[execution] = None
        if len(self._troubled) > MAX_TROUBLED:
            self._troubled.popitem(last=False)
        return [] if state is None else self._taken(state)

    def _taken(self, state: _Open) -> list[Event]:
        events, state.events = state.events, []
        self._held -= len(events)
        return events

    def release_slow(self) -> None:
        """Send whole what has been held for `slow_ms`: its execution is slow. To be called every few milliseconds."""
        self._release(self._clock.elapsed_us() - self._slow_us)

    def release_all(self) -> None:
        """Send whole what is held: the service ends, and nobody will know how it would have gone on."""
        self._release(self._clock.elapsed_us())

    def _release(self, since_us: int) -> None:
        for execution, events in self._overdue(since_us):
            for event in events:
                self._send(execution, event)

    def _overdue(self, since_us: int) -> list[tuple[str, list[Event]]]:
        if not self._held:
            return []
        with self._lock:
            due = [(key, state) for key, state in self._open.items() if state.events and state.since_us <= since_us]
            for key, state in due:
                if not state.scopes:
                    del self._open[key]
            return [(key, self._found_troubled(key, state)) for key, state in due]


def _reduced(event: Event) -> Event:
    return {key: value for key, value in event.items() if key != "attributes"} if "attributes" in event else event


def _after_fork(reference: weakref.ref[Sampler]) -> None:
    sampler = reference()
    if sampler is not None:
        sampler._begin()
