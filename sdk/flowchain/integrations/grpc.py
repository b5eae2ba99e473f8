"""gRPC: interceptors for clients (calls carry the flow as metadata) and servers (each RPC is a step), sync and asyncio."""

import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import Context, copy_context
from importlib import import_module
from typing import Any, NamedTuple

from flowchain.context import Headers
from flowchain.integrations.carrying import carried
from flowchain.integrations.guarding import attempt, wrap
from flowchain.integrations.work import Work, bounded, serve
from flowchain.tracker import Failure

grpc: Any = import_module("grpc")
"""Untyped: its stubs have types that are not there when it runs."""
FAULTS = {"UNKNOWN": None, "DEADLINE_EXCEEDED": "timeout", "UNIMPLEMENTED": "bug", "INTERNAL": None, "UNAVAILABLE": "capacity",
          "DATA_LOSS": "data"}  # fmt: skip
"""Statuses that are the server's fault, and what kind of trouble they are; others answer the client, as 4xx do."""
_END = object()


class _Details(NamedTuple):
    """What a call is told, as gRPC has it."""

    method: str
    timeout: Any = None
    metadata: Any = None
    credentials: Any = None
    wait_for_ready: Any = None
    compression: Any = None


class _CallDetails(_Details, grpc.ClientCallDetails):  # type: ignore[misc]
    pass


def _with_flow(details: Any) -> Any:
    metadata = carried(details.metadata)
    if metadata is None:
        return None
    return _CallDetails(**{field: getattr(details, field, None) for field in _Details._fields} | {"metadata": metadata})


def _aio_with_flow(details: Any) -> Any:
    metadata = carried(list(details.metadata or ()))
    return None if metadata is None else details._replace(metadata=grpc.aio.Metadata(*metadata))


