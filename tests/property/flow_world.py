"""Any definition: its shape, its promises, its facts."""

import json
from typing import Any

from hypothesis import strategies as st

from schemas.base import YEAR_2100_UNIX_US
from schemas.definitions import ChainDefinition
from schemas.order import reachable, successors

NAMES = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1, max_size=8)
STEP_NAMES = st.sampled_from(["id", "data", "a", "b", "c", "d", "e é", "component"])
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=12)
FACT_NAMES = st.sampled_from(
    ["id", "data", "type", "class", "label", "start", "end", "component", "metadata.x", "data.x", "data.id", "json:x", "json:data.x",
     "x", "data.json:x", "inputs", "outputs", "confidence_threshold", "flowchain", "optional", "name"]
) | NAMES  # fmt: skip
FACTS = (
    TEXTS | st.sampled_from(["[]", "{}", "null", '"x"', '{"a":1}', "confidence < 0.5"]) | st.booleans() | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False) | st.lists(TEXTS, max_size=3)
)  # fmt: skip
METADATA = st.dictionaries(FACT_NAMES, FACTS, max_size=5)
DURATIONS = st.none() | st.floats(0.001, 86_400_000.0)
CONDITIONS = st.none() | st.sampled_from(["", "yes", "confidence < 0.5", "a → b"])


@st.composite
def steps(draw: st.DrawFn, names: list[str]) -> list[dict[str, Any]]:
    return [
        {
            "name": name, "component": draw(NAMES | st.just(name)), "expected_duration_ms": draw(DURATIONS), "deadline_ms": draw(DURATIONS),
            "optional": draw(st.booleans()), "repeated": draw(st.booleans()), "input": draw(st.none() | NAMES),
            "output": draw(st.none() | NAMES), "metadata": draw(METADATA),
        }
        for name in names
    ]  # fmt: skip


@st.composite
def edges(draw: st.DrawFn, names: list[str]) -> list[dict[str, Any]]:
    """Arrows forth by the order of the names, and loops wherever there is a way to come back."""
    ahead = [(a, b) for index, a in enumerate(names) for b in names[index + 1 :]]
    forth = draw(st.lists(st.sampled_from(ahead), max_size=8)) if ahead else []
    after = successors(forth)
    behind = [(a, b) for b in names for a in sorted(reachable([b], after))]
    back = draw(st.lists(st.sampled_from(behind), max_size=3))
    drawn = {
        (*pair, draw(CONDITIONS)): {"loop": loop, "data": draw(st.none() | NAMES)}
        for pairs, loop in ((forth, False), (back, True))
        for pair in pairs
    }
    return [{"source": a, "target": b, "condition": condition, **rest} for (a, b, condition), rest in drawn.items()]


@st.composite
def definitions(draw: st.DrawFn) -> ChainDefinition:
    """Any valid definition, its order given in one of both ways."""
    names = draw(st.lists(STEP_NAMES, min_size=1, max_size=6, unique=True))
    name = draw(NAMES)
    fields: dict[str, Any] = {
        "name": name, "steps": draw(steps(names)), "edges": draw(st.none() | edges(names)), "metadata": draw(METADATA),
        "kind": draw(st.sampled_from(["chain", "langgraph", "ai_brain", "chain_mapping", "custom"])),
        "version": draw(st.sampled_from(["1", "7-b"])), "tenant": draw(st.none() | NAMES), "description": draw(TEXTS),
        "effective_from_unix_us": draw(st.sampled_from([0, 1, YEAR_2100_UNIX_US])),
        "requires": draw(st.lists(NAMES.filter(lambda other: other != name), max_size=3, unique=True)),
        "error_budget_ratio": draw(st.none() | st.floats(0, 1)),
        "slo": draw(st.none() | st.fixed_dictionaries({"objective": st.floats(0.001, 0.999), "window_days": st.integers(1, 366)})),
    }  # fmt: skip
    if fields["edges"] is None and draw(st.booleans()):
        for index, step in enumerate(fields["steps"]):
            step["after"] = draw(st.lists(st.sampled_from(names[:index]), unique=True, max_size=3)) if index else []
        fields["steps"] = draw(st.permutations(fields["steps"]))
    return ChainDefinition.model_validate_json(dumps(fields))


def dumps(document: Any) -> str:
    """JSON by the standard library: it takes what floats and integers there are."""
    return json.dumps(document)
