"""Executions and steps as context managers and decorators of functions and generators, sync and async.

What fails inside the SDK is counted and never reaches the host; what fails in the host is reported and raised on.
"""

from collections.abc import Callable, Mapping, Sequence
from contextvars import Token
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar, cast

from flowchain.context import Context, Headers, current, name
from flowchain.decorating import decorated
from flowchain.tracker import Failure, Tracker, clean_attributes, failure_of, parent_references

F = TypeVar("F", bound=Callable[..., Any])


class Consumed(NamedTuple):
    """The Kafka record that a step works on; `broker_us`: time between its production and its consumption."""

    topic: str
    partition: int
    offset: int
    broker_us: int = 0


class StepOptions(NamedTuple):
    """What a step may say beside its name."""

    component: str | None = None
    consumed: Consumed | None = None
    resources: Mapping[str, int] | None = None
    parents: Sequence[Context | None] = ()
    attempt: int | Callable[[], int] = 1
    attributes: Mapping[str, object] | None = None
    context: Context | None = None


_NO_OPTIONS = StepOptions()


class Scope:
    """Something that begins and ends around the host's code. As such it does nothing: what is left when the SDK fails."""

    __slots__ = ("_begun", "_root", "_token", "_tracker", "context")

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._token: Token[Context | None] | None = None
        self._begun = self._root = False
        self.context: Context | None = None

    def start(self) -> Context | None:
        """Report the beginning; return the context of what runs inside."""
        return None

    def complete(self) -> None:
        """Report the good end."""

    def fail(self, error_type: str, message: str | None = None, category: str | None = None) -> None:
        """Report the bad end."""

    def again(self, function: Callable[..., Any]) -> "Scope":
        """Return the scope of one call of a decorated function."""
        return Scope(self._tracker)

    def __enter__(self) -> Self:
        try:
            outer = current.get()
            context = self.start()
            if context is not None:
                self._token = current.set(context)
                self._begun = True
                if self._tracker.sampler is not None and (outer is None or outer.flow.execution != context.flow.execution):
                    self._root = True
                    self._tracker.entered(context)
        except Exception as error:  # noqa: BLE001 - the host goes on
            self._tracker.guard("internal_error", error)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.pause()
            if not self._begun:
                return
            self._begun = False
            if error is None or kind is GeneratorExit:  # whoever iterates wanted no more
                self.complete()
            else:
                self.fail(*failure_of(error))
            if self._root and self.context is not None:
                self._tracker.left(self.context)
        except Exception as internal:  # noqa: BLE001 - the host goes on
            self._tracker.guard("internal_error", internal)

    def pause(self) -> None:
        """Be current no more; what runs from now on is outside of this."""
        token, self._token = self._token, None
        if token is None:
            return
        try:
            current.reset(token)
        except ValueError as error:
            self._tracker.guard("left_elsewhere", error)  # in another task or thread than it was entered in

    def __call__(self, function: F) -> F:
        try:
            return cast(F, decorated(function, lambda: self._of_call(function)))
        except Exception as error:  # noqa: BLE001 - the host goes on
            self._tracker.guard("internal_error", error)
            return function

    def _of_call(self, function: Callable[..., Any]) -> "Scope":
        try:
            return self.again(function)
        except Exception as error:  # noqa: BLE001 - the host goes on
            self._tracker.guard("internal_error", error)
            nothing: Scope = NOTHING
            return nothing


class _Nothing(Scope):
    """What stands for an execution or a step that could not be made."""

    id: str | None = None
    resources: Mapping[str, int] | None = None


NOTHING: Any = _Nothing(Tracker("unknown", None))
"""It reports nothing, so one is enough."""


