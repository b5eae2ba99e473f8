"""The four stages of the analysis behind one tracker, in memory."""

from collections.abc import Sequence

from schemas.internal import Partial
from streams.analysis import Analysis, AnalysisSettings, Findings
from streams.events import ClockTick, Event, ExecutionFailed, ExecutionStarted, StepCompleted
from streams.limits import Limits
from streams.rules import RuleBook
from streams.tracker import Tracker

SECOND = 1_000_000
START = 1_700_000_000 * SECOND


def run(events: Sequence[Event], analysis: Analysis | None = None) -> list[Findings]:
    """Take events through ingest's core and the analysis, one transaction per event."""
    tracker, analysis = Tracker("events", 0, RuleBook(), Limits()), analysis or Analysis(AnalysisSettings())
    found = []
    for offset, event in enumerate(events):
        tracker.apply([event], [offset], [event.time_unix_us])
        out = tracker.take()
        found += analysis.apply(Partial("events", 0, tracker.watermark_us, offset, out.slices))
    return found


def failing(number: int) -> list[Event]:
    """An execution that fails without any step, and does not say where."""
    at, name = START + number * SECOND // 10, f"x{number}"
    return [
        ExecutionStarted(chain="c", execution=name, time_unix_us=at),
        ExecutionFailed(chain="c", execution=name, time_unix_us=at + 10, error_type="Boom"),
    ]


def test_executions_that_fail_nowhere_in_particular_are_an_incident_without_a_suspect() -> None:
    events = [event for number in range(200) for event in failing(number)]
    ticks = [ClockTick(START + second * SECOND) for second in range(20, 60)]
    incidents = [incident for findings in run([*events, *ticks]) for incident in findings.incidents]
    assert incidents
    assert all("" not in hurt.path for incident in incidents for hurt in incident.blast_radius)


def test_state_is_saved_and_restored_whatever_characters_names_hold() -> None:
    for chain, step in (('["a"]', "/"), ("ü", '","'), ("a,b", "\\")):
        events = [StepCompleted(chain=chain, execution="e", step=step, time_unix_us=START + n * SECOND) for n in range(30)]
        first, second = Analysis(AnalysisSettings()), Analysis(AnalysisSettings())
        run(events, first)
        saved = dict(first.changes())
        for key, value in saved.items():
            second.restore(key, value or b"")
        more = [StepCompleted(chain=chain, execution="f", step=step, time_unix_us=START + 40 * SECOND)]
        assert run(more, second) == run(more, first)


def tick(tracker: Tracker, offset: int, time_us: int, broker_us: int) -> None:
    tracker.apply([ClockTick(time_us)], [offset], [broker_us])


def test_ticks_go_on_from_the_last_event_also_when_a_tick_came_with_it() -> None:
    tracker = Tracker("events", 0, RuleBook(), Limits())
    event = ExecutionStarted(chain="c", execution="x", time_unix_us=START)
    tracker.apply([event, ClockTick(START + 5)], [0, 1], [START + 10, START + 20])
    assert tracker.clock == (START + 5, START + 20)


def test_own_ticks_do_not_move_the_clock_they_were_made_from() -> None:
    tracker = Tracker("events", 0, RuleBook(), Limits())
    tracker.apply([ExecutionStarted(chain="c", execution="x", time_unix_us=START)], [0], [START + 10])
    tick(tracker, 1, START + SECOND, START + SECOND + 30)
    assert tracker.clock == (START, START + 10)


def test_a_tick_that_is_ahead_moves_the_clock() -> None:
    tracker = Tracker("events", 0, RuleBook(), Limits())
    tracker.apply([ExecutionStarted(chain="c", execution="x", time_unix_us=START - 7200 * SECOND)], [0], [START])
    tick(tracker, 1, START - 3600 * SECOND, START + 10)
    assert tracker.clock == (START - 3600 * SECOND, START + 10)


def test_a_partition_that_has_only_seen_a_tick_goes_on_from_it() -> None:
    tracker = Tracker("events", 0, RuleBook(), Limits())
    tick(tracker, 0, START - 86_400 * SECOND, START)
    assert tracker.clock == (START - 86_400 * SECOND, START)


def test_a_late_tick_is_no_dead_letter() -> None:
    tracker = Tracker("events", 0, RuleBook(), Limits())
    tick(tracker, 0, START, START)
    assert tracker.apply([ClockTick(START - 3600 * SECOND)], [1], [START]) == []
