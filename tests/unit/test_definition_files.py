"""Files of definitions: what is wrong is told with its file, line and field, all of it in one go."""

from pathlib import Path

import pytest

from connectors.definition_files import FilesRefused, as_yaml, import_file, read_definitions_of

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"

REFUSED: dict[str, tuple[str, str, list[tuple[int, str, str]]]] = {
    "several errors, each on its line": (
        "a.yaml",
        "name: order\nsteps:\n  - name: a\n    component: x\n    deadline_ms: soon\n  - name: b\n    comp: y\nslo:\n  objective: 1\n",
        [(5, "steps.0.deadline_ms", "valid number"), (6, "steps.1.component", "required"), (7, "steps.1.comp", "not permitted"), (9, "slo.objective", "less than 1")],
    ),
    "several errors in JSON": (
        "a.json",
        '{\n "name": "order",\n "steps": [\n  {"name": "a", "component": "x"},\n  {"name": "a",\n   "component": "x",\n   "after": ["z"]}\n ]\n}',
        [(5, "steps.1.name", "defined twice"), (7, "steps.1.after", "'z', which is no step")],
    ),
    "steps in a cycle": (
        "a.yaml",
        "name: order\nsteps:\n- {name: a, component: x, after: [c]}\n- {name: b, component: x, after: [a]}\n- {name: c, component: x, after: [b]}\n",
        [(3, "steps.0.after", "a → b → c → a")],
    ),
    "edges in a cycle": (
        "a.yaml",
        "name: order\nsteps:\n- {name: a, component: x}\n- {name: b, component: x}\nedges:\n- {source: a, target: b}\n- {source: b, target: a}\n",
        [(7, "edges.1", "a → b → a")],
    ),
    "flows that require each other": (
        "a.yaml",
        "name: a\nrequires: [b]\nsteps: [{name: s, component: x}]\n---\nname: b\nrequires:\n- a\nsteps: [{name: s, component: x}]\n",
        [(7, "requires.0", "required flows form a cycle: a → b → a")],
    ),
    "one flow twice in a list": (
        "a.json",
        '[{"name": "a", "steps": [{"name": "s", "component": "x"}]},\n {"name": "a", "steps": [{"name": "s", "component": "x"}]}]',
        [(2, "name", "defined at")],
    ),
    "errors in two documents": (
        "a.yaml",
        "name: a\n---\n# nothing\n---\nname: b\nsteps: []\n",
        [(1, "steps", "required"), (6, "steps", "at least 1 item")],
    ),
    "key given twice": ("a.yaml", "name: a\nname: b\n", [(2, "name", "given twice")]),
    "key given twice in JSON": ("a.json", '{"name": "a",\n"name": "b"}', [(2, "name", "given twice")]),
    "no YAML": ("a.yml", "name: a\nsteps: [\n", [(3, "definition", "no YAML")]),
    "no JSON": ("a.json", '{"name": "a",\n "steps": [}', [(2, "definition", "no JSON: Expecting value")]),
    "more than JSON": ("a.json", '{}\n{}', [(2, "definition", "no JSON: Extra data")]),
    "text instead of a definition": ("a.yaml", "just text\n", [(1, "definition", "should be an object")]),
    "bytes that are no UTF-8": ("a.yaml", "name: a\ndescription: \udcff\n", [(2, "file", "UTF-8")]),
    "anchors that multiply": ("a.yaml", "a: &a [1,1,1,1,1,1,1,1,1,1]\n" + "".join(f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 10)}]\n" for n in range(6)), [(1, "", "values")]),
    "an anchor inside itself": ("a.yaml", "a: &a [*a]\n", [(1, "", "nested")]),
    "a date stays a text": ("a.yaml", "name: a\nversion: 2026-01-01\nsteps: [{name: yes, component: no}]\nextra: 1\n", [(4, "extra", "not permitted")]),
    "a fact that is none": ("a.yaml", "name: a\nsteps:\n- name: s\n  component: x\n  metadata:\n    k: {}\n", [(6, "steps.0.metadata.k", "neither a text")]),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_is_told_with_its_line_and_field(tmp_path: Path, case: str) -> None:
    name, text, expected = REFUSED[case]
    file = tmp_path / name
    file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(FilesRefused) as caught:
        read_definitions_of([file])
    problems = caught.value.problems
    assert len(problems) == len(expected), str(caught.value)
    for (line, field, reason), found in zip(expected, problems, strict=True):
        assert (found.file, found.line) == (file, line)
        assert field in found.field
        assert reason in found.reason


def test_file_that_is_not_there_is_told_beside_what_is_wrong_in_others(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("name: a\n")
    with pytest.raises(FilesRefused) as caught:
        read_definitions_of([tmp_path / "none.yaml", tmp_path / "a.yaml"])
    assert [problem.reason for problem in caught.value.problems] == ["Field required", "cannot be read: No such file or directory"]


def test_tenants_do_not_close_each_others_cycles(tmp_path: Path) -> None:
    text = "name: {}\ntenant: {}\nrequires: [{}]\nsteps: [{{name: s, component: x}}]\n"
    (tmp_path / "a.yaml").write_text("---\n".join([text.format("a", "acme", "b"), text.format("b", "globex", "a")]))
    assert len(read_definitions_of([tmp_path / "a.yaml"])) == 2


def test_shipped_chains_are_as_they_were_ordered() -> None:
    mt5, ai = (located.definition for located in read_definitions_of([EXAMPLES / "chains.yaml"]))
    assert (mt5.name, [(step.name, step.expected_duration_ms) for step in mt5.steps]) == (
        "mt5_to_database", [("mt5_ingestion", 50), ("data_validation", 20), ("data_processing", 100), ("database_storage", 80)],
    )  # fmt: skip
    assert (ai.name, [step.expected_duration_ms for step in ai.steps]) == ("ai_decision_making", [30, 15, 10, 1.2])
    for chain in (mt5, ai):
        assert all(before.output == step.input for before, step in zip(chain.steps, chain.steps[1:], strict=False))


@pytest.mark.parametrize(
    ("kind", "name", "flows"),
    [("chain_mapping", "chain_mapping.yaml", 2), ("langgraph", "langgraph.json", 1), ("ai_brain", "ai_brain.json", 1), ("custom", "custom.json", 1)],
)  # fmt: skip
def test_shipped_documents_become_yaml_that_says_the_same(tmp_path: Path, kind: str, name: str, flows: int) -> None:
    found = import_file(kind, EXAMPLES / name)  # type: ignore[arg-type]
    assert [flow.kind for flow in found] == [kind] * flows
    (tmp_path / "flows.yaml").write_text(as_yaml(found))
    assert [located.definition for located in read_definitions_of([tmp_path / "flows.yaml"])] == found


def test_foreign_file_is_refused_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "brain.yaml"
    file.write_text("brain: b\nagents:\n- id: a\n- id: b\ndecisions:\n- {from: a, to: b}\n- {from: b, to: a}\n")
    with pytest.raises(FilesRefused) as caught:
        import_file("ai_brain", file)
    assert [(p.line, p.field) for p in caught.value.problems] == [(7, "decisions.1")]
    assert "a → b → a" in str(caught.value)
