"""A directory in the layout of the PetShop set, through the reader of health windows.

    <scenario>/graph.csv                        0/1, row = caller, column = callee
    <scenario>/noissue/metrics.csv              normal windows
    <scenario>/issues/<issue>/metrics.csv       the windows of one issue
    <scenario>/issues/<issue>/target.json       {"target": {node, metric, agg}, "root_cause": {node, metric or null}}

A window's requests and values become what the product remembers of a component: steps that ended, their time, and how
many failed.
"""

import csv
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
import orjson

from infra.evaluation.errors import EvaluationError
from schemas.internal import EdgeDelta
from streams.graph import Graph
from streams.rootcause.base import Scene
from streams.rootcause.bayes import Array
from streams.rootcause.gate import Gate
from streams.rootcause.memory import Counts, Memory, MemorySettings
from streams.rootcause.windows import FAILURES, LATENCY, window_shares
from streams.scoring.ranks import hits, mid_rank

WINDOW_US = 300_000_000
EARLY, LATE = 3, 5
"""Ranked after so many windows of an issue."""
FRACTIONS = (0.5, 0.6, 0.7, 0.8, 0.9)
"""Of the normal windows: learned from, the rest stands for issue-free stretches."""
PERMUTATIONS = 3
METRICS = {"latency": LATENCY, "availability": FAILURES}
Table = dict[tuple[str, str, str], Array]
"""(node, metric, statistic) -> a value per window, nan where the cell is empty."""


class Target(NamedTuple):
    """Where an issue is felt. The statistic is the Average where a node lacks the one named."""

    node: str
    metric: str
    statistic: str


class Issue(NamedTuple):
    """One issue; `cause` and `cause_metric` are read by the scoring only."""

    name: str
    target: Target
    windows: Table
    cause: str
    cause_metric: str | None


class Scenario(NamedTuple):
    """One deployment with its normal operation."""

    name: str
    callees: dict[str, list[str]]
    normal: Table
    issues: list[Issue]


# -- reading ----------------------------------------------------------------------------------------------------------


def read_set(folder: Path) -> list[Scenario]:
    """Return all scenarios of a directory; raises EvaluationError where it is not such a directory."""
    found = [_scenario(path.parent) for path in sorted(folder.glob("*/graph.csv"))]
    if not any(scenario.issues for scenario in found):
        needed = "<scenario>/graph.csv with <scenario>/issues/*/target.json"
        raise EvaluationError(f"{folder}: no {needed} in it, so it is no PetShop directory.")
    return found


def _scenario(folder: Path) -> Scenario:
    issues = [_issue(path.parent) for path in sorted(folder.glob("issues/*/target.json"))]
    return Scenario(folder.name, _graph(folder / "graph.csv"), _table(folder / "noissue" / "metrics.csv"), issues)


def _issue(folder: Path) -> Issue:
    try:
        found = orjson.loads((folder / "target.json").read_bytes())
        target, cause = found["target"], found["root_cause"]
        issue = Issue(
            folder.name, Target(target["node"], target["metric"], target["agg"]), _table(folder / "metrics.csv"),
            cause["node"], cause.get("metric"),
        )  # fmt: skip
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise EvaluationError(f"{folder / 'target.json'}: no target and root_cause can be read ({error!r}).") from error
    if issue.target.metric not in METRICS:
        raise EvaluationError(f"{folder / 'target.json'}: metric {issue.target.metric} is none of {', '.join(METRICS)}.")
    return issue


def _rows(path: Path) -> list[list[str]]:
    try:
        with path.open(newline="") as lines:
            return list(csv.reader(lines))
    except OSError as error:
        raise EvaluationError(f"{path}: cannot be read ({error.strerror}).") from error


def _graph(path: Path) -> dict[str, list[str]]:
    rows = _rows(path)
    if len(rows) < 2:
        raise EvaluationError(f"{path}: no node in it.")
    header, *rows = rows
    try:
        return {row[0]: [name for name, cell in zip(header[1:], row[1:], strict=True) if float(cell)] for row in rows}
    except (ValueError, IndexError) as error:
        raise EvaluationError(f"{path}: not a square of 0 and 1 with names ({error}).") from error


def _table(path: Path) -> Table:
    rows = _rows(path)
    try:
        nodes, metrics, statistics = (row[1:] for row in rows[:3])
        values = np.array([[float(cell) if cell else np.nan for cell in row[1:]] for row in rows[4:]])
        return {key: values[:, at] for at, key in enumerate(zip(nodes, metrics, statistics, strict=True))}
    except (ValueError, IndexError) as error:
        raise EvaluationError(f"{path}: not windows under microservice, metric and statistic ({error}).") from error


# -- the product's view -----------------------------------------------------------------------------------------------


def _values(table: Table, node: str, target: Target) -> Array | None:
    """Return latency in s, or the failed share, per window."""
    found = table.get((node, target.metric, target.statistic), table.get((node, target.metric, "Average")))
    if found is None or METRICS[target.metric] == LATENCY:
        return found
    return 1.0 - found / 100.0


def _of_all(table: Table, target: Target) -> dict[str, Array]:
    nodes = sorted({node for node, _, _ in table})
    return {node: values for node in nodes if (values := _values(table, node, target)) is not None}


