"""Whether the API lives, is ready, and what it counts."""

from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest
from pydantic import BaseModel

from connectors.http.problems import answer
from connectors.http.scope import services
from connectors.http.services import Services

router = APIRouter(tags=["process"])
Found = Annotated[Services, Depends(services)]


class Readiness(BaseModel):
    """Whether the API can answer."""

    ready: bool
    live_clients: int


@router.get("/healthz", summary="Whether the process lives", responses={})
def healthz() -> dict[str, bool]:
    """Return that it lives."""
    return {"live": True}


@router.get("/readyz", summary="Whether the process is ready", response_model=Readiness)
def readyz(found: Found) -> Response:
    """Return whether the log was read to its end and the databases can be asked."""
    if found.feed.failure is not None:
        return answer(503, f"the live feed has ended: {found.feed.failure}")
    if not found.feed.ready:
        return answer(503, "the live feed has not read the log yet", {"Retry-After": "1"})
    return JSONResponse({"ready": True, "live_clients": found.hub.clients})


@router.get("/metrics", summary="Figures for Prometheus", response_class=Response,
            responses={200: {"content": {"text/plain": {}}}})  # fmt: skip
def metrics() -> Response:
    """Return the process's figures."""
    return Response(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)


@router.get("/status", include_in_schema=False)
def status(found: Found) -> dict[str, object]:
    """Return what `flowchain status` shows."""
    ready = found.feed.ready and found.feed.failure is None
    return {"worker": "api", "live": found.feed.failure is None, "ready": ready, "live_clients": found.hub.clients}
