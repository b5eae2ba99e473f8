"""What is asked of a ChainRunner beside its chain, and what it returns."""

import random
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from flowchain.classify import category_of
from flowchain.context import Context

TRANSIENT = ("timeout", "dependency", "capacity")


class UserContext(NamedTuple):
    """For whom a chain runs."""

    user_id: str | None = None
    tenant_id: str | None = None
    subscription_tier: str | None = None


@dataclass(frozen=True)
class Retry:
    """How often a step is tried in all, and after which categories of errors (`flowchain.CATEGORIES`).

    Pauses double from `backoff_s` to `max_backoff_s`, each shortened by up to half at random.
    """

    attempts: int = 1
    backoff_s: float = 0.1
    max_backoff_s: float = 30.0
    on: tuple[str, ...] = TRANSIENT

    def pause_s(self, attempt: int, error: BaseException) -> float | None:
        """Return how long to wait after a failed attempt; None = it was the last."""
        if attempt >= self.attempts or not isinstance(error, Exception) or category_of(error) not in self.on:
            return None
        longest_s: float = self.backoff_s * 2 ** min(attempt - 1, 32)
        return min(self.max_backoff_s, longest_s) * random.uniform(0.5, 1.0)


@dataclass
class StepResult:
    """What became of one step; `execution_time` in seconds, of all attempts and pauses."""

    name: str
    component: str | None = None
    output_data: Any = None
    error: BaseException | None = None
    attempts: int = 0
    execution_time: float = 0.0
    context: Context | None = None

    @property
    def error_category(self) -> str | None:
        """The kind of its error."""
        return None if self.error is None else category_of(self.error)


@dataclass
class ChainExecution:
    """One run of a chain by a ChainRunner."""

    chain_id: str
    user_context: UserContext
    start_time: datetime
    execution_id: str | None = None
    step_results: list[StepResult] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    """Steps that no arrow led to."""
    output: Any = None
    error: Exception | None = None
    total_duration: float | None = None
    """Seconds; None while it runs."""

    def add_step_result(self, result: StepResult) -> None:
        """Note what became of a step."""
        self.step_results.append(result)

    def complete(self, total_duration: float) -> None:
        """Note that nothing more will run."""
        self.total_duration = total_duration

    def is_complete(self) -> bool:
        """Tell whether it has ended."""
        return self.total_duration is not None

    def is_successful(self) -> bool:
        """Tell whether it has ended well: every step that was not optional did."""
        return self.is_complete() and self.error is None