def _scene(table: Table, callees: Mapping[str, list[str]], target: Target) -> Scene:
    """Return what the product remembers once the window after the last one has begun."""
    memory = Memory(MemorySettings(window_us=WINDOW_US))
    graph = Graph()
    for caller, names in callees.items():
        for name in names:
            graph.observe(EdgeDelta("", "", "call", caller, name, "", 0, 1))
    size = 0
    for node, values in _of_all(table, target).items():
        requests = table.get((node, "requests", "Sum"), np.full(len(values), np.nan))
        size = len(values)
        for number, (count, value) in enumerate(zip(requests, values, strict=True)):
            if not (np.isnan(count) or np.isnan(value)):
                memory.restore(node, number * WINDOW_US, [_counts(float(count), float(value), METRICS[target.metric])])
    memory.restore("", size * WINDOW_US, [])
    return Scene(memory, graph)


def _counts(requests: float, value: float, metric: str) -> Counts:
    if metric == LATENCY:
        return Counts("", "", completed=requests, duration_sum_us=requests * value * 1e6)
    return Counts("", "", completed=requests * (1.0 - value), failed=requests * value)


def _part(table: Table, first: int, last: int) -> Table:
    return {key: values[first:last] for key, values in table.items()}


def _shares(table: Table, callees: Mapping[str, list[str]], target: Target) -> dict[str, float]:
    return window_shares(_scene(table, callees, target), target.node, METRICS[target.metric])


# -- evaluation -------------------------------------------------------------------------------------------------------


def evaluate(folder: Path, advance: Callable[[str, int, int], None]) -> dict[str, Any]:
    """Rank every issue and try the reporting gate; `advance` is told (what, done, total)."""
    scenarios = read_set(folder)
    cases = [(scenario, issue) for scenario in scenarios for issue in scenario.issues]
    gates = {
        (scenario.name, target): Gate(_of_all(scenario.normal, target)) for scenario in scenarios for target in _targets(scenario)
    }
    rows = []
    for number, (scenario, issue) in enumerate(cases, 1):
        rows.append(_case(scenario, issue, gates[scenario.name, issue.target]))
        advance(f"{scenario.name}/{issue.name}", number, len(cases))
    normal = [_silence(scenario, target) for scenario in scenarios for target in _targets(scenario)]
    silent, stretches = (sum(one[name] for one in normal) for name in ("silent", "stretches"))
    return {
        "set": "petshop",
        "cases": len(rows),
        "after": {str(count): _summary(rows, f"rank_{count}") for count in (LATE, EARLY)},
        "permutations": PERMUTATIONS,
        "unchanged_under_permuted_names": sum(row["unchanged"] for row in rows),
        "reported": sum(row["reported"] for row in rows),
        "normal": {"silent": silent, "stretches": stretches, "by_target": normal},
        "issues": rows,
    }


def _case(scenario: Scenario, issue: Issue, gate: Gate) -> dict[str, Any]:
    scores = {count: _shares(_part(issue.windows, 0, count), scenario.callees, issue.target) for count in (EARLY, LATE)}
    late = scores[LATE]
    return {
        "scenario": scenario.name,
        "issue": issue.name,
        "metric": issue.target.metric,
        **{f"rank_{count}": _rank(found, issue) for count, found in scores.items()},
        "first": max(sorted(late), key=lambda name: late[name]) if late else None,
        "reported": gate.opens(issue.target.node, late, _of_all(_part(issue.windows, 0, LATE), issue.target)),
        "unchanged": all(_is_unchanged(scenario, issue, late, Random(seed)) for seed in range(PERMUTATIONS)),
    }


def _rank(scores: dict[str, float], issue: Issue) -> float | None:
    """Return the cause's rank; a metric, where the truth names one, must be the target's, because that is what is ranked."""
    return mid_rank(scores, issue.cause) if issue.cause_metric in (None, issue.target.metric) else None


def _is_unchanged(scenario: Scenario, issue: Issue, scores: dict[str, float], random: Random) -> bool:
    """Return whether every node keeps its rank when nodes swap their names."""
    called_ones = {name for called in scenario.callees.values() for name in called}
    names = sorted({node for node, _, _ in issue.windows} | scenario.callees.keys() | called_ones)
    other = dict(zip(names, random.sample(names, len(names)), strict=True))
    callees = {other[caller]: [other[name] for name in called] for caller, called in scenario.callees.items()}
    table = {(other[node], metric, kind): values[:LATE] for (node, metric, kind), values in issue.windows.items()}
    target = issue.target._replace(node=other[issue.target.node])
    found = _shares(table, callees, target)
    return {other[name]: mid_rank(scores, name) for name in scores} == {name: mid_rank(found, name) for name in found}


def _summary(rows: list[dict[str, Any]], key: str) -> dict[str, Any]:
    groups: dict[str, list[float | None]] = {"all": []}
    for row in rows:
        groups["all"].append(row[key])
        groups.setdefault(f"{row['scenario']} {row['metric']}", []).append(row[key])
    return {name: {"cases": len(ranks), "top_1": hits(ranks, 1), "top_3": hits(ranks, 3)} for name, ranks in groups.items()}


def _targets(scenario: Scenario) -> list[Target]:
    return sorted({issue.target for issue in scenario.issues})


def _silence(scenario: Scenario, target: Target) -> dict[str, Any]:
    """Count issue-free stretches, as long as an issue, about which nothing is reported."""
    rows = len(next(iter(scenario.normal.values())))
    silent = stretches = 0
    for fraction in FRACTIONS:
        learned = int(rows * fraction)
        gate = Gate(_of_all(_part(scenario.normal, 0, learned), target))
        for start in range(learned, rows - LATE + 1, LATE):
            stretch = _part(scenario.normal, start, start + LATE)
            shares = _shares(stretch, scenario.callees, target)
            silent += not gate.opens(target.node, shares, _of_all(stretch, target))
            stretches += 1
    return {"scenario": scenario.name, **target._asdict(), "silent": silent, "stretches": stretches}
