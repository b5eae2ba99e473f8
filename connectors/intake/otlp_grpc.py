"""OTLP over gRPC: opentelemetry.proto.collector.trace.v1.TraceService/Export."""

from concurrent.futures import ThreadPoolExecutor

import grpc
from confluent_kafka import KafkaException
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from connectors.intake import PortTaken
from connectors.intake.receiving import Reception
from connectors.intake.spans import from_proto
from connectors.spans import otlp_proto

SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"
THREADS = 8


def serve(reception: Reception, host: str, port: int, most_bytes: int) -> tuple[grpc.Server, int]:
    """Serve in threads of its own; return the server and its port. Raises PortTaken."""
    server = grpc.server(
        ThreadPoolExecutor(THREADS, "grpc"), handlers=[_handler(reception)],
        options=[("grpc.max_receive_message_length", most_bytes), ("grpc.so_reuseport", 0)],
    )  # fmt: skip
    try:
        bound = server.add_insecure_port(f"{host}:{port}")
    except RuntimeError as error:
        raise PortTaken(f"OTLP over gRPC cannot be served at {host}:{port}; FLOWCHAIN_INTAKE_GRPC_PORT names another port") from error
    server.start()
    return server, bound


def _handler(reception: Reception) -> "grpc.GenericRpcHandler[bytes, ExportTraceServiceResponse]":
    """Bytes in, so that what is no request of OTLP is told as the client's mistake."""

    def export(body: bytes, context: grpc.ServicerContext) -> ExportTraceServiceResponse:
        if not reception.enter():
            context.abort(grpc.StatusCode.UNAVAILABLE, "too many requests at a time")
        try:
            return _export(body, context, reception)
        finally:
            reception.leave()

    handler = grpc.unary_unary_rpc_method_handler(export, None, ExportTraceServiceResponse.SerializeToString)
    return grpc.method_handlers_generic_handler(SERVICE, {"Export": handler})


def _export(body: bytes, context: grpc.ServicerContext, reception: Reception) -> ExportTraceServiceResponse:
    try:
        received = from_proto(otlp_proto.parse(body), reception.options)
        reception.store(received, "grpc").result()
    except ValueError as error:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
    except KafkaException:
        context.abort(grpc.StatusCode.UNAVAILABLE, "Kafka does not answer; try again")
    answer = ExportTraceServiceResponse()
    if received.rejected:
        answer.partial_success.rejected_spans, answer.partial_success.error_message = received.rejected, received.reason
    return answer
