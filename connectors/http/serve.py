"""Serves the API as this process."""

import socket

import structlog
import uvicorn

from connectors.http import NotServed
from connectors.http.app import create_app
from connectors.settings import Settings

log = structlog.get_logger("http")
CLOSE_S = 5
"""Clients of live streams never end by themselves: at the end they get so long."""


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or Ctrl-C; raises NotServed when the address is taken or a server behind it does not answer."""
    try:
        listener = socket.create_server((settings.api_host, settings.api_port), backlog=4096)
    except OSError as error:
        raise NotServed(f"the API cannot be served at {settings.api_host}:{settings.api_port}: {error.strerror}; FLOWCHAIN_API_PORT names another port") from error
    log.info("API", address=f"http://{settings.api_host}:{listener.getsockname()[1]}")
    config = uvicorn.Config(
        create_app(settings), root_path=settings.api_root_path, log_config=None, access_log=False, server_header=False, lifespan="on", ws_max_size=settings.api_body_bytes,
        ws_per_message_deflate=False, timeout_graceful_shutdown=CLOSE_S, timeout_keep_alive=75,
    )  # fmt: skip
    server = uvicorn.Server(config)
    with listener:
        server.run([listener])
    if not server.started:
        raise NotServed("the API could not begin; the log says why")
