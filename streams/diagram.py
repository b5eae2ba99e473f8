"""A chain as a picture: its steps with their state, as nodes and edges, as Mermaid text or as SVG.

Nodes stand from left to right by how many steps come before them, those of one column below each other.
"""

from collections.abc import Iterable, Sequence
from html import escape

import msgspec
from msgspec import Struct

from streams.rules import ChainRules

WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN = 190, 58, 60, 26, 24
COLOURS = {
    "completed": ("#e3f5e9", "#1f8a4c"), "failed": ("#fde4e1", "#c0352b"), "started": ("#e2edfd", "#2563c9"),
    "missing": ("#fff2d6", "#b7791f"), "pending": ("#f1f3f5", "#868e96"), "heard_of": ("#f1f3f5", "#868e96"),
    "healthy": ("#e3f5e9", "#1f8a4c"), "degraded": ("#fff2d6", "#b7791f"), "failing": ("#fde4e1", "#c0352b"),
    "unknown": ("#f1f3f5", "#868e96"),
}  # fmt: skip
"""(fill, line) of a state."""
Run = tuple[str, str, str, str, Sequence[str]]
"""One run of a step: (step, component, status, span, spans of its parents)."""


class Node(Struct, frozen=True):
    """One step."""

    id: str
    step: str
    component: str
    status: str
    x: int
    y: int
    """Of the upper left corner, in pixels of the picture."""
    runs: int = 0
    optional: bool = False


class Arrow(Struct, frozen=True):
    """One step after another."""

    source: str
    target: str
    data: str = ""
    """Type of what passes, where it is declared."""


class Diagram(Struct, frozen=True):
    """A chain with the state of its steps."""

    chain: str
    nodes: list[Node]
    edges: list[Arrow]

    def encode(self) -> bytes:
        """Return it as JSON."""
        return msgspec.json.encode(self)


def diagram(chain: str, rules: ChainRules | None, runs: Iterable[Run], missing: Iterable[str]) -> Diagram:
    """Return the picture of an execution: declared steps, and those that only were seen.

    The state of a step is that of its last run; `pending` has not begun, `missing` should have.
    """
    runs = list(runs)
    states = dict.fromkeys(missing, "missing") | {step: status for step, _, status, _, _ in runs}
    components = {step: component for step, component, _, _, _ in runs}
    after = _declared(rules) if rules else _seen(runs)
    for step in components:
        after.setdefault(step, [])
    counts = {step: sum(run[0] == step for run in runs) for step in after}
    return _laid_out(chain, after, rules, states, components, counts, "pending")


def flow_diagram(rules: ChainRules, states: dict[str, str]) -> Diagram:
    """Return the picture of a definition with the present health of each step: healthy, degraded, failing or unknown."""
    return _laid_out(rules.name, _declared(rules), rules, states, {}, {}, "unknown")


def _declared(rules: ChainRules) -> dict[str, list[str]]:
    return {name: list(rule.after) for name, rule in rules.steps.items()}


def _seen(runs: Iterable[Run]) -> dict[str, list[str]]:
    """Return what came after what, by the parents of the runs; a step that caused itself is only itself."""
    names = {span: step for step, _, _, span, _ in runs}
    after: dict[str, list[str]] = {}
    for step, _, _, _, parents in runs:
        before = after.setdefault(step, [])
        before += [names[p] for p in parents if p in names and names[p] != step and names[p] not in before]
    return after


def _laid_out(
    chain: str, after: dict[str, list[str]], rules: ChainRules | None, states: dict[str, str], components: dict[str, str],
    counts: dict[str, int], otherwise: str,
) -> Diagram:  # fmt: skip
    columns = _columns(after)
    rows: dict[int, int] = {}
    nodes, edges, ids = [], [], {step: f"s{number}" for number, step in enumerate(after)}
    for step, before in after.items():
        rule = rules.steps.get(step) if rules else None
        column = columns[step]
        row = rows[column] = rows.get(column, -1) + 1
        x, y = MARGIN + column * (WIDTH + GAP_X), MARGIN + row * (HEIGHT + GAP_Y)
        component = components.get(step) or (rule.component if rule else "")
        optional = bool(rule and rule.optional)
        nodes.append(Node(ids[step], step, component, states.get(step, otherwise), x, y, counts.get(step, 0), optional))
        for source in before:
            passed = rules.steps[source].output if rules and source in rules.steps else ""
            edges.append(Arrow(ids[source], ids[step], passed))
    return Diagram(chain, nodes, edges)


