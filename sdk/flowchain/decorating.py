"""One scope around each call of a function, a coroutine function, a generator or an async generator.

The scope of a generator lasts from its first item until it is exhausted, closed or broken, and is current only while the
generator itself runs: between two items the caller's own scope is.
"""

import functools
import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Protocol, Self

from flowchain.context import Context, current


class Scope(Protocol):
    """What is entered around a call; `spans.Scope`."""

    context: Context | None

    def __enter__(self) -> Any: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def pause(self) -> None:
        """Be current no more."""


def decorated(function: Callable[..., Any], scope: Callable[[], Scope]) -> Callable[..., Any]:
    """Return `function` with a new scope around each call of it; it stays the kind of function that it is."""
    if inspect.iscoroutinefunction(function):
        wrapper = _coroutine(function, scope)
    elif inspect.isasyncgenfunction(function):
        wrapper = _async_generator(function, scope)
    elif inspect.isgeneratorfunction(function):
        wrapper = _generator(function, scope)
    else:
        wrapper = _function(function, scope)
    return functools.wraps(function)(wrapper)


def _function(function: Callable[..., Any], scope: Callable[[], Scope]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        with scope():
            return function(*args, **kwargs)

    return run


def _coroutine(function: Callable[..., Any], scope: Callable[[], Scope]) -> Callable[..., Any]:
    async def run(*args: Any, **kwargs: Any) -> Any:
        with scope():
            return await function(*args, **kwargs)

    return run


def _generator(function: Callable[..., Any], scope: Callable[[], Scope]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        generator = function(*args, **kwargs)
        with _Lasting(scope()) as running:
            resume, given = generator.send, None
            while True:
                try:
                    with running:
                        item = resume(given)
                except StopIteration as stop:
                    return stop.value
                try:
                    given = yield item
                    resume = generator.send
                except GeneratorExit:
                    with running:
                        generator.close()
                    raise
                except BaseException as error:  # noqa: BLE001 - thrown in by whoever iterates: it is the generator's
                    resume, given = generator.throw, error

    return run


def _async_generator(function: Callable[..., Any], scope: Callable[[], Scope]) -> Callable[..., Any]:
    async def run(*args: Any, **kwargs: Any) -> Any:
        generator = function(*args, **kwargs)
        with _Lasting(scope()) as running:
            resume, given = generator.asend, None
            while True:
                try:
                    with running:
                        item = await resume(given)
                except StopAsyncIteration:
                    return
                try:
                    given = yield item
                    resume = generator.asend
                except GeneratorExit:
                    with running:
                        await generator.aclose()
                    raise
                except BaseException as error:  # noqa: BLE001 - thrown in by whoever iterates: it is the generator's
                    resume, given = generator.athrow, error

    return run


class _Running:
    """Makes a context current while a block runs; it may be entered again and again, in any task or thread."""

    __slots__ = ("_context", "_outer")

    def __init__(self, context: Context | None) -> None:
        self._context = context
        self._outer: Context | None = None

    def __enter__(self) -> Self:
        if self._context is not None:
            self._outer = current.get()
            current.set(self._context)
        return self

    def __exit__(self, *_: object) -> None:
        if self._context is not None:
            current.set(self._outer)


class _Lasting(AbstractContextManager[_Running]):
    """A scope that is open for the length of the block and current only inside of what it gives."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    def __enter__(self) -> _Running:
        self._scope.__enter__()
        self._scope.pause()
        return _Running(self._scope.context)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._scope.__exit__(kind, error, trace)
