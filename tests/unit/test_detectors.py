"""The same behaviour is asked of every detector; what is special to one follows below."""

import os
import random
import subprocess
import sys
from collections.abc import Callable
from math import asin, inf, isfinite, nan, sqrt

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river import anomaly, preprocessing

from streams.detectors import DETECTORS, make
from streams.detectors.base import COUNT, MAX_FEATURES, TIME, Detector, Finding, normal_surprise, t_surprise
from streams.detectors.ensemble import Ensemble
from streams.detectors.novelty import Novelty, PeakHold, Tail
from streams.detectors.series import SeriesNovelty
from streams.detectors.statistical import tail_surprise
from streams.detectors.trees import HalfSpaces

Factory = Callable[[], Detector]
FACTORIES: dict[str, Factory] = {**DETECTORS, "series": lambda: SeriesNovelty("mean_us")}
EVERY = pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES.keys())
HOUR_US = 3_600_000_000


def stream(count: int, seed: int = 7) -> list[dict[str, float]]:
    """Return windows with features on their scales; some features come and go."""
    rng = random.Random(seed)
    rows = []
    for i in range(count):
        n = rng.randint(0, 60)
        x = {TIME: 1.76e15 + i * 1e7, COUNT: float(n), "events_per_window": rng.gauss(7, 0.5)}
        if n:
            x |= {"mean_us": rng.gauss(10, 0.1), "p95_us": rng.gauss(11, 0.2)}
            x["error_ratio"] = asin(sqrt(rng.choice([0, 0, 0, 1]) / n))
        if i > count // 2 and rng.random() < 0.5:
            x["resource.cpu_ratio"] = rng.random()
        rows.append(x)
    return rows


def run(detector: Detector, rows: list[dict[str, float]]) -> list[tuple[float, list[Finding]]]:
    """Return score and findings of every row, before it is learned."""
    results = []
    for x in rows:
        results.append((detector.score_one(x), detector.explain_one(x)))
        detector.learn_one(x)
    return results


@EVERY
def test_what_was_restored_scores_bit_for_bit_the_same(factory: Factory) -> None:
    rows = stream(900)
    straight = run(factory(), rows)
    detector, results = factory(), []
    for at in range(0, len(rows), 75):
        results += run(detector, rows[at : at + 75])
        restored = factory()
        restored.load(msgspec.msgpack.decode(msgspec.msgpack.encode(detector.save())))
        assert restored.save() == detector.save()
        detector = restored
    assert results == straight
    assert any(score > 0 for score, _ in straight)


@EVERY
def test_scoring_changes_nothing(factory: Factory) -> None:
    detector = factory()
    run(detector, stream(300))
    before = msgspec.msgpack.encode(detector.save())
    for x in stream(20, seed=8):
        assert detector.score_one(x) == detector.score_one(x)
        detector.explain_one(x)
    assert msgspec.msgpack.encode(detector.save()) == before


@EVERY
def test_a_prefix_gives_the_same_scores(factory: Factory) -> None:
    rows = stream(500)
    assert run(factory(), rows)[:320] == run(factory(), rows[:320])


@EVERY
def test_missing_and_new_features_are_taken(factory: Factory) -> None:
    detector = factory()
    run(detector, [{}, {TIME: 1.76e15}, {COUNT: 0.0}, {"only": 1.0}])
    run(detector, stream(300))
    assert run(detector, [{"new": 1.0}, {}, {"mean_us": 10.0, "new": 2.0}])


@EVERY
def test_a_constant_is_never_surprising_and_leaving_it_is_finite(factory: Factory) -> None:
    detector = factory()
    x = {TIME: 1.76e15, COUNT: 50.0, "mean_us": 10.0, "error_ratio": 0.0, "resource.disk_ratio": 0.3}
    assert all(score == 0.0 for score, _ in run(detector, [x] * 400))
    assert isfinite(detector.score_one(x | {"mean_us": 30.0, "error_ratio": 1.5}))


@EVERY
@pytest.mark.parametrize("value", [nan, inf, -inf, 1e308, -1e308, 5e-324, 0.0])
def test_extreme_values_give_finite_scores_before_and_after(factory: Factory, value: float) -> None:
    detector = factory()
    run(detector, stream(200))
    odd = {TIME: 1.77e15, COUNT: value, "mean_us": value, "error_ratio": value, "p95_us": -value}
    results = run(detector, [odd, *stream(200, seed=9), odd])
    assert all(isfinite(score) and score >= 0 for score, _ in results)
    assert all(isfinite(f.surprise) and isfinite(f.expected or 0.0) for _, found in results for f in found)


@EVERY
def test_memory_is_bounded_in_time_and_in_features(factory: Factory) -> None:
    detector = factory()
    run(detector, stream(1500))
    early = len(msgspec.msgpack.encode(detector.save()))
    run(detector, stream(1500, seed=9))
    assert len(msgspec.msgpack.encode(detector.save())) < 1.5 * early + 500
    for i in range(40):
        detector.learn_one({TIME: 1.76e15, COUNT: 9.0, **{f"{i}/{j}": 1.0 for j in range(50)}})
    assert len(msgspec.msgpack.encode(detector.save())) < MAX_FEATURES * 2000 + 20_000


