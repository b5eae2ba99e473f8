"""A piece of the host's work as a step: begun and ended by an integration, around code that knows nothing of it."""

from collections.abc import Callable, Sequence

from flowchain.context import Context, Headers, current
from flowchain.integrations import options
from flowchain.integrations.guarding import tracker
from flowchain.spans import Consumed, Execution, Scope, Step, StepOptions
from flowchain.tracker import Failure, failure_of

CATEGORIES = {502: "dependency", 503: "capacity", 504: "timeout"}
"""Statuses that say what kind of trouble it is."""
METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY", "WEBSOCKET"))
MAX_NAMES = 1000
"""So many different steps of requests are told apart in a process; the rest is one."""
_names: set[str] = set()


class Work:
    """A step, and around it an execution where the work begins one. What runs inside has it as its parent."""

    __slots__ = ("_execution", "_inside", "_outside", "_step", "category", "status")

    def __init__(self, step: Step, execution: Execution | None = None) -> None:
        self._step: Step | None = step
        self._execution = execution
        self._outside: Context | None = None
        self._inside: Context | None = None
        self.status = 0
        """Of the HTTP response, where there is one."""
        self.category: str | None = None
        """What a status of 500 and above is, where it does not say so itself."""

    def begin(self) -> "Work":
        """Report the beginning; the code that follows runs inside."""
        self._outside = current.get()
        if self._execution is not None:
            current.set(self._execution.start())
        self._inside = self._step.start() if self._step is not None else None
        if self._inside is not None:
            current.set(self._inside)
            tracker().entered(self._inside)
        return self

    def end(self, error: BaseException | None = None) -> None:
        """Report how it ended, once: by an error, a response of 500 and above, or well."""
        if error is not None:
            self.fail(failure_of(error))
        elif self.status >= 500:
            self.fail(Failure(f"http_{self.status}", None, CATEGORIES.get(self.status, self.category)))
        else:
            self._end(lambda scope: scope.complete())

    def fail(self, failure: Failure) -> None:
        """Report that it ended badly, once."""
        self._end(lambda scope: scope.fail(*failure))

    def _end(self, report: Callable[[Scope], None]) -> None:
        step, self._step = self._step, None
        if step is None:
            return
        report(step)
        if self._execution is not None:
            report(self._execution)
        if self._inside is not None:
            tracker().left(self._inside)

    def leave(self) -> None:
        """Give the code that follows the context from before, unless it has one of its own by now."""
        if current.get() is self._inside:
            current.set(self._outside)


def serve(headers: Headers, step: str) -> Work | None:
    """Begin the work on a request: a step of the flow it came with, else of an execution that begins here; None without both."""
    context = tracker().extract(headers)
    if context is not None:
        return Work(Step(tracker(), step, StepOptions(context=context))).begin()
    chain = options.current.chain(step)
    if chain is None:
        return None
    return Work(Step(tracker(), step), Execution(tracker(), chain, {})).begin()


def call(step: str) -> Work | None:
    """Begin a call to another service, where calls are steps of their own and there is a flow."""
    if not options.current.client_steps or current.get() is None:
        return None
    work = Work(Step(tracker(), bounded(step))).begin()
    work.category = "dependency"
    return work


def process(topic: str, contexts: Sequence[Context], consumed: Consumed | None) -> Work:
    """Begin the work on consumed records, of which the contexts came."""
    first, *others = contexts
    return Work(Step(tracker(), f"process {topic}", StepOptions(context=first, parents=others, consumed=consumed))).begin()


def request_name(method: str, route: str | None) -> str:
    """Return a request's step name: its method and the template of its route, never its path."""
    return bounded(f"{method if method in METHODS else 'OTHER'} {route or '(no route)'}")


def bounded(name: str) -> str:
    """Return `name`, or a common one when there are too many."""
    if name in _names:
        return name
    if len(_names) >= MAX_NAMES:
        return "(other)"
    _names.add(name)
    return name
