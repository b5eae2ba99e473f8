"""The operations of the API, one file per subject."""

from connectors.http.routes import (
    alerts,
    business,
    components,
    coverage,
    credentials,
    events,
    executions,
    flows,
    health,
    incidents,
    live,
    meta,
    operations,
    slos,
    tenants,
)

ROUTERS = tuple(
    module.router for module in (
        events, flows, coverage, credentials, executions, health, components, incidents, alerts, slos, live, business, tenants, operations, meta,
    )
)
