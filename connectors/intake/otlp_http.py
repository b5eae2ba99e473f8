"""OTLP over HTTP: POST /v1/traces, in protobuf or JSON, plain or gzip."""

import asyncio
from dataclasses import dataclass

import orjson
from confluent_kafka import KafkaException
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from connectors.intake.inflating import TooLong, inflate
from connectors.intake.receiving import Reception
from connectors.intake.spans import Received, from_json, from_proto
from connectors.spans import otlp_proto

PATH = "/v1/traces"
PROTOBUF, JSON = "application/x-protobuf", "application/json"
RETRY_S = "5"
CODES = {400: 3, 413: 8, 415: 3, 503: 14}
"""Of google.rpc.Status: INVALID_ARGUMENT, RESOURCE_EXHAUSTED, UNAVAILABLE."""


@dataclass
class Refused(Exception):
    """A request that is answered with an error."""

    status: int
    reason: str


def application(reception: Reception, most_bytes: int) -> Starlette:
    """Return the ASGI application; `most_bytes` is the longest body, after decompression."""

    async def export(request: Request) -> Response:
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        is_json = media_type == JSON
        if not reception.enter():
            return _error(Refused(503, "too many requests at a time"), is_json)
        try:
            if media_type not in (PROTOBUF, JSON):
                raise Refused(415, f"the content type is {PROTOBUF} or {JSON}")
            body = await _body(request, most_bytes)
            received = await asyncio.to_thread(_read, body, is_json, reception)
            await asyncio.wrap_future(reception.store(received, "http"))
        except Refused as refused:
            return _error(refused, is_json)
        except KafkaException:
            return _error(Refused(503, "Kafka does not answer; try again"), is_json)
        finally:
            reception.leave()
        return _answer(received, is_json)

    return Starlette(routes=[Route(PATH, export, methods=["POST"])])


async def _body(request: Request, most_bytes: int) -> bytes:
    """Return the body, decompressed."""
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("gzip", "identity"):
        raise Refused(415, "the content encoding is gzip or none")
    parts = bytearray()
    try:
        async for part in request.stream():
            parts += part
            if len(parts) > most_bytes:
                raise Refused(413, f"at most {most_bytes:,} bytes are taken")
    except ClientDisconnect as error:
        raise Refused(400, "the body is not whole") from error
    return _inflated(bytes(parts), most_bytes) if encoding == "gzip" else bytes(parts)


def _inflated(body: bytes, most_bytes: int) -> bytes:
    try:
        return inflate(body, most_bytes)
    except ValueError as error:
        raise Refused(413 if isinstance(error, TooLong) else 400, str(error)) from error


def _read(body: bytes, is_json: bool, reception: Reception) -> Received:
    try:
        return from_json(body, reception.options) if is_json else from_proto(otlp_proto.parse(body), reception.options)
    except ValueError as error:
        raise Refused(400, f"not OTLP: {str(error)[:200]}") from error


def _answer(received: Received, is_json: bool) -> Response:
    """Return the answer to a request whose spans are stored; what was rejected is partial success."""
    if is_json:
        partial = {"partialSuccess": {"rejectedSpans": str(received.rejected), "errorMessage": received.reason}}
        return Response(orjson.dumps(partial if received.rejected else {}), media_type=JSON)
    answer = ExportTraceServiceResponse()
    if received.rejected:
        answer.partial_success.rejected_spans, answer.partial_success.error_message = received.rejected, received.reason
    return Response(answer.SerializeToString(), media_type=PROTOBUF)


def _error(refused: Refused, is_json: bool) -> Response:
    """Return an error, with a google.rpc.Status as OTLP wants it."""
    code, headers = CODES[refused.status], {"Retry-After": RETRY_S} if refused.status == 503 else None
    if is_json:
        return Response(orjson.dumps({"code": code, "message": refused.reason}), refused.status, headers, JSON)
    return Response(Status(code=code, message=refused.reason).SerializeToString(), refused.status, headers, PROTOBUF)
