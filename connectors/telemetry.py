"""What a process tells about itself: metrics (each described here, once), liveness, readiness, structured logs.

The three are served by one small HTTP server on a thread of its own, so that a stuck worker still answers.
"""

import logging
import re
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

import msgspec
import orjson
import structlog
from msgspec import Struct
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, Counter, Gauge, Histogram, generate_latest

from connectors.settings import Settings

EVENTS = Counter("flowchain_ingest_records_total", "Records read from the events topic and committed", ["outcome"])
"""outcome: applied, duplicate, tick, or the stage at which a record was refused: decode, validate, oversize, null, late,
future; those are dead letters."""
VIOLATIONS = Counter("flowchain_violations_total", "Broken promises of executions", ["type"])
EXECUTIONS = Counter("flowchain_executions_finished_total", "Executions that are over", ["status"])
OPEN_EXECUTIONS = Gauge("flowchain_executions_open", "Executions that are open", ["partition"])
LIMIT_REACHED = Counter("flowchain_limit_reached_total", "Times a bound was reached", ["bound"])
"""bound: see docs/bounds.md, which names the setting and the behaviour of each."""
COMMIT_SECONDS = Histogram("flowchain_commit_seconds", "Duration of a commit or settlement", ["worker"])
COMMITS = Counter("flowchain_commits_total", "Commits or settlements", ["worker"])
WATERMARK = Gauge("flowchain_watermark_unix_seconds", "Event time up to which a partition was seen", ["worker", "partition"])
LAG = Gauge("flowchain_lag_records", "Offsets between what is settled and the end of a partition, as last told by the broker", ["worker", "topic", "partition"])
"""Marks of transactions have offsets too, so an idle partition shows a few."""
WINDOWS_OPEN = Gauge("flowchain_windows_open", "Health windows that have not closed", ["partition"])
SLICES_HELD = Gauge("flowchain_slices_held", "Slices of event time that wait until all source partitions have come as far", ["partition"])
RECORDS_OUT = Counter("flowchain_records_published_total", "Records published by ingest and analysis, changelogs and ticks left out", ["topic"])
ROWS = Counter("flowchain_sink_rows_total", "Rows written", ["table"])
SINK_RECORDS = Counter("flowchain_sink_records_total", "Records that a sink has settled", ["table", "outcome"])
"""outcome: written, or foreign: a dead letter, because this pipeline did not write it."""
RETRIES = Counter("flowchain_sink_retries_total", "Writes that had to be tried again", ["table"])
DATA_LOSS = Counter("flowchain_data_loss_records_total", "Records deleted before they could be read", ["topic"])

INTAKE_SPANS = Counter("flowchain_intake_spans_total", "OpenTelemetry spans that came in", ["way", "outcome"])
"""way: http, grpc or kafka; outcome: stored, rejected (not as OTLP has it), or refused: the brokers did not take them, and the sender
was told to come back."""
INTAKE_TRACES = Counter("flowchain_intake_traces_total", "Traces by what their chain is named after", ["basis"])
"""basis: span (an attribute names it), root, entry: the earliest span that came, because the root did not come in time; or
limit: there were too many, and the one that was silent for longest was forgotten."""
INTAKE_RECORDS = Counter("flowchain_intake_records_total", "Records of the topics that intake reads", ["topic", "outcome"])
"""outcome: bridged, left out (a mapping's condition), or the stage at which one was refused: decode, validate, oversize, null."""
INTAKE_EVENTS = Counter("flowchain_intake_events_total", "Events that came in by the API", ["way", "outcome"])
"""way: http or websocket; outcome: accepted, or refused: the answer said why."""
INTAKE_OPEN = Gauge("flowchain_intake_traces_open", "Traces that are remembered", ["partition"])

HTTP_REQUESTS = Counter("flowchain_http_requests_total", "Requests answered by the API", ["method", "route", "status"])
"""route: the pattern of the path, or none; method: one that the API knows, or other."""
HTTP_SECONDS = Histogram("flowchain_http_request_seconds", "Time to the last byte of an answer of the API", ["method", "route"])

