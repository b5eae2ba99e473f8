"""The OTLP receivers of a process: begun together, ended together, on threads of their own."""

import socket
import threading
from contextlib import ExitStack

import structlog
import uvicorn

from connectors.acknowledged import AcknowledgedProducer
from connectors.intake import PortTaken, otlp_grpc, otlp_http
from connectors.intake.receiving import Reception
from connectors.settings import Settings

log = structlog.get_logger("intake")
CLOSE_S = 5
"""Requests that are being answered get so long at the end."""


class Receivers:
    """Serves OTLP until `close`; raises PortTaken."""

    def __init__(self, settings: Settings) -> None:
        host, most_bytes = settings.intake_host, settings.intake_body_bytes
        with ExitStack() as undo:
            self._producer = AcknowledgedProducer(settings)
            undo.callback(self._producer.close)
            reception = Reception(settings, self._producer)
            listener = undo.enter_context(_listen(host, settings.intake_http_port))
            self._grpc, grpc_port = otlp_grpc.serve(reception, host, settings.intake_grpc_port, most_bytes)
            undo.pop_all()
        http_port: int = listener.getsockname()[1]
        self.addresses = {"http": f"http://{host}:{http_port}{otlp_http.PATH}", "grpc": f"{host}:{grpc_port}"}
        config = uvicorn.Config(
            otlp_http.application(reception, most_bytes), log_config=None, access_log=False, server_header=False, lifespan="off",
            timeout_graceful_shutdown=CLOSE_S,
        )  # fmt: skip
        self._http = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._http.run, kwargs={"sockets": [listener]}, name="otlp-http", daemon=True)
        self._thread.start()
        log.info("OTLP", **self.addresses)

    def close(self) -> None:
        """Answer what has come in, and take no more."""
        stopped = self._grpc.stop(CLOSE_S)
        self._http.should_exit = True
        self._thread.join()
        stopped.wait()
        self._producer.close()


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), backlog=1024)
    except OSError as error:
        raise PortTaken(f"OTLP over HTTP cannot be served at {host}:{port}: {error.strerror}; FLOWCHAIN_INTAKE_HTTP_PORT names another port") from error
