"""What a tenant's tier allows it to register."""

from collections.abc import Iterable
from typing import Any

import psycopg

from schemas.definitions import ChainDefinition

FEATURES = {"slo": "objectives (slo)", "graphs": "flows with loops, conditions or agents"}
"""What a tier may open beside plain chains; a tenant without a tier may have all of it."""


class LimitRefused(Exception):
    """The tenant's tier does not allow it; the sentence names the limit and the tier that would."""


def check_limits(connection: psycopg.Connection[dict[str, Any]], tenant: str, definitions: Iterable[ChainDefinition]) -> None:
    """Raise LimitRefused when the definitions are more, or other, than the tenant's tier allows."""
    tier = connection.execute(_TIER, [tenant]).fetchone()
    if tier is None:
        return
    found = list(definitions)
    for feature in sorted({feature for definition in found for feature in features_of(definition)}):
        if feature not in tier["features"]:
            raise LimitRefused(f"the tier {tier['name']} does not include {FEATURES[feature]}{_upgrade(connection, feature)}")
    held = connection.execute("SELECT name FROM flow_definitions_current WHERE tenant = %s", [tenant]).fetchall()
    names = {row["name"] for row in held} | {definition.name for definition in found}
    if tier["max_chains"] is not None and len(names) > max(tier["max_chains"], len(held)):
        raise LimitRefused(f"the tier {tier['name']} allows {tier['max_chains']} flows, and these would make {len(names)}")


def features_of(definition: ChainDefinition) -> set[str]:
    """Return the features that a definition makes use of."""
    graph = definition.kind in ("langgraph", "ai_brain") or any(edge.loop or edge.condition for edge in definition.edges or ())
    return {name for name, used in (("slo", definition.slo is not None), ("graphs", graph)) if used}


def _upgrade(connection: psycopg.Connection[dict[str, Any]], feature: str) -> str:
    rows = connection.execute("SELECT name FROM tiers WHERE %s = ANY(features) ORDER BY requests_per_minute", [feature]).fetchall()
    return f"; {' and '.join(row['name'] for row in rows)} would" if rows else ""


_TIER = "SELECT t.name, t.max_chains, t.features FROM tenants JOIN tiers t ON t.name = tenants.tier WHERE tenants.tenant = %s"
