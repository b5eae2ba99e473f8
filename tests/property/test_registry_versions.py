"""What the registry publishes of a flow's revisions keeps workers, running ones and restarted ones, at what it says itself."""

from hypothesis import given
from hypothesis import strategies as st

from connectors.definitions import key_of
from connectors.registry.rows import records
from schemas.definitions import ChainDefinition, ChainStep
from streams.flows.versions import Version, in_force
from streams.rules import RuleBook

TIMES = range(14)


def definition(version: Version) -> ChainDefinition:
    steps = (ChainStep(name="s", component="x"),)
    return ChainDefinition(name="c", version=str(version.revision), effective_from_unix_us=version.effective_from_us, steps=steps)


def held(book: RuleBook) -> list[str]:
    return [rules.version if (rules := book.find("t", "c", time)) else "" for time in TIMES]


@given(st.lists(st.sampled_from([*TIMES[:-1], None]), max_size=30))
def test_workers_hold_executions_as_the_registry_says(changes: list[int | None]) -> None:
    revisions = [Version(number, time or 0, deleted=time is None) for number, time in enumerate(changes, 1)]
    running, topic = RuleBook(), dict[bytes, tuple[int, ChainDefinition]]()
    times = {key_of("", "c", time): time for time in TIMES}
    for number, new in enumerate(revisions):
        made = definition(new)
        for offset, (tenant, _, key, value) in enumerate(records("", "c", revisions[:number], new, made.encode())):
            topic.pop(key, None)
            if value is None:
                running.remove(tenant, "c", times[key])
            else:
                running.add(ChainDefinition.decode(value))
                topic[key] = (100 * number + offset, made)
        in_force_now = in_force(revisions[: number + 1])
        expected = [next((str(v.revision) for v in reversed(in_force_now) if v.effective_from_us <= time), "") for time in TIMES]
        restarted = RuleBook(found for _, found in sorted(topic.values(), key=lambda entry: entry[0]))
        assert held(running) == held(restarted) == expected
        assert len(topic) == len(in_force_now)
