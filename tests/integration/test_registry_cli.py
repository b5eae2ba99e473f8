"""`flowchain registry` as a person uses it: the commands of docs/registry.md, and what is refused."""

import json
import os
import re
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers_ingest import pipeline

import infra.cli
from connectors.definitions import read_definitions
from connectors.migrate import migrate_postgres
from connectors.registry import Registry
from connectors.settings import Settings
from infra.devstack import Stack
from infra.registering import put_in_force, put_in_force_anywhere, registry
from infra.simulator.topology import definitions

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs" / "registry.md").read_text()
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def settings(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    schema = f"c{uuid.uuid4().hex[:12]}"
    with pipeline(stack, tmp_path_factory.mktemp("cli"), postgres_dsn=stack.postgres_dsn, postgres_schema=schema) as pipe:
        migrate_postgres(stack.postgres_dsn, schema)
        return pipe.settings


@pytest.fixture
def flowchain(settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs the command with the settings of these tests."""
    for name in [name for name in os.environ if name.startswith("FLOWCHAIN_")]:
        monkeypatch.delenv(name)
    for name, value in settings.environment("bootstrap_servers", "topic_prefix", "postgres_dsn", "postgres_schema").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("USER", "ann")
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["flowchain", *arguments])
        code = 0
        try:
            infra.cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        return (code, *capsys.readouterr())

    return run


def test_commands_of_the_documentation_do_what_it_says(flowchain: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    blocks = re.findall(r"^```(sh|text)\n(.*?)^```$", DOCS, re.MULTILINE | re.DOTALL)
    said: dict[str, str] = {}
    for kind, block in blocks:
        if kind == "text":
            assert said[list(said)[-1]] == block
            continue
        for line in block.splitlines():
            name, *arguments = line.split()
            code, out, err = flowchain(*arguments)
            assert (name, code, err) == ("flowchain", 0, ""), line
            said[line.removeprefix("flowchain registry ")] = out
    assert said["apply docs/examples/chains.yaml"].startswith("created  mt5_to_database, revision 1, sha256:")
    assert said["apply docs/examples/chains.yaml --tenant acme --dry-run"].startswith("would be created  mt5_to_database of acme")
    assert said["diff docs/examples/chains.yaml"] == "mt5_to_database is the same\nai_decision_making is the same\n"
    assert "expected_duration_ms: 50" in said["get mt5_to_database"]
    assert "ann" in said["history mt5_to_database"]
    assert said["drift ai_decision_making"].count("never seen") == 3
    assert said["delete ai_decision_making"].startswith("deleted  ai_decision_making, revision 2")


def test_change_is_compared_applied_and_followed(flowchain: Run, settings: Settings) -> None:
    file = Path("flow.yaml")
    file.write_text("name: order\nsteps:\n- {name: a, component: x, deadline_ms: 500}\n")
    [created] = json.loads(flowchain("registry", "apply", "flow.yaml", "--tenant", "acme", "--json")[1])
    assert (created["status"], created["tenant"], created["revision"]) == ("created", "acme", 1)
    file.write_text("name: order\nsteps:\n- {name: a, component: x, deadline_ms: 400}\n")
    code, out, _ = flowchain("registry", "diff", "flow.yaml", "--tenant", "acme")
    assert (code, out) == (0, "order of acme\n  steps[a].deadline_ms: 500.0 → 400.0 [breaking]\n")
    assert flowchain("registry", "apply", "flow.yaml", "--tenant", "acme", "--effective", "2030-01-01")[0] == 0
    found = [x for x in read_definitions(settings) if x.name == "order"]
    assert [(x.tenant, x.effective_from_unix_us, x.steps[0].deadline_ms) for x in found] == [("acme", 0, 500.0), ("acme", 1_893_456_000_000_000, 400.0)]
    history = json.loads(flowchain("registry", "history", "order", "--tenant", "acme", "--json")[1])
    assert [(x["revision"], x["author"]) for x in history] == [(2, "ann"), (1, "ann")]
    assert "deadline_ms: 500" in flowchain("registry", "get", "order", "--tenant", "acme", "--at", "2029-12-31")[1]
    assert flowchain("registry", "get", "order")[0] == 1
    listed = json.loads(flowchain("registry", "list", "--tenant", "acme", "--json")[1])
    assert ("order", "acme", 2) in [(x["name"], x["tenant"], x["revision"]) for x in listed]
    Path("exported.yaml").write_text(flowchain("registry", "export", "order", "--tenant", "acme")[1])
    [same] = json.loads(flowchain("registry", "apply", "exported.yaml", "--json")[1])
    assert same["status"] == "unchanged"


def test_cycle_that_only_the_registry_sees_is_refused_with_file_line_and_path(flowchain: Run) -> None:
    text = "name: {}\nrequires:\n{}steps: [{{name: s, component: x}}]\n"
    Path("all.yaml").write_text("---\n".join([text.format("ca", "- cb\n"), text.format("cb", "- cc\n"), "name: cc\nsteps: [{name: s, component: x}]\n"]))
    assert flowchain("registry", "apply", "all.yaml")[0] == 0
    Path("closing.yaml").write_text("# it was fine alone\n" + text.format("cc", "- ca\n"))
    assert flowchain("registry", "validate", "closing.yaml")[0] == 0
    assert flowchain("registry", "apply", "closing.yaml") == (
        1, "", "error: closing.yaml:4: requires.0: required flows form a cycle: cc → ca → cb → cc\n",
    )  # fmt: skip
    code, _, err = flowchain("registry", "delete", "cc")
    assert (code, err) == (1, "error: flow 'cc' is required by 'cb'\n")


def test_topic_that_was_lost_is_written_anew(flowchain: Run, settings: Settings) -> None:
    Path("flow.yaml").write_text("name: again\nsteps: [{name: a, component: x}]\n")
    assert flowchain("registry", "apply", "flow.yaml")[0] == 0
    assert flowchain("registry", "publish")[1] == "0 records published\n"
    assert json.loads(flowchain("registry", "publish", "--all", "--json")[1])["published"] > 0


def test_simulated_flows_are_registered_where_there_is_a_registry(flowchain: Run, settings: Settings) -> None:
    put_in_force(settings, definitions()[:2], "demo")
    with registry(settings) as (flows, _):
        assert isinstance(flows, Registry)
        assert flows.get("ai_decision_making", None).author == "demo"
    elsewhere = settings.model_copy(update={"postgres_schema": "nowhere"})
    before = len(read_definitions(settings))
    put_in_force_anywhere(elsewhere, definitions()[2:3], "simulate")
    assert len(read_definitions(settings)) == before + 1


def test_database_without_a_registry_is_told_apart(flowchain: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWCHAIN_POSTGRES_SCHEMA", "nowhere")
    assert flowchain("registry", "list") == (1, "", "error: PostgreSQL has no registry in the schema nowhere: `flowchain migrate` makes it\n")
