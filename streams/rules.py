"""Chain definitions compiled for the hot path: what is due after what, and by when."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator

from mypy_extensions import mypyc_attr

from schemas.definitions import ChainDefinition, ChainStep, FlowEdge, order
from schemas.internal import EdgeDelta
from schemas.order import Arrow, reachable, successors

VERSIONS = 8
"""Versions of a chain that are kept for the executions that began under them."""


@mypyc_attr(acyclic=True)
class StepRule:
    """One declared step; durations in µs, 0 = none declared."""

    def __init__(
        self, name: str, component: str, after: tuple[str, ...], before: tuple[str, ...], expected_us: int, deadline_us: int,
        optional: bool, repeated: bool, input: str, output: str,
    ) -> None:  # fmt: skip
        self.name = name
        self.component = component
        self.after = after
        self.before = before
        self.expected_us = expected_us
        self.deadline_us = deadline_us
        self.optional = optional
        self.repeated = repeated
        self.input = input
        """Topic that it reads; "" = none declared."""
        self.output = output


@mypyc_attr(acyclic=True)
class ChainRules:
    """One compiled definition."""

    def __init__(
        self, name: str, version: str, effective_from_us: int, steps: dict[str, StepRule], required: frozenset[str],
        timed: tuple[StepRule, ...], due_after_us: dict[str, int],
    ) -> None:  # fmt: skip
        self.name = name
        self.version = version
        self.effective_from_us = effective_from_us
        self.steps = steps
        self.required = required
        self.timed = timed
        """The required steps that have a deadline, as declared."""
        self.due_after_us = due_after_us
        """Per step that others with a deadline come right after: the shortest of their deadlines."""

    def progress(self, ended: Iterable[str]) -> float:
        """Return the share (0..1) of the expected work that the ended steps stand for."""
        weights = {name: rule.expected_us or 1 for name, rule in self.steps.items() if not rule.optional}
        return sum(weights.get(name, 0) for name in set(ended)) / (sum(weights.values()) or 1)


def compile_definition(definition: ChainDefinition) -> ChainRules:
    """Return the rules of a definition. A loop orders nothing: every step that it may bring about again is repeated."""
    edges = order(definition)
    arrows = {(edge.source, edge.target) for edge in edges if not edge.loop}
    again = _repeated(edges, arrows)
    names = [step.name for step in definition.steps]
    after: dict[str, tuple[str, ...]] = {name: tuple(n for n in names if (n, name) in arrows) for name in names}
    before = {name: tuple(n for n in names if (name, n) in arrows) for name in names}
    steps = {step.name: _rule(step, after[step.name], before[step.name], step.name in again) for step in definition.steps}
    required = frozenset(step.name for step in definition.steps if not step.optional)
    timed = tuple(rule for rule in steps.values() if rule.deadline_us and not rule.optional)
    due_after_us = {
        name: min(deadlines)
        for name, rule in steps.items()
        if (deadlines := [steps[n].deadline_us for n in rule.before if steps[n].deadline_us])
    }
    return ChainRules(
        definition.name, definition.version, definition.effective_from_unix_us, steps, required, timed, due_after_us
    )


def _repeated(edges: list[FlowEdge], arrows: set[Arrow]) -> set[str]:
    """Return the steps that lie on a way from where a loop leads to where it begins."""
    forward, backward = successors(arrows), successors((target, source) for source, target in arrows)
    found: set[str] = set()
    for edge in edges:
        if edge.loop:
            found |= reachable([edge.target], forward) & reachable([edge.source], backward)
    return found


def _rule(step: ChainStep, after: tuple[str, ...], before: tuple[str, ...], again: bool) -> StepRule:
    return StepRule(
        name=step.name,
        component=step.component,
        after=after,
        before=before,
        expected_us=round((step.expected_duration_ms or 0) * 1000),
        deadline_us=round((step.deadline_ms or 0) * 1000),
        optional=step.optional,
        repeated=step.repeated or again,
        input=step.input or "",
        output=step.output or "",
    )


def declared_edges(tenant: str, rules: ChainRules) -> Iterator[EdgeDelta]:
    """Yield what a definition says of who writes to and reads from topics, before anything of it is seen.

    The other end is left open: whoever reads is fed by whoever writes, in whichever chain. Of no window and with a
    count of 0, so that to say it again changes nothing.
    """
    for rule in rules.steps.values():
        if rule.output:
            yield EdgeDelta(tenant, rules.name, "topic", rule.component, "", rule.output, 0)
        if rule.input:
            yield EdgeDelta(tenant, rules.name, "topic", "", rule.component, rule.input, 0)


class RuleBook:
    """All definitions in force: a tenant's own before the common one of the same name, each from its effective time on.

    An execution is held to the version that was in force when it began. A version that is put in force holds from its
    effective time on, in place of all that were to hold from then on or later; those before it are kept, the last
    `VERSIONS` of each chain.
    """

    def __init__(self, definitions: Iterable[ChainDefinition] = (), limit: int = 10_000) -> None:
        """At most `limit` are in force: of more those first by chain and tenant, whatever the order in which they came."""
        self.refused = 0
        """Definitions that were left out because of the limit."""
        self._limit = limit
        self._names: list[tuple[str, str]] = []
        """(chain, tenant) of all, sorted."""
        self._rules: dict[str, dict[str, tuple[ChainRules, ...]]] = {}
        """By chain and then by tenant, "" for all; the latest effective time first."""
        self.version = 0
        """How often a definition was put in force: whoever keeps rules looks whether they are still right."""
        for definition in definitions:
            self.add(definition)

    def add(self, definition: ChainDefinition) -> None:
        """Put a definition in force from its effective time on."""
        name = (definition.name, definition.tenant or "")
        at = bisect_left(self._names, name)
        if self._names[at : at + 1] != [name]:
            self._names.insert(at, name)
        by_tenant = self._rules.setdefault(definition.name, {})
        rules = compile_definition(definition)
        earlier = tuple(old for old in by_tenant.get(name[1], ()) if old.effective_from_us < rules.effective_from_us)
        by_tenant[name[1]] = (rules, *earlier)[:VERSIONS]
        if len(self._names) > self._limit:
            self._forget(*self._names[-1])
            self.refused += 1
        self.version += 1

    def remove(self, tenant: str, chain: str, effective_from_us: int) -> None:
        """Take back the version that was to hold from a time on, if it is in force; tenant "" = every tenant's."""
        held = self._rules.get(chain, {}).get(tenant, ())
        left = tuple(rules for rules in held if rules.effective_from_us != effective_from_us)
        if len(left) < len(held):
            if left:
                self._rules[chain][tenant] = left
            else:
                self._forget(chain, tenant)
            self.version += 1

    def _forget(self, chain: str, tenant: str) -> None:
        self._names.remove((chain, tenant))
        del self._rules[chain][tenant]

    def versions(self, tenant: str, chain: str) -> tuple[ChainRules, ...]:
        """Return the rules of a tenant's chain: the first one whose effective time an execution has not begun before holds it."""
        by_tenant = self._rules.get(chain)
        if by_tenant is None:
            return ()
        own = by_tenant.get(tenant, ()) if tenant else ()
        return own + by_tenant.get("", ())

    def find(self, tenant: str, chain: str, start_us: int) -> ChainRules | None:
        """Return the rules that hold an execution which began at `start_us`; None = it is followed as observed."""
        for rules in self.versions(tenant, chain):
            if rules.effective_from_us <= start_us:
                return rules
        return None

    def __len__(self) -> int:
        return len(self._names)
