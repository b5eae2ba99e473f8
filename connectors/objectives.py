"""Objectives of chains: what the definitions on their topic declare, followed by the analysis while it runs."""

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
    """Puts the objective of every definition on the topic in force, from the moment at which it is read."""

    def __init__(self, settings: Settings, book: SloBook) -> None:
        self._book = book
        self._window_days = settings.slo_window_days
        self._names: dict[str, tuple[str, str]] = {}
        """(tenant, chain) of the definition that stands under a key."""
        super().__init__(settings, DEFINITIONS, self._put)

    def _put(self, key: str, value: bytes | None) -> None:
        if value is None:
            if key in self._names:
                self._book.remove(*self._names.pop(key))
            return
        definition, refused = ChainDefinition.decode(value), self._book.refused
        self._names[key] = definition.tenant or "", definition.name
        self._book.put(*self._names[key], objective_of(definition, self._window_days))
        LIMIT_REACHED.labels("definitions_over_limit").inc(self._book.refused - refused)