def _columns(after: dict[str, list[str]]) -> dict[str, int]:
    """Return for each step how many stand before it on the longest way; where steps run in a circle the first one begins it."""
    columns: dict[str, int] = {}
    left = list(after)
    while left:
        waiting = []
        for step in left:
            before = [source for source in after[step] if source != step and source in after]
            if all(source in columns for source in before):
                columns[step] = max((columns[source] for source in before), default=-1) + 1
            else:
                waiting.append(step)
        if len(waiting) == len(left):
            first = waiting.pop(0)
            columns[first] = max((columns[source] for source in after[first] if source in columns), default=-1) + 1
        left = waiting
    return columns


def mermaid(drawn: Diagram) -> str:
    """Return it as the text of a Mermaid flowchart."""
    lines = ["flowchart LR"]
    for node in drawn.nodes:
        label = "<br/>".join(_quoted(part) for part in (node.step, node.component, node.status) if part)
        lines.append(f'    {node.id}["{label}"]:::{node.status}')
    for edge in drawn.edges:
        lines.append(f'    {edge.source} -->|"{_quoted(edge.data)}"| {edge.target}' if edge.data else f"    {edge.source} --> {edge.target}")
    for status in sorted({node.status for node in drawn.nodes}):
        fill, line = COLOURS[status]
        lines.append(f"    classDef {status} fill:{fill},stroke:{line}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """Return a text for a label: Mermaid knows entities by number only, written with # in place of &."""
    return "".join(c if c.isalnum() or c in " _-." else f"#{ord(c)};" for c in text)


def svg(drawn: Diagram) -> str:
    """Return it as a picture that needs nothing from outside."""
    width = max((node.x for node in drawn.nodes), default=0) + WIDTH + MARGIN
    height = max((node.y for node in drawn.nodes), default=0) + HEIGHT + MARGIN
    places = {node.id: node for node in drawn.nodes}
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img">',
        f"<title>{escape(drawn.chain)}</title>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#868e96"/></marker></defs>',
        '<g font-family="system-ui, sans-serif" font-size="13">',
        *(_line(places[edge.source], places[edge.target], edge.data) for edge in drawn.edges),
        *(_box(node) for node in drawn.nodes),
        "</g></svg>",
    ]
    return "\n".join(parts) + "\n"


def _line(source: Node, target: Node, data: str) -> str:
    x1, y1, x2, y2 = source.x + WIDTH, source.y + HEIGHT // 2, target.x, target.y + HEIGHT // 2
    bend = max(24, (x2 - x1) // 2)
    title = f"<title>{escape(data)}</title>" if data else ""
    return f'<path d="M{x1} {y1}C{x1 + bend} {y1} {x2 - bend} {y2} {x2} {y2}" fill="none" stroke="#868e96" marker-end="url(#tip)">{title}</path>'


def _box(node: Node) -> str:
    fill, line = COLOURS[node.status]
    dashed = ' stroke-dasharray="5 3"' if node.optional else ""
    times = f" ×{node.runs}" if node.runs > 1 else ""
    return (
        f'<g><title>{escape(f"{node.step} ({node.component}): {node.status}")}</title>'
        f'<rect x="{node.x}" y="{node.y}" width="{WIDTH}" height="{HEIGHT}" rx="8" fill="{fill}" stroke="{line}"{dashed}/>'
        f'<text x="{node.x + 12}" y="{node.y + 24}" font-weight="600">{escape(_short(node.step, 22))}{times}</text>'
        f'<text x="{node.x + 12}" y="{node.y + 43}" fill="#495057">{escape(_short(node.component, 16))} · {escape(node.status)}</text></g>'
    )


def _short(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"