def test_another_process_with_another_hash_seed_gives_the_same() -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from test_detectors import *\n"
        "print([run(factory(), stream(400)) for factory in FACTORIES.values()])"
    )
    folder = os.path.dirname(__file__)
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code, folder],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.path.join(folder, "..", "..")},
            capture_output=True,
            check=True,
            timeout=60,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1 and len(outputs.pop()) > 1000


def test_detectors_compose_with_river() -> None:
    pipeline = preprocessing.StandardScaler() | make(("robust_z",))["robust_z"]
    rng = random.Random(1)
    for _ in range(50):
        pipeline.learn_one({"a": rng.gauss(5, 2)})
    assert pipeline.score_one({"a": 100.0}) > 5 > pipeline.score_one({"a": 5.0})


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match="no such detector: magic"):
        make(("novelty", "magic"))


# --- robust z, rates


def test_normal_and_t_tails() -> None:
    assert normal_surprise(1.959964) == pytest.approx(1.30103, abs=1e-4)
    assert normal_surprise(1e9) <= 300
    # scipy: t.sf(5, 10) * 2 = 5.373e-4, t.sf(3, 30) * 2 = 5.387e-3
    assert t_surprise(5, 10) == pytest.approx(3.2697, abs=0.02)
    assert t_surprise(-3, 30) == pytest.approx(2.2686, abs=0.01)


def exact_tail(hits: int, trials: int, a: int, b: int) -> float:
    """Return the beta-binomial tail by Pólya's urn, for whole a and b."""
    ways = {0: 1.0}
    for drawn in range(trials):
        fresh: dict[int, float] = {}
        for k, p in ways.items():
            bad = (a + k) / (a + b + drawn)
            fresh[k + 1] = fresh.get(k + 1, 0.0) + p * bad
            fresh[k] = fresh.get(k, 0.0) + p * (1 - bad)
        ways = fresh
    return sum(p for k, p in ways.items() if k >= hits)


@given(st.integers(1, 40), st.integers(0, 40), st.integers(1, 5), st.integers(1, 200))
def test_rates_have_the_exact_tail(trials: int, hits: int, a: int, b: int) -> None:
    hits = min(hits, trials)
    surprise = tail_surprise(hits, trials, a, b)
    if hits > trials * a / (a + b):
        assert 10**-surprise == pytest.approx(exact_tail(hits, trials, a, b), rel=1e-6)
    else:
        assert surprise == 0.0


def test_three_events_with_one_failure_are_no_news_and_forty_of_two_hundred_are() -> None:
    rates = make(("rates",))["rates"]
    for _ in range(30):
        rates.learn_one({COUNT: 20.0, "error_ratio": 0.0})
    assert rates.score_one({COUNT: 3.0, "error_ratio": asin(sqrt(1 / 3))}) < 3
    assert rates.score_one({COUNT: 200.0, "error_ratio": asin(sqrt(0.2))}) > 10


# --- seasonal


def test_seasonal_knows_the_hour() -> None:
    seasonal, rng = make(("seasonal",))["seasonal"], random.Random(3)
    for hour in range(24 * 30):
        level = 10.0 if hour % 24 < 12 else 20.0
        seasonal.learn_one({TIME: float(hour * HOUR_US), "p50_us": level + rng.gauss(0, 0.5)})
    day = 24 * 30 * HOUR_US
    assert seasonal.score_one({TIME: float(day + 3 * HOUR_US), "p50_us": 10.0}) < 2
    [finding] = seasonal.explain_one({TIME: float(day + 3 * HOUR_US), "p50_us": 20.0})
    assert finding.surprise > 4 and finding.expected == pytest.approx(10.0, abs=1.5)
    assert seasonal.explain_one({"p50_us": 20.0}) == []


# --- novelty


def test_novelty_finds_what_lies_in_a_gap() -> None:
    novelty, rng = Novelty(), random.Random(4)
    for _ in range(500):
        novelty.learn(rng.choice([0.0, 10.0]) + rng.gauss(0, 0.3))
    assert novelty.surprise(5.0) > 4 > novelty.surprise(10.1)


def test_novelty_is_thinned_where_it_is_dense_and_keeps_the_rare() -> None:
    novelty, rng = Novelty(capacity=64, top=30), random.Random(5)
    values = [rng.gauss(0, 1) for _ in range(3000)]
    for value in [*values, 50.0, *values]:
        novelty.learn(value)
        assert len(novelty.history) <= 64 and len(novelty.tail.largest) <= 31
    assert 50.0 in novelty.history and max(values) in novelty.history and min(values) in novelty.history


@given(st.lists(st.floats(-1e6, 1e6), min_size=6, max_size=60), st.floats(-1e6, 1e6))
def test_novelty_distance_is_that_to_the_five_nearest(history: list[float], value: float) -> None:
    novelty = Novelty()
    for held in history:
        novelty.learn(held)
    nearest = sorted(abs(value - held) for held in history)[:5]
    assert novelty.distance(value) == pytest.approx(sum(nearest) / 5)


