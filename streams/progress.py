"""How far an execution is, and how long it will still take: from its definition, else from executions before it."""

from collections.abc import Mapping

from msgspec import Struct

from schemas.internal import COMPLETED, STARTED
from streams.rules import ChainRules, StepRule
from streams.runs import Execution, Step

TYPICAL_WEIGHT = 16
"""The typical duration of a chain moves by a 16th of its distance to every new one."""


class Progress(Struct):
    """What is known of an execution at an event time."""

    tenant: str
    chain: str
    execution: str
    status: str
    start_unix_us: int
    now_unix_us: int
    """Event time that its partition has reached."""
    current_steps: list[str]
    """Begun and not ended, in that order."""
    done_steps: list[str]
    """Completed, in the order in which they began."""
    missing_steps: list[str]
    ratio: float | None
    """Share of the expected work that is done, 0..1; None = unknown."""
    remaining_us: int | None
    """Estimated; 0 when it should have ended already; None = unknown."""
    basis: str
    """What ratio and remaining time rest on, or why they are unknown."""


def progress(execution: Execution, rules: ChainRules | None, typical_us: int | None, now_us: int) -> Progress:
    """Return the progress at event time `now_us`.

    `typical_us` is what executions of the chain took before, for one without a definition; None = none has ended yet.
    """
    runs = list(execution.steps.values())
    done = list(dict.fromkeys(step.step for step in runs if step.status == COMPLETED))
    ratio, remaining_us, basis = _estimate(execution, rules, typical_us, now_us, done)
    return Progress(
        execution.tenant, execution.chain, execution.execution, execution.status, execution.start_us, now_us,
        [step.step for step in runs if step.status == STARTED], done, list(execution.missing), ratio, remaining_us, basis,
    )  # fmt: skip


def _estimate(
    execution: Execution, rules: ChainRules | None, typical_us: int | None, now_us: int, done: list[str]
) -> tuple[float | None, int | None, str]:
    if execution.finished_us:
        return 1.0, 0, "it is over"
    if rules is None:
        if typical_us is None:
            return None, None, "the chain has no definition, and no execution of it has completed since the worker began"
        elapsed_us = max(0, now_us - execution.start_us)
        return min(1.0, elapsed_us / max(1, typical_us)), max(0, typical_us - elapsed_us), "duration of earlier executions"
    started = {step.step: step for step in execution.steps.values() if step.status == STARTED}
    unknown = [
        name for name, rule in rules.steps.items()
        if not (rule.optional or rule.expected_us or name in done or name in execution.missing)
    ]  # fmt: skip
    if unknown:
        return rules.progress(done), None, f"no expected duration is declared of {', '.join(unknown)}"
    return rules.progress(done), _longest_us(rules.steps, {*done, *execution.missing}, started, now_us), "declared durations"


def _longest_us(steps: Mapping[str, StepRule], over: set[str], started: Mapping[str, Step], now_us: int) -> int:
    """Return the length of the longest way through what is still to come; steps stand behind those they wait for."""
    ends: dict[str, int] = {}
    for name, rule in steps.items():
        begins_us = max((ends[before] for before in rule.after), default=0)
        run = started.get(name)
        if name in over or (rule.optional and run is None):
            left_us = 0
        elif run is None:
            left_us = rule.expected_us
        else:
            left_us = max(0, rule.expected_us - max(0, now_us - run.start_us))
        ends[name] = begins_us + left_us
    return max(ends.values())


class Typical:
    """What executions of chains take: a moving mean of completed ones, of at most `max_chains` chains."""

    def __init__(self, max_chains: int = 10_000) -> None:
        self._max = max_chains
        self._means: dict[tuple[str, str], float] = {}
        """By (tenant, chain), that which was learned longest ago first."""

    def learn(self, tenant: str, chain: str, duration_us: int) -> None:
        """Note the duration of a completed execution; the chain without news for longest is forgotten at the limit."""
        mean = self._means.pop((tenant, chain), None)
        self._means[tenant, chain] = duration_us if mean is None else mean + (duration_us - mean) / TYPICAL_WEIGHT
        if len(self._means) > self._max:
            del self._means[next(iter(self._means))]

    def find(self, tenant: str, chain: str) -> int | None:
        """Return the typical duration in µs; None = no execution has completed."""
        mean = self._means.get((tenant, chain))
        return None if mean is None else round(mean)
