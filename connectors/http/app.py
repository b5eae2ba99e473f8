"""The API as an ASGI application: to be served by `flowchain worker api`, or mounted into another one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

import psycopg
import structlog
from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from psycopg_pool import PoolTimeout

from connectors.http import problems
from connectors.http.middleware import AccessLog, BodyLimit, EntityTags
from connectors.http.routes import ROUTERS
from connectors.http.services import Services
from connectors.settings import Settings

log = structlog.get_logger("http")
TITLE = "FlowChain"
RELAY_S = 5.0
DESCRIPTION = """Which hop of a business chain failed, was slow or never came, what caused it, and who is hurt.

Everything is told for one tenant: the key's own, or the one named by `?tenant=` where the key is for all of them.
Lists come in pages: `next` is the cursor of the following one. Errors are problem details (RFC 9457).
Writes take an `Idempotency-Key`. Times are microseconds since 1970-01-01 UTC (`…_unix_us`), event time unless a field says otherwise."""


def create_app(settings: Settings) -> FastAPI:
    """Return the application; it connects when it is started, and raises then what keeps it from that."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        services = await asyncio.to_thread(Services, settings)
        try:
            await asyncio.to_thread(services.feed.start, asyncio.get_running_loop())
            app.state.services = services
            relay = asyncio.create_task(_relay(services))
            yield
            relay.cancel()
        finally:
            await asyncio.to_thread(services.close)

    app = FastAPI(
        title=TITLE, version=version("flowchain-pipeline"), description=DESCRIPTION, lifespan=lifespan,
        responses=problems.COMMON, separate_input_output_schemas=False,
    )  # fmt: skip
    problems.install(app)
    for router in ROUTERS:
        app.include_router(router)
    app.add_middleware(EntityTags)
    app.add_middleware(BodyLimit, limit=settings.api_body_bytes)
    app.add_middleware(AccessLog)
    if settings.api_origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=settings.api_origins, allow_methods=["*"], max_age=600,
            allow_headers=["Authorization", "X-API-Key", "Content-Type", "Idempotency-Key", "If-Match", "If-None-Match", "Last-Event-ID"],
            expose_headers=["ETag", "Retry-After", "Idempotency-Replayed", "Location"],
        )  # fmt: skip
    return app


async def _relay(services: Services) -> None:
    """Publish what a process that died after its commit, or the brokers' absence, has left in the registry's outbox."""
    while True:
        try:
            await asyncio.to_thread(services.relay)
        except (psycopg.OperationalError, PoolTimeout) as error:
            log.warning("the registry's outbox cannot be read", reason=str(error)[:200])
        await asyncio.sleep(RELAY_S)
