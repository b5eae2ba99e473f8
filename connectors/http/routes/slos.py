"""Service level objectives: how much of its error budget each chain has left."""

from typing import Annotated

from fastapi import APIRouter, Query

from connectors.http.parameters import NameInPath
from connectors.http.problems import not_found
from connectors.http.scope import Reader
from schemas.slo import SloState, SloStatus

router = APIRouter(prefix="/v1/slos", tags=["health"])


@router.get("", summary="How every chain keeps its objective")
def list_slos(scope: Reader, state: Annotated[SloState | None, Query()] = None) -> list[SloStatus]:
    """Return the newest state of every objective, by chain: error budget left and burn rates."""
    held = dict(scope.services.feed.slos)
    return [status for (tenant, _), status in sorted(held.items()) if tenant == scope.tenant and state in (None, status.state)]


@router.get("/{chain}", summary="How a chain keeps its objective")
def show_slo(scope: Reader, chain: NameInPath) -> SloStatus:
    """Return the newest state of a chain's objective."""
    status = scope.services.feed.slos.get((scope.tenant, chain))
    if status is None:
        raise not_found(f"objective of chain {chain}")
    return status
