"""The fourteen services, and the chains that run through them, as data.

The seeds name components; here each is a step of the service that does that work:

| component of the seeds | service |
|---|---|
| DataBridge | data-bridge (5001) |
| DataValidator | central-hub (7000): nothing enters the platform unchecked |
| DataProcessor, FeatureEngine | feature-engine (8020) |
| DatabaseService | database-service (8008) |
| MultiAgentOrchestrator | agent-orchestrator (8021) |
| ConsensusEngine | consensus-engine (8022) |
| TradingEngine | trading-engine (9000) |
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from schemas.definitions import ChainDefinition, ChainStep

VERSION = "1"
DEADLINE_MS = 2000.0
"""A step that has not come so long after the steps before it is missing: about 2 s until silence is seen."""
CALL_ALLOWANCE_MS = 2.0
"""What a call may take on the network, both ways together."""


@dataclass(frozen=True)
class Service:
    """A service; `spread`: sigma of the lognormal distribution of its times."""

    name: str
    port: int
    spread: float


SERVICES = (
    Service("api-gateway", 3001, 0.20),
    Service("data-bridge", 5001, 0.25),
    Service("central-hub", 7000, 0.20),
    Service("database-service", 8008, 0.25),
    Service("feature-engine", 8020, 0.25),
    Service("agent-orchestrator", 8021, 0.25),
    Service("consensus-engine", 8022, 0.20),
    Service("trading-engine", 9000, 0.15),
    Service("user-service", 9001, 0.20),
    Service("subscription-service", 9002, 0.20),
    Service("notification-service", 9003, 0.25),
    Service("performance-analytics", 9100, 0.25),
    Service("usage-analytics", 9101, 0.25),
    Service("compliance-monitor", 9102, 0.20),
)
SPREAD = {service.name: service.spread for service in SERVICES}


@dataclass(frozen=True)
class Tenant:
    """Who uses the platform; `share` of all executions."""

    name: str
    tier: str
    share: float
    users: int


TENANTS = (
    Tenant("acme", "enterprise", 0.5, 40),
    Tenant("globex", "pro", 0.3, 25),
    Tenant("initech", "free", 0.2, 60),
)


@dataclass(frozen=True)
class Work:
    """A step: who does it, how long its own work may take, which topic brings it, whom it calls and waits for."""

    name: str
    service: str
    expected_ms: float
    topic: str | None = None
    calls: tuple["Work", ...] = ()
    at_once: bool = False
    retries: int = 0
    output: str | None = None

    @cached_property
    def inclusive_ms(self) -> float:
        """How long the step may take with its calls."""
        calls = [call.inclusive_ms + CALL_ALLOWANCE_MS for call in self.calls]
        return self.expected_ms + (max(calls, default=0.0) if self.at_once else sum(calls))

    def with_calls(self) -> Iterator["Work"]:
        """Yield the step and those that it calls, in the order they begin."""
        yield self
        for call in self.calls:
            yield from call.with_calls()


@dataclass(frozen=True)
class Chain:
    """Stages one after the other; the steps of a stage run at once (fan-out), the next one waits for all (fan-in).

    `collects`: a batch consumer begins an execution for what the executions of these chains have put out since.
    """

    name: str
    description: str
    stages: tuple[tuple[Work, ...], ...]
    share: float = 0.0
    collects: tuple[str, ...] = ()

    @cached_property
    def works(self) -> tuple[Work, ...]:
        """All steps."""
        return tuple(work for stage in self.stages for top in stage for work in top.with_calls())

    def hurt_by(self, step: str) -> frozenset[str]:
        """Return the services that suffer from a failing `step`: itself, its callers, and all that come after."""
        hurt: set[str] = set()
        for stage in self.stages:
            if hurt:
                hurt.update(work.service for top in stage for work in top.with_calls())
            for top in stage:
                hurt.update(_callers(top, step))
        return frozenset(hurt)


def _callers(work: Work, step: str) -> list[str]:
    """The services on the way from `work` down to `step`; empty where it is not below."""
    if work.name == step:
        return [work.service]
    for call in work.calls:
        below = _callers(call, step)
        if below:
            return [work.service, *below]
    return []


CHAINS = (
    Chain(
        "mt5_to_database",
        "Process MT5 data to database storage",
        (
            (Work("mt5_ingestion", "data-bridge", 50, output="normalized_ticks"),),
            (Work("data_validation", "central-hub", 20, topic="normalized_ticks", output="validated_data"),),
            (
                Work(
                    "data_processing",
                    "feature-engine",
                    100,
                    topic="validated_data",
                    output="processed_features",
                ),
            ),
            (Work("database_storage", "database-service", 80, topic="processed_features"),),
        ),
        share=0.30,
    ),
    Chain(
        "ai_decision_making",
        "Complete AI decision workflow",
        (
            (
                Work(
                    "feature_extraction", "feature-engine", 30, topic="market_data", output="feature_vectors"
                ),
            ),
            (Work("multi_agent_analysis", "agent-orchestrator", 15, output="agent_results"),),
            (Work("consensus_generation", "consensus-engine", 10, output="ai_decision"),),
            (Work("trading_execution", "trading-engine", 1.2, topic="ai_decision", output="trade_result"),),
        ),
        share=0.20,
    ),
    Chain(
        "portfolio_query",
        "A user looks at a portfolio: the gateway waits for the hub, the hub for the database and the analytics",
        (
            (
                Work(
                    "portfolio_request",
                    "api-gateway",
                    5,
                    calls=(
                        Work(
                            "portfolio_routing",
                            "central-hub",
                            5,
                            calls=(
                                Work("portfolio_read", "database-service", 30),
                                Work("performance_calculation", "performance-analytics", 40),
                            ),
                        ),
                    ),
                ),
            ),
        ),
        share=0.20,
    ),
    Chain(
        "order_placement",
        "A user places an order: checked and booked while the user waits, then told and audited",
        (
            (
                Work(
                    "order_request",
                    "api-gateway",
                    8,
                    output="orders",
                    calls=(
                        Work("user_authorization", "user-service", 15),
                        Work(
                            "order_booking",
                            "trading-engine",
                            10,
                            calls=(Work("order_write", "database-service", 40),),
                        ),
                    ),
                ),
            ),
            (
                Work("order_notification", "notification-service", 60, topic="orders", retries=1),
                Work("order_audit", "compliance-monitor", 30, topic="orders"),
            ),
            (Work("order_metering", "usage-analytics", 20, topic="orders_settled", output="metered_orders"),),
        ),
        share=0.15,
    ),
    Chain(
        "signal_delivery",
        "A trading signal goes to those who pay for it: fan-out to channels, fan-in to metering",
        (
            (Work("signal_generation", "consensus-engine", 25, output="signals"),),
            (
                Work(
                    "subscriber_selection",
                    "subscription-service",
                    20,
                    topic="signals",
                    output="addressed_signals",
                ),
            ),
            (
                Work("signal_push", "notification-service", 50, topic="addressed_signals", retries=1),
                Work("signal_archiving", "database-service", 60, topic="addressed_signals"),
            ),
            (Work("signal_metering", "usage-analytics", 20, topic="delivered_signals"),),
        ),
        share=0.10,
    ),
    Chain(
        "user_onboarding",
        "A user signs up: account and subscription are made at once while the user waits",
        (
            (
                Work(
                    "signup_request",
                    "api-gateway",
                    10,
                    at_once=True,
                    output="signups",
                    calls=(
                        Work(
                            "account_creation",
                            "user-service",
                            30,
                            calls=(Work("account_write", "database-service", 40),),
                        ),
                        Work("subscription_opening", "subscription-service", 50),
                    ),
                ),
            ),
            (Work("welcome_message", "notification-service", 80, topic="signups"),),
        ),
        share=0.05,
    ),
    Chain(
        "performance_rollup",
        "A batch consumer joins stored ticks and trades of many executions into one performance record",
        (
            (Work("result_join", "performance-analytics", 60, topic="trade_results", output="rollups"),),
            (Work("rollup_storage", "database-service", 50, topic="rollups"),),
        ),
        collects=("mt5_to_database", "ai_decision_making"),
    ),
    Chain(
        "compliance_report",
        "A batch consumer joins settled orders into one report",
        (
            (
                Work(
                    "order_review",
                    "compliance-monitor",
                    70,
                    topic="metered_orders",
                    output="reports",
                    calls=(Work("report_write", "database-service", 50),),
                ),
            ),
            (Work("report_publication", "central-hub", 15, topic="reports"),),
        ),
        collects=("order_placement",),
    ),
)


def definitions() -> list[ChainDefinition]:
    """Return what the chains promise, as it is published to `flowchain.definitions.v1`; every tenant's."""
    return [_definition(chain) for chain in CHAINS]


def _definition(chain: Chain) -> ChainDefinition:
    steps: list[ChainStep] = []
    before: tuple[str, ...] = ()
    for stage in chain.stages:
        for top in stage:
            steps.extend(_steps(top, before))
        before = tuple(top.name for top in stage)
    return ChainDefinition(
        name=chain.name,
        version=VERSION,
        tenant=None,
        description=chain.description,
        steps=tuple(steps),
        effective_from_unix_us=0,
    )


def _steps(work: Work, after: tuple[str, ...]) -> Iterator[ChainStep]:
    """A called step begins while its caller runs, so it comes after what its caller comes after."""
    yield ChainStep(
        name=work.name,
        component=work.service,
        after=after,
        expected_duration_ms=work.inclusive_ms,
        deadline_ms=DEADLINE_MS,
        repeated=work.retries > 0,
        input=work.topic,
        output=work.output,
    )
    for call in work.calls:
        yield from _steps(call, after)
        if not work.at_once:
            after = (call.name,)
