"""WSGI: a middleware for any application, and how Flask and Django get it by themselves."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from flowchain.context import READ
from flowchain.integrations.guarding import attempt, wrap
from flowchain.integrations.work import Work, request_name, serve

Environ = dict[str, Any]
App = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]
Route = Callable[[Environ], str | None]
"""Returns the template of the route that a request will take."""

_MARK = "flowchain.seen"
_ERROR = "flowchain.error"
"""Where a framework that turns errors into responses has the error put."""
_WANTED = {"HTTP_" + name.upper().replace("-", "_"): name for name in READ}


class FlowMiddleware:
    """Makes each request a step. It ends when the server has closed the response, or with the error that came out."""

    def __init__(self, app: App, route: Route = lambda _: None) -> None:
        self.app = app
        self._route = route

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        work = attempt(self._begin, environ)
        if work is None:
            return self.app(environ, start_response)

        def start(status: str, *args: Any, **kwargs: Any) -> Any:
            attempt(_note, work, status)
            return start_response(status, *args, **kwargs)

        try:
            return _Body(self.app(environ, start), work, environ)
        except BaseException as error:
            attempt(_finish, work, error)
            raise

    def _begin(self, environ: Environ) -> Work | None:
        if _MARK in environ:
            return None  # an application inside this one is part of the same request
        environ[_MARK] = True
        headers = [(name, environ[key]) for key, name in _WANTED.items() if key in environ]
        return serve(headers, request_name(environ["REQUEST_METHOD"], attempt(self._route, environ)))


class _Body:
    """A response's body; the request is over when it is closed."""

    def __init__(self, body: Iterable[bytes], work: Work, environ: Environ) -> None:
        self._body = body
        self._work = work
        self._environ = environ

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._body
        except BaseException as error:
            attempt(self._work.end, error)
            raise

    def close(self) -> None:
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        except BaseException as error:
            attempt(self._work.end, error)
            raise
        finally:
            attempt(_finish, self._work, self._environ.get(_ERROR))


def _note(work: Work, status: str) -> None:
    work.status = int(status[:3])


def _finish(work: Work, error: BaseException | None) -> None:
    work.end(error)
    work.leave()


def wrap_flask(module: Any) -> None:
    """Have every Flask application run inside the middleware, and see the errors that it answers with 500."""
    wrap(module.Flask, "__call__", _around_flask)
    wrap(module.Flask, "handle_exception", _around_exception)


def _around_flask(original: Callable[..., Any]) -> Callable[..., Any]:
    def call(application: Any, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        app = FlowMiddleware(lambda *ways: original(application, *ways), lambda environ: _flask_route(application, environ))
        return app(environ, start_response)

    return call


def _flask_route(application: Any, environ: Environ) -> str | None:
    try:
        return str(application.url_map.bind_to_environ(environ).match(return_rule=True)[0].rule)
    except Exception as error:
        if hasattr(error, "code"):  # no such route, or not by this method: an answer, not a failure
            return None
        raise


def _around_exception(original: Callable[..., Any]) -> Callable[..., Any]:
    def handle_exception(application: Any, error: Exception) -> Any:
        attempt(_keep, error)
        return original(application, error)

    return handle_exception


def _keep(error: Exception) -> None:
    from flask import request  # the host has imported it

    request.environ[_ERROR] = error


def wrap_django(module: Any) -> None:
    """Have Django's WSGI handler run inside the middleware."""

    def around(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(handler: Any, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
            return FlowMiddleware(lambda *ways: original(handler, *ways), _django_route)(environ, start_response)

        return call

    wrap(module.WSGIHandler, "__call__", around)


def _django_route(environ: Environ) -> str | None:
    from django.urls import Resolver404, resolve  # the host has imported it

    try:
        return f"/{resolve(environ.get('PATH_INFO') or '/').route.lstrip('^')}"
    except Resolver404:
        return None
