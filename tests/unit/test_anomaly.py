"""The anomaly stage: what it reports, what it skips, what it keeps."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_anomaly_synthetic import START_US, WINDOW_US, Service, never, series, window

from schemas.analysis import Anomaly
from schemas.health import HealthWindow
from streams.anomaly import AnomalySettings, AnomalyStage
from streams.detectors.features import measured
from streams.ids import derived_id, key_of

SERVICE = Service(events=60)
SLOW = replace(SERVICE, median_us=4 * SERVICE.median_us)
SETTINGS = AnomalySettings(detectors=("novelty", "robust_z", "rates", "seasonal"))


def windows(*parts: tuple[Service, int], seed: int = 1, name: str = "pay") -> list[HealthWindow]:
    """Return consecutive windows: so many of each service."""
    rng = np.random.default_rng(seed)
    found: list[HealthWindow] = []
    for service, count in parts:
        for _ in range(count):
            found.append(window(service, len(found), rng).model_copy(update={"step": name}))
    return found


def index(anomaly: Anomaly) -> int:
    """Return which window an anomaly is about."""
    return (anomaly.window_start_unix_us - START_US) // WINDOW_US


def always(_: HealthWindow) -> bool:
    """Say that everything is frozen."""
    return True


def saved(stage: AnomalyStage) -> dict[str, bytes | None]:
    """Return what changed."""
    return dict(stage.changes())


def test_an_anomaly_says_what_when_and_why() -> None:
    rows = windows((SERVICE, 60), (SLOW, 1))
    [anomaly] = AnomalyStage(SETTINGS).apply(rows, never)
    assert index(anomaly) == 60
    assert anomaly.id == derived_id(
        "anomaly", "acme", "order", "pay", "payments", rows[60].window_start_unix_us
    )
    assert anomaly.score >= anomaly.threshold == pytest.approx(2 / 3)
    assert anomaly.direction == "higher" and anomaly.learned_windows == 60
    first = anomaly.features[0]
    assert first.feature in {"mean_us", "p50_us", "p95_us"}
    assert first.expected is not None and 3 < first.value / first.expected < 5
    assert [f.contribution for f in anomaly.features] == sorted(
        (f.contribution for f in anomaly.features), reverse=True
    )
    assert Anomaly.decode(anomaly.encode()) == anomaly


def test_silence_is_an_anomaly_downwards() -> None:
    rows = windows((SERVICE, 60), (replace(SERVICE, events=0.0), 1))
    [anomaly] = AnomalyStage(SETTINGS).apply(rows, never)
    assert anomaly.direction == "lower" and anomaly.features[0].feature == "events_per_window"
    assert anomaly.features[0].value == 0.0


def test_nothing_is_said_during_warm_up() -> None:
    assert AnomalyStage(SETTINGS).apply(windows((SERVICE, 29), (SLOW, 1)), never) == []


def test_learning_is_frozen_during_an_incident() -> None:
    stage = AnomalyStage(replace(SETTINGS, hold_us=0))
    stage.apply(windows((SERVICE, 60)), never)
    rows = windows((SERVICE, 60), (SLOW, 100))[60:]
    found = stage.apply(rows, always)
    assert len(found) == 100 and {anomaly.learned_windows for anomaly in found} == {60}
    learning = AnomalyStage(replace(SETTINGS, hold_us=0))
    learning.apply(windows((SERVICE, 60)), never)
    assert len(learning.apply(rows, never)) < 60


def test_an_incident_that_does_not_end_becomes_the_new_normal() -> None:
    stage = AnomalyStage(replace(SETTINGS, hold_us=0, max_frozen_windows=20))
    stage.apply(windows((SERVICE, 60)), never)
    found = stage.apply(windows((SERVICE, 60), (SLOW, 300))[60:], always)
    assert found[19].learned_windows == found[20].learned_windows == 60
    assert index(found[-1]) < 200


def test_one_incident_is_reported_once_or_as_it_grows() -> None:
    stage = AnomalyStage(SETTINGS)
    found = stage.apply(windows((SERVICE, 60), (SLOW, 25)), never)
    assert index(found[0]) == 60 and len(found) <= 4
    assert [a.score for a in found] == sorted({a.score for a in found})


def test_an_incident_that_repeats_is_reported_again() -> None:
    parts = [(SERVICE, 60)]
    for _ in range(5):
        parts += [(SLOW, 5), (SERVICE, 45)]
    stage = AnomalyStage(SETTINGS)
    slow = set()
    for row in windows(*parts):
        # an incident opens with the first anomaly: what follows is not learned
        within = (row.window_start_unix_us - START_US) // WINDOW_US
        during = within >= 60 and (within - 60) % 50 in range(1, 5)
        slow |= {(index(a) - 60) // 50 for a in stage.apply([row], always if during else never)}
    assert slow >= {0, 1, 2, 3, 4}


def test_a_window_counts_once_and_only_its_first_revision() -> None:
    rows = windows((SERVICE, 60), (SLOW, 2))
    stage, twice = AnomalyStage(SETTINGS), AnomalyStage(SETTINGS)
    found = stage.apply(rows, never)
    late = [row.model_copy(update={"revision": 1}) for row in rows]
    assert [a for row in rows for a in twice.apply([row, row, *late[:3], *rows[:2]], never)] == found
    assert saved(stage) == saved(twice)


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(1, 199), max_size=4), st.data())
def test_a_crash_anywhere_changes_nothing(cuts: list[int], data: st.DataObject) -> None:
    rows = [row for pair in zip(
        windows((SERVICE, 80), (SLOW, 20)), windows((SERVICE, 100), seed=2, name="ship"), strict=True
    ) for row in pair]  # fmt: skip
    straight = AnomalyStage(SETTINGS)
    expected = {a.id: a for a in straight.apply(rows, never)}
    store: dict[str, bytes] = {}
    published: dict[str, Anomaly] = {}
    at = 0
    for cut in [*sorted(cuts), len(rows)]:
        stage = AnomalyStage(SETTINGS)
        for key, value in store.items():
            stage.restore(key, value)
        again = data.draw(st.integers(0, min(at, 30)))
        for anomaly in stage.apply(rows[at - again : cut], never):
            assert published.setdefault(anomaly.id, anomaly) == anomaly
        if data.draw(st.booleans()) or cut == len(rows):
            store |= {key: value for key, value in stage.changes() if value}
            at = cut
    assert published == expected
    assert store == dict(straight.changes())


def test_changes_are_only_what_changed() -> None:
    stage = AnomalyStage(SETTINGS)
    stage.apply([*windows((SERVICE, 3)), *windows((SERVICE, 2), name="ship")], never)
    assert len(saved(stage)) == 2 and saved(stage) == {}
    stage.apply(windows((SERVICE, 3), name="ship")[2:], never)
    assert list(saved(stage)) == [key_of("acme", "order", "ship", "payments")]
    stage.apply(windows((SERVICE, 3), name="ship"), never)
    assert saved(stage) == {}


def test_an_entry_is_small() -> None:
    stage = AnomalyStage()
    rich = replace(SERVICE, memory=0.4)
    stage.apply(list(series(rich, 700, 3)), never)
    [value] = saved(stage).values()
    assert value is not None and len(value) < 20_000


@pytest.mark.parametrize(
    "value", [b"", b"\xff", b"{}", msgspec.msgpack.encode([AnomalySettings().version, 1, 2]), b"\xc0"]
)
def test_what_is_no_entry_is_refused(value: bytes) -> None:
    with pytest.raises(ValueError, match="not an entry"):
        AnomalyStage().restore("k", value)


def test_the_entry_of_other_detectors_is_left_and_its_key_starts_anew() -> None:
    old = AnomalyStage(SETTINGS)
    old.apply(windows((SERVICE, 40)), never)
    stage = AnomalyStage(replace(SETTINGS, detectors=("novelty", "robust_z")))
    for key, value in old.changes():
        assert value is not None
        stage.restore(key, value)
    assert (len(stage), stage.outdated, list(saved(stage).values())) == (0, 1, [None])


def test_more_keys_than_allowed_are_counted_until_others_are_forgotten() -> None:
    stage = AnomalyStage(replace(SETTINGS, max_keys=2, crowded_us=10 * WINDOW_US))
    for name in ("a", "b", "c"):
        stage.apply(windows((SERVICE, 1), name=name), never)
    assert (len(stage), stage.reached["detectors_over_limit"]) == (2, 1)
    stage.apply(windows((SERVICE, 8), name="b"), never)
    stage.apply(windows((SERVICE, 12), name="c")[11:], never)
    changed = saved(stage)
    assert len(stage) == 2 and changed[key_of("acme", "order", "a", "payments")] is None
    assert stage.reached["detectors_over_limit"] == 1


def test_a_key_long_silent_starts_anew() -> None:
    stage = AnomalyStage(replace(SETTINGS, forget_us=10 * WINDOW_US))
    rows = windows((SERVICE, 60), (SLOW, 30))
    assert stage.apply([*rows[:60], rows[80]], never) == []


def test_a_component_window_has_its_resources_only() -> None:
    rows = [
        row.model_copy(
            update={"kind": "component", "chain": "", "step": "", "started": 0, "completed": 0, "failed": 0}
        )
        for row in windows((Service(events=0, memory=0.4), 60), (Service(events=0, memory=0.9), 1))
    ]
    [anomaly] = AnomalyStage(SETTINGS).apply(rows, never)
    assert {f.feature for f in anomaly.features} == {"resource.memory_ratio"}
    assert anomaly.features[0].expected == pytest.approx(0.4, abs=0.02)


def test_the_tail_of_a_few_events_is_not_looked_at() -> None:
    few, many = windows((Service(events=10), 1))[0], windows((Service(events=200), 1))[0]
    assert "p95_us" not in measured(few) and measured(many)["p95_us"] == many.p95_us


def test_a_doubtful_window_is_not_learned_at_once() -> None:
    stage = AnomalyStage(replace(SETTINGS, hold_us=0, max_doubtful_windows=3))
    found = stage.apply(windows((SERVICE, 60), (SLOW, 6)), never)
    assert [anomaly.learned_windows for anomaly in found][:5] == [60, 60, 60, 60, 61]