PATHS = ("/metrics", "/healthz", "/readyz", "/status")
EXECUTION_PATHS = ("/executions/<tenant>/<execution>",)
EXECUTION_PATH = re.compile(r"/executions/([^/]+)/([^/]+)")


class Health:
    """Liveness by the age of the last settled batch: a stuck worker logs and stays up, so nothing else tells."""

    def __init__(self, worker: str, stuck_after_s: float = 60.0) -> None:
        self.worker = worker
        self.details: Callable[[], dict[str, Any]] = dict
        self.ready = False
        self._stuck_after_s = stuck_after_s
        self._settled = time.monotonic()

    def settled(self) -> None:
        """Note that a batch was settled, or that there was nothing to settle."""
        self._settled = time.monotonic()

    @property
    def age_s(self) -> float:
        """Seconds since the last settled batch."""
        return time.monotonic() - self._settled

    @property
    def live(self) -> bool:
        """Whether the worker moves."""
        return self.age_s < self._stuck_after_s

    def report(self) -> dict[str, Any]:
        """Return what `flowchain status` shows."""
        return {
            "worker": self.worker,
            "live": self.live,
            "ready": self.ready,
            "last_settled_age_s": round(self.age_s, 3),
            **self.details(),
        }


Ask = Callable[[str, str], Struct | None]
"""Returns what is known of (tenant, execution), None when nothing is; raises TimeoutError. Called from any thread."""


class _Answers(BaseHTTPRequestHandler):
    """How requests are answered; what is answered is up to `serve`."""

    def _json(self, code: int, body: dict[str, Any]) -> None:
        self._answer(code, "application/json", orjson.dumps(body))

    def _problem(self, code: int, title: str, detail: str) -> None:
        body = {"type": "about:blank", "status": code, "title": title, "detail": detail}
        self._answer(code, "application/problem+json", orjson.dumps(body))

    def _answer(self, code: int, content_type: str, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep probes out of the log."""


def serve(health: Health, settings: Settings, ask: Ask | None = None) -> ThreadingHTTPServer:
    """Serve /metrics, /healthz, /readyz and /status on a daemon thread; returns the server (its port is told).

    With `ask` also /executions/<tenant>/<execution>, percent-encoded. Errors are problem details (RFC 9457).
    """

    free = threading.BoundedSemaphore(settings.http_requests)

    class Handler(_Answers):
        def do_GET(self) -> None:
            if not free.acquire(blocking=False):
                LIMIT_REACHED.labels("requests_over_limit").inc()
                self._problem(503, "too many requests", f"{settings.http_requests} are being answered (http_requests)")
                return
            try:
                self._get()
            finally:
                free.release()

        def _get(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                self._answer(200, CONTENT_TYPE_LATEST, generate_latest(REGISTRY))
            elif path == "/healthz":
                self._json(200 if health.live else 503, {"live": health.live, "last_settled_age_s": health.age_s})
            elif path == "/readyz":
                self._json(200 if health.ready else 503, {"ready": health.ready})
            elif path == "/status":
                self._json(200, health.report())
            elif ask is not None and (found := EXECUTION_PATH.fullmatch(path)):
                self._execution(ask, *map(unquote, found.groups()))
            else:
                self._problem(404, "not found", "there are " + ", ".join(PATHS + EXECUTION_PATHS * (ask is not None)))

        def _execution(self, ask: Ask, tenant: str, execution: str) -> None:
            try:
                found = ask(tenant, execution)
            except TimeoutError:
                self._problem(503, "no answer", "the worker did not answer in time")
                return
            if found is None:
                self._problem(404, "not found", "the execution is neither open here nor has it ended lately")
            else:
                self._answer(200, "application/json", msgspec.json.encode(found))

    server = ThreadingHTTPServer((settings.http_host, settings.http_port), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="http", daemon=True).start()
    return server


def configure_logging(settings: Settings) -> None:
    """Log structured lines to standard error, ours and those of the libraries alike."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    render: Any = (
        structlog.processors.JSONRenderer(serializer=lambda event, **_: orjson.dumps(event, default=str).decode())
        if settings.log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, structlog.processors.format_exc_info, render],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