def test_a_tail_says_nothing_before_thirty() -> None:
    tail = Tail()
    for i in range(29):
        tail.learn(float(i))
    assert tail.surprise(1e6) == 0
    tail.learn(1.0)
    assert tail.surprise(1e6) > 5


@given(st.lists(st.floats(0, 1), max_size=80), st.integers(0, 20))
def test_peak_hold_passes_only_what_beats_all_of_the_hold(scores: list[float], hold: int) -> None:
    peaks = PeakHold(hold, capacity=1000)
    for at, score in enumerate(scores):
        earlier = scores[max(0, at - hold + 1) : at] if hold else []
        assert peaks.passes(at, score) == all(score > other for other in earlier if other > 0)
        peaks.add(at, score)


def test_a_series_reports_a_spike_and_a_flat_line_once() -> None:
    detector, rng, scores = SeriesNovelty(), random.Random(9), []
    for i in range(3000):
        value = 10 + 3 * ((i // 12 % 24) > 12) + rng.gauss(0, 1)
        value = 40.0 if i in (2000, 2010) else 11.0 if 2600 <= i < 2640 else value
        x = {TIME: float(i * HOUR_US // 12), "value": value}
        scores.append(detector.score_one(x))
        detector.learn_one(x)
    found = [i for i, score in enumerate(scores) if score > 0.5 and i > 500]
    assert 2000 in found and 2010 not in found
    assert any(2600 <= i < 2640 for i in found) and len(found) < 10


# --- half-space trees


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 5), st.integers(1, 6), st.integers(2, 60), st.floats(0, 0.5))
def test_half_spaces_are_rivers(seed: int, trees: int, height: int, window: int, absent: float) -> None:
    rng, names = random.Random(seed), ("a", "b", "c")
    theirs = anomaly.HalfSpaceTrees(n_trees=trees, height=height, window_size=window, seed=seed)
    ours = HalfSpaces(names, trees, height, window, seed)
    for i in range(200):
        x = {name: rng.random() for name in names if i == 0 or rng.random() >= absent}
        point = [x.get(name) for name in names]
        assert ours.score(point) == theirs.score_one(x)  # type: ignore[no-untyped-call]  # River
        theirs.learn_one(x)  # type: ignore[no-untyped-call]  # River
        ours.learn(point)


def test_a_window_that_a_byte_cannot_count_is_refused() -> None:
    with pytest.raises(ValueError, match=r"1\.\.255"):
        HalfSpaces(("a",), 1, 2, 256, 1)


# --- ensemble


def natural(rng: random.Random) -> dict[str, float]:
    """Return one healthy window in natural units."""
    n = 40.0
    x = {TIME: 1.76e15, COUNT: n, "error_ratio": 0.0, "affected_ratio": 0.0, "events_per_window": n}
    return x | {"mean_us": rng.gauss(50_000, 2000), "p50_us": rng.gauss(45_000, 2000)}


def taught(count: int = 60) -> tuple[Ensemble, random.Random]:
    """Return an ensemble of all detectors that knows healthy windows."""
    ensemble, rng = Ensemble(make(tuple(DETECTORS))), random.Random(6)
    for _ in range(count):
        ensemble.learn_one(natural(rng))
    return ensemble, rng


def test_the_verdict_names_the_feature_in_natural_units() -> None:
    ensemble, rng = taught()
    verdict = ensemble.judge(natural(rng) | {"p50_us": 135_000.0})
    assert verdict.surprise > 5
    first = verdict.contributions[0]
    assert first.feature == "p50_us" and first.value == 135_000.0
    assert first.expected == pytest.approx(45_000, rel=0.05)
    shares = [row.share for row in verdict.contributions]
    assert sum(shares) <= 1 + 1e-9 and shares == sorted(shares, reverse=True)


def test_too_small_a_difference_never_matters() -> None:
    ensemble, rng = taught(300)
    assert ensemble.score_one(natural(rng) | {"p50_us": 45_000 * 1.25}) == 0.0


def test_one_voice_is_not_enough() -> None:
    alone = Ensemble(make(("novelty", "rates")))
    rng = random.Random(6)
    for _ in range(60):
        alone.learn_one(natural(rng))
    assert alone.score_one(natural(rng) | {"p50_us": 500_000.0}) == 0.0
    assert alone.score_one(natural(rng) | {"error_ratio": 0.5}) > 5


def test_a_window_of_few_events_is_pulled_in() -> None:
    ensemble, rng = taught()
    slow = natural(rng) | {"mean_us": 90_000.0, "p50_us": 90_000.0}
    assert ensemble.score_one(slow | {COUNT: 1.0}) < ensemble.score_one(slow)


def test_the_state_of_other_detectors_is_refused() -> None:
    ensemble, _ = taught()
    with pytest.raises(ValueError, match="not the ones in use"):
        Ensemble(make(("novelty",))).load(ensemble.save())
