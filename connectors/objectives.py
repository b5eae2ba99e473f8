"""Objectives of chains: what the definitions on their topic declare, followed by the analysis while it runs."""

from connectors.definitions import version_of
from connectors.follow import Follower
from connectors.settings import Settings
from connectors.telemetry import LIMIT_REACHED
from schemas.definitions import ChainDefinition
from schemas.topics import DEFINITIONS
from streams.burn import SloBook, SloRule


def slo_book(settings: Settings) -> SloBook:
    """Return a book without definitions: every chain has the default objective, if there is one."""
    objective = settings.slo_objective
    default = None if objective is None else SloRule(objective, settings.slo_window_days)
    return SloBook(default, settings.max_definitions)


def objective_of(definition: ChainDefinition, window_days: int) -> SloRule | None:
    """Return the objective that a definition declares: its SLO, or else its error budget, for so many days."""
    slo, budget = definition.slo, definition.error_budget_ratio
    if slo is not None:
        return SloRule(slo.objective, slo.window_days, round((slo.latency_ms or 0) * 1_000))
    return SloRule(1 - budget, window_days) if budget is not None and 0 < budget < 1 else None


class ObjectiveReader(Follower):
    """Puts the objective of every definition on the topic in force, and takes back what is deleted."""

    def __init__(self, settings: Settings, book: SloBook) -> None:
        self._book = book
        self._window_days = settings.slo_window_days
        super().__init__(settings, DEFINITIONS, self._take)

    def _take(self, key: bytes, value: bytes | None) -> None:
        if value is None:
            if (version := version_of(key)) is not None:
                self._book.remove(*version)
            return
        definition, refused = ChainDefinition.decode(value), self._book.refused
        rule = objective_of(definition, self._window_days)
        self._book.put(definition.tenant or "", definition.name, rule, definition.effective_from_unix_us)
        LIMIT_REACHED.labels("definitions_over_limit").inc(self._book.refused - refused)