class Step(Scope):
    """One run of a step. It belongs to the running execution, else to that of its first parent, else to none."""

    __slots__ = ("_common", "_name", "_options", "_started_us", "resources")

    def __init__(self, tracker: Tracker, step: str | None, options: StepOptions = _NO_OPTIONS) -> None:
        super().__init__(tracker)
        self._name = step
        self._options = options
        self.resources = options.resources

    def again(self, function: Callable[..., Any]) -> "Step":
        return Step(self._tracker, self._name or function.__qualname__, self._options)

    def start(self) -> Context | None:
        options = self._options
        outer = options.context or current.get() or next(filter(None, options.parents), None)
        if outer is None:
            self._tracker.guard("no_execution", self._name)
            return None
        tracker = self._tracker
        step, span = name(self._name), tracker.ids.span()
        component = name(options.component) if options.component else tracker.service
        self.context = Context(outer.flow, outer.fields, span, component, step)
        self._common = {**outer.fields, "component": component, "step": step, "span": span}
        if outer.span is not None or options is not _NO_OPTIONS:
            self._add_options(outer, options)
        event = {"type": "step.started", "time_unix_us": tracker.clock.now_us(), **self._common}
        tracker.emit(outer.flow.execution, event)
        self._started_us = tracker.clock.elapsed_us()
        return self.context

    def _add_options(self, outer: Context, options: StepOptions) -> None:
        common = self._common
        if options.parents:
            common["parents"] = parent_references(outer.flow.execution, (outer, *options.parents))
        elif outer.span is not None:
            common["parents"] = [outer.parent(outer.flow.execution)]
        attempt = options.attempt() if callable(options.attempt) else options.attempt
        if attempt != 1:
            common["attempt"] = attempt
        if options.attributes:
            common["attributes"] = clean_attributes(options.attributes)

    def complete(self) -> None:
        self._end({"type": "step.completed"}, "completed")

    def fail(self, error_type: str, message: str | None = None, category: str | None = None) -> None:
        self._end({"type": "step.failed", **Failure(error_type, message, category).fields()}, "failed")

    def _end(self, event: dict[str, Any], status: str) -> None:
        context = self.context
        if context is None:
            return
        tracker = self._tracker
        clock = tracker.clock
        duration_us = event["duration_us"] = max(0, clock.elapsed_us() - self._started_us)
        event["time_unix_us"] = clock.now_us()
        event |= self._common
        if self.resources:
            event["resources"] = dict(self.resources)
        if self._options.consumed is not None:
            event["consumed"] = self._options.consumed._asdict()
        tracker.emit(context.flow.execution, event)
        if tracker.metrics is not None:
            tracker.metrics.step(context.flow.chain, event["step"], status, duration_us)


class Execution(Scope):
    """One run of a chain, from its beginning in this service.

    `open_ended`: leaving it well says nothing, because another service ends the execution.
    """

    __slots__ = ("_about", "_attributes", "_chain", "_open_ended", "_started_us")

    def __init__(
        self,
        tracker: Tracker,
        chain: str,
        about: Mapping[str, str | None],
        *,
        attributes: Mapping[str, object] | None = None,
        open_ended: bool = False,
    ) -> None:
        super().__init__(tracker)
        self._chain = chain
        self._about = about
        self._attributes = attributes
        self._open_ended = open_ended

    @property
    def id(self) -> str | None:
        """The execution's id, once it has begun."""
        return self.context.flow.execution if self.context else None

    def again(self, function: Callable[..., Any]) -> "Execution":
        return Execution(
            self._tracker, self._chain, self._about, attributes=self._attributes, open_ended=self._open_ended
        )

    def start(self) -> Context | None:
        self.context = self._tracker.new_flow(self._chain, **self._about)
        self._tracker.execution_started(self.context, attributes=self._attributes)
        self._started_us = self._tracker.clock.elapsed_us()
        return self.context

    def complete(self) -> None:
        if self.context is not None and not self._open_ended:
            self._tracker.execution_completed(self.context, duration_us=self._duration_us())

    def fail(self, error_type: str, message: str | None = None, category: str | None = None) -> None:
        if self.context is not None:
            duration_us = self._duration_us()
            self._tracker.execution_failed(self.context, error_type, message, category, duration_us=duration_us)

    def _duration_us(self) -> int:
        return self._tracker.clock.elapsed_us() - self._started_us


class Continued(Scope):
    """Runs the host's code in the context that came with a request or record; does nothing where none came."""

    __slots__ = ("_headers",)

    def __init__(self, tracker: Tracker, headers: Headers) -> None:
        super().__init__(tracker)
        self._headers = headers

    def again(self, function: Callable[..., Any]) -> "Continued":
        return Continued(self._tracker, self._headers)

    def start(self) -> Context | None:
        self.context = self._tracker.extract(self._headers)
        return self.context


class Carried(Scope):
    """Runs the host's code in a context of this process: in another thread, in a pool, in a callback."""

    __slots__ = ("_carried",)

    def __init__(self, tracker: Tracker, context: Context | None) -> None:
        super().__init__(tracker)
        self._carried = context

    def again(self, function: Callable[..., Any]) -> "Carried":
        return Carried(self._tracker, self._carried)

    def start(self) -> Context | None:
        self.context = self._carried
        return self.context