class FlowClientInterceptor(
    grpc.UnaryUnaryClientInterceptor,  # type: ignore[misc]
    grpc.UnaryStreamClientInterceptor,  # type: ignore[misc]
    grpc.StreamUnaryClientInterceptor,  # type: ignore[misc]
    grpc.StreamStreamClientInterceptor,  # type: ignore[misc]
):
    """Sends the flow with every call."""

    def _intercept(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        return continuation(attempt(_with_flow, details) or details, request)

    intercept_unary_unary = intercept_unary_stream = intercept_stream_unary = intercept_stream_stream = _intercept


def _aio_client(kind: str) -> Any:
    """Return an interceptor of one kind of call: gRPC takes each for the first kind that it is of."""

    async def intercept(self: Any, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        return await continuation(attempt(_aio_with_flow, details) or details, request)

    base = getattr(grpc.aio, f"{kind.title().replace('_', '')}ClientInterceptor")
    return type("FlowClientInterceptor", (base,), {f"intercept_{kind}": intercept})()


class FlowServerInterceptor(grpc.ServerInterceptor):  # type: ignore[misc]
    """Makes each RPC a step."""

    def intercept_service(self, continuation: Callable[..., Any], details: Any) -> Any:
        handler = continuation(details)
        return attempt(_serving, handler, details) or handler


class FlowAioServerInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Makes each RPC of an asyncio server a step."""

    async def intercept_service(self, continuation: Callable[..., Any], details: Any) -> Any:
        handler = await continuation(details)
        return attempt(_serving, handler, details) or handler


def _serving(handler: Any, details: Any) -> Any:
    """Return the handler with its behaviour as a step."""
    if handler is None:
        return None
    kind = f"{'stream' if handler.request_streaming else 'unary'}_{'stream' if handler.response_streaming else 'unary'}"
    behaviour = getattr(handler, kind)
    metadata = [(name, value) for name, value in details.invocation_metadata or ()]
    served = _wrapper(behaviour, handler.response_streaming)(behaviour, metadata, details.method.lstrip("/"))
    make = getattr(grpc, f"{kind}_rpc_method_handler")
    return make(served, handler.request_deserializer, handler.response_serializer)


def _wrapper(behaviour: Callable[..., Any], streams: bool) -> Callable[..., Callable[..., Any]]:
    if inspect.isasyncgenfunction(behaviour):
        return _aio_stream
    if inspect.iscoroutinefunction(behaviour):
        return _aio_single
    return _stream if streams else _single


def _begin(metadata: Headers, method: str) -> Work | None:
    return serve(metadata, bounded(method))


def _end(work: Work | None, call: Any, error: BaseException | None = None) -> None:
    if work is None:
        return
    code = getattr(call.code(), "name", "")
    if code in FAULTS:
        work.fail(Failure(f"grpc_{code.lower()}", _text(call.details()), FAULTS[code]))
    else:
        work.end(None if code and code != "OK" else error)


def _text(details: Any) -> str | None:
    return details.decode("utf-8", "replace") if isinstance(details, bytes) else details or None


def _single(behaviour: Callable[..., Any], metadata: Headers, method: str) -> Callable[..., Any]:
    def run(request: Any, call: Any) -> Any:
        context = copy_context()  # of this RPC: the thread serves others after it
        work = attempt(context.run, _begin, metadata, method)
        try:
            response = context.run(behaviour, request, call)
        except BaseException as error:
            attempt(_end, work, call, error)
            raise
        attempt(_end, work, call)
        return response

    return run


def _stream(behaviour: Callable[..., Any], metadata: Headers, method: str) -> Callable[..., Iterator[Any]]:
    def run(request: Any, call: Any) -> Iterator[Any]:
        context = copy_context()
        work = attempt(context.run, _begin, metadata, method)
        try:
            yield from _iterate(context, behaviour, request, call)
        except BaseException as error:
            attempt(_end, work, call, error)
            raise
        attempt(_end, work, call)

    return run


def _iterate(context: Context, behaviour: Callable[..., Any], request: Any, call: Any) -> Iterator[Any]:
    responses = context.run(lambda: iter(behaviour(request, call)))
    while (response := context.run(next, responses, _END)) is not _END:
        yield response


def _aio_single(behaviour: Callable[..., Any], metadata: Headers, method: str) -> Callable[..., Any]:
    async def run(request: Any, call: Any) -> Any:
        work = attempt(_begin, metadata, method)  # the RPC is a task of its own: nothing to give back
        try:
            response = await behaviour(request, call)
        except BaseException as error:
            attempt(_end, work, call, error)
            raise
        attempt(_end, work, call)
        return response

    return run


def _aio_stream(behaviour: Callable[..., Any], metadata: Headers, method: str) -> Callable[..., AsyncIterator[Any]]:
    async def run(request: Any, call: Any) -> AsyncIterator[Any]:
        work = attempt(_begin, metadata, method)
        try:
            async for response in behaviour(request, call):
                yield response
        except BaseException as error:
            attempt(_end, work, call, error)
            raise
        attempt(_end, work, call)

    return run


def wrap_grpc(module: Any) -> None:
    """Have every channel and server made with the interceptors, those of asyncio too."""
    for name in ("insecure_channel", "secure_channel"):
        wrap(module, name, lambda original: lambda *args, **kwargs: _channel(original(*args, **kwargs)))
    wrap(module, "server", _around_server(lambda: [FlowServerInterceptor()]))
    _wrap_aio(module.aio)


def _wrap_aio(module: Any) -> None:
    kinds = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
    for name in ("insecure_channel", "secure_channel"):
        wrap(module, name, _around_server(lambda: [_aio_client(kind) for kind in kinds]))
    wrap(module, "server", _around_server(lambda: [FlowAioServerInterceptor()]))


def _channel(channel: Any) -> Any:
    return attempt(grpc.intercept_channel, channel, FlowClientInterceptor()) or channel


def _around_server(make: Callable[[], list[Any]]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def around(original: Callable[..., Any]) -> Callable[..., Any]:
        def build(*args: Any, **kwargs: Any) -> Any:
            ours = attempt(make) or []
            bound = attempt(inspect.signature(original).bind_partial, *args, **kwargs)
            if bound is None or not ours:
                return original(*args, **kwargs)
            bound.arguments["interceptors"] = [*ours, *(bound.arguments.get("interceptors") or ())]
            return original(*bound.args, **bound.kwargs)

        return build

    return around
