"""The command line without engines: what programs read, exit codes, and errors in one sentence before anything starts."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from pydantic import ValidationError

import infra.cli
from connectors.settings import Settings
from infra import background, demo
from infra.devstack.processes import Proc
from schemas.analysis import Alert

ROOT = Path(__file__).parents[2]
NOWHERE = "127.0.0.1:1"


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def flowchain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Runs the command in an empty folder with nothing configured, on a terminal of 80 columns."""
    for name in [name for name in os.environ if name.upper().startswith("FLOWCHAIN_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("infra.cli.common.REACH_S", 1.0)
    monkeypatch.setattr("infra.devstack.engines.PATIENCE_SECONDS", 0.2)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, **variables: str) -> Done:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["flowchain", *arguments])
        code = 0
        try:
            infra.cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        return Done(code, *capsys.readouterr())

    yield run
    assert not (tmp_path / ".flowchain" / "data").exists(), "an engine was prepared"


def refused(done: Done, pattern: str) -> None:
    """Exit code 1, nothing on standard output, one sentence on standard error."""
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("error: ") and done.err.count("\n") == 1
    assert re.search(pattern, done.err), done.err


# -- settings ---------------------------------------------------------------------------------------------------------


def test_settings_say_where_they_come_from(flowchain: Run) -> None:
    Path(".env").write_text("FLOWCHAIN_LATENESS_S=1\n")
    done = flowchain("settings", "--json", FLOWCHAIN_WINDOW_S="5", FLOWCHAIN_PROFILE="production")
    rows = {row["name"]: row for row in json.loads(done.out)}
    assert set(rows) == set(Settings.model_fields)
    assert all(set(row) == {"name", "value", "from", "description"} for row in rows.values())
    assert [(rows[name]["value"], rows[name]["from"]) for name in ("window_s", "lateness_s", "replication_factor", "grace_s")] == [
        (5.0, "environment"), (1.0, ".env"), (3, "profile production"), (300.0, "default"),
    ]  # fmt: skip


@pytest.mark.parametrize("arguments", [["settings"], ["settings", "--json"]])
def test_secrets_are_masked(flowchain: Run, arguments: list[str]) -> None:
    done = flowchain(
        *arguments, FLOWCHAIN_POSTGRES_DSN="postgresql://u:hunter2@h/d", FLOWCHAIN_SASL_PASSWORD="hunter2",
        FLOWCHAIN_CLICKHOUSE_DSN="clickhouse://u:hunter2@h",
    )  # fmt: skip
    assert done.code == 0 and "********" in done.out
    assert "hunter2" not in done.out + done.err


def test_names_of_settings_are_whole_on_a_narrow_terminal(flowchain: Run) -> None:
    shown = flowchain("settings", FLOWCHAIN_BOOTSTRAP_SERVERS=",".join(f"kafka-{n}.example:9092" for n in range(9))).out
    assert all(f"FLOWCHAIN_{name.upper()} " in shown for name in Settings.model_fields)
    assert max(map(len, shown.splitlines())) <= 80


def test_a_misspelt_variable_is_named_with_what_was_meant(flowchain: Run) -> None:
    Path(".env").write_text("FLOWCHAIN_WINDOWS=5\n")
    done = flowchain("settings", "--json", FLOWCHAIN_TOPIC_PREFX="x.", FLOWCHAIN_QUEUE_SERVICE_HOST="10.0.0.1")
    assert done.code == 0 and json.loads(done.out)
    assert done.err.splitlines() == [
        "warning: FLOWCHAIN_QUEUE_SERVICE_HOST is no setting",
        "warning: FLOWCHAIN_TOPIC_PREFX is no setting; FLOWCHAIN_TOPIC_PREFIX was meant?",
        "warning: FLOWCHAIN_WINDOWS is no setting; FLOWCHAIN_WINDOW_S was meant?",
    ]


# -- errors -----------------------------------------------------------------------------------------------------------


def test_a_bad_setting_is_named(flowchain: Run) -> None:
    refused(flowchain("settings", FLOWCHAIN_WINDOW_S="soon"), r"setting FLOWCHAIN_WINDOW_S: Input should be a valid number")


def test_a_bad_record_is_not_called_a_setting(flowchain: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(**_: object) -> None:
        Alert.decode(b"{}")

    monkeypatch.setattr(infra.cli.settings, "load_settings", load)
    with pytest.raises(ValidationError):
        load()
    done = flowchain("settings")
    refused(done, r"a record is not a valid Alert: \w+: Field required")


def test_migrate_without_databases(flowchain: Run) -> None:
    done = flowchain("migrate", FLOWCHAIN_POSTGRES_DSN=f"postgresql://u:hunter2@{NOWHERE}/d")
    refused(done, r"PostgreSQL cannot be used \(.*port 1.*\); FLOWCHAIN_POSTGRES_DSN names it")
    assert "hunter2" not in done.err


def test_migrate_without_clickhouse(flowchain: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.preparing.migrate_postgres", lambda *_: [])
    done = flowchain("migrate", FLOWCHAIN_CLICKHOUSE_DSN=f"clickhouse://u:hunter2@{NOWHERE}/d")
    refused(done, r"ClickHouse at 127.0.0.1:1 cannot be used \(it does not answer\)")
    assert "hunter2" not in done.err


@pytest.mark.parametrize("command", ["status", "topics list", "alerts tail", "dlq list", "simulate", "worker ingest"])
def test_without_kafka(flowchain: Run, command: str) -> None:
    refused(flowchain(*command.split(), FLOWCHAIN_BOOTSTRAP_SERVERS=NOWHERE), f"Kafka does not answer at {NOWHERE} .*refused")


def test_a_wrong_file_of_certificates_is_named(flowchain: Run) -> None:
    refused(flowchain("topics", "list", FLOWCHAIN_SSL_CA_LOCATION="ca.pem"), "setting FLOWCHAIN_SSL_CA_LOCATION: .* not point to a file")
    Path("ca.pem").write_text("no certificate")
    refused(flowchain("topics", "list", FLOWCHAIN_SECURITY_PROTOCOL="SSL"), r"ssl\.ca\.location failed")


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        (["demo", "--fault", "nonsense"], "unknown kind of fault 'nonsense'; there are crash, slow"),
        (["demo", "--service", "nobody"], "no service 'nobody'; there are .*trading-engine"),
        (["demo", "--rate", "0"], "rate and seconds must be above 0"),
        (["simulate", "--fault", "slow:nobody:0:1"], "no service 'nobody'"),
        (["simulate", "--fault", "slow:data-bridge"], "is not kind:service:start:length"),
        (["simulate", "--truth", "nope/truth.json"], "no folder nope"),
        (["import", "spans", "/nope"], "/nope"),
        (["import", "spans", ".", "--speed", "0"], "--speed: above 0"),
        (["topics", "describe", "nope"], "nope is not in the catalogue"),
    ],
)
def test_nonsense_is_refused_before_anything_starts(flowchain: Run, arguments: list[str], pattern: str) -> None:
    refused(flowchain(*arguments), pattern)


# -- servers that are configured --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("FLOWCHAIN_BOOTSTRAP_SERVERS", NOWHERE),
        ("FLOWCHAIN_POSTGRES_DSN", f"postgresql://u:hunter2@{NOWHERE}/d"),
        ("FLOWCHAIN_CLICKHOUSE_DSN", f"clickhouse://u:hunter2@{NOWHERE}/d"),
    ],
)
def test_a_configured_server_that_does_not_answer(flowchain: Run, variable: str, value: str) -> None:
    done = flowchain("up", **{variable: value})
    refused(done, f"cannot be reached at {NOWHERE}")
    assert "hunter2" not in done.err


def test_an_address_that_is_none_is_refused_without_being_quoted(flowchain: Run) -> None:
    done = flowchain("up", FLOWCHAIN_POSTGRES_DSN="password=hunter2 host=/var/run")
    refused(done, r"The address of postgres is not like postgresql://postgres@127.0.0.1:5432/postgres")
    assert "hunter2" not in done.err


def test_a_port_and_a_configured_server_contradict_each_other(flowchain: Run) -> None:
    done = flowchain("up", "--kafka-port", "9092", FLOWCHAIN_BOOTSTRAP_SERVERS=NOWHERE)
    refused(done, "--kafka-port is for a server that is started, and FLOWCHAIN_BOOTSTRAP_SERVERS names one")


# -- one at a time, and nobody else's process -------------------------------------------------------------------------


def test_a_killed_parent_takes_along_a_child_that_does_not_heed_sigterm() -> None:
    """As a worker does not, whose good end waits for a Kafka that has died with the same parent."""
    child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    parent = (
        "import subprocess, sys; from infra.devstack.processes import tied; "
        f"child = subprocess.Popen(tied([sys.executable, '-c', {child!r}])); print(child.pid, flush=True); child.wait()"
    )
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        told = {process.stdout.readline().strip(), process.stdout.readline().strip()}
        proc = Proc.of(int((told - {"deaf"}).pop()))
        process.kill()
    deadline = time.monotonic() + 60
    while proc.alive and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not proc.alive


def test_a_second_demo_in_a_folder_is_refused_and_touches_nothing(flowchain: Run) -> None:
    kept = Path(".flowchain/demo/kept")
    kept.parent.mkdir(parents=True)
    kept.touch()
    with demo.alone(Path(".flowchain/demo")):
        done = flowchain("demo")
    assert done.code == 1 and "a demonstration runs in .flowchain/demo already" in done.err
    assert kept.exists()


def test_down_leaves_a_stranger_with_the_supervisors_pid_alone(flowchain: Run) -> None:
    with subprocess.Popen(["sleep", "600"]) as stranger:
        proc = Proc.of(stranger.pid)
        state = {"supervisor": {"pid": proc.pid, "created": proc.created - 60}, "workers": []}
        Path(".flowchain").mkdir()
        Path(".flowchain", background.STATE).write_text(json.dumps(state))
        assert background.read_state(Path(".flowchain")) is None
        assert flowchain("down", "--json") == Done(0, '{"stopped":true}\n', "")
        assert stranger.poll() is None
        assert not Path(".flowchain", background.STATE).exists()
        stranger.send_signal(signal.SIGKILL)


def test_a_state_that_cannot_be_read_is_said(flowchain: Run) -> None:
    Path(".flowchain").mkdir()
    Path(".flowchain", background.STATE).write_text('{"supervisor": 1, "workers": []}')
    refused(flowchain("down"), "workers.json cannot be read")


STEP = {"name": "charge", "component": "payments", "deadline_ms": 500}


def test_definitions_that_are_not_valid_are_named_with_file_line_field_and_reason(flowchain: Run) -> None:
    Path("good.json").write_text(json.dumps({"name": "order_to_cash", "steps": [STEP]}))
    Path("bad.json").write_text('[{"name": "a", "steps": [{"name": "s", "component": "x"}]},\n {"name": "b",\n  "steps": []}]')
    Path("cut.json").write_text('{"name": ')
    for file, reason in {
        "bad.json": "bad.json:3: steps: Tuple should have at least 1 item",
        "cut.json": "cut.json:1: definition: no JSON: Expecting value",
        "none.json": "none.json:1: file: cannot be read: No such file or directory",
    }.items():
        done = flowchain("registry", "apply", "good.json", file, FLOWCHAIN_BOOTSTRAP_SERVERS=NOWHERE)
        assert (done.code, done.out) == (1, "")
        assert reason in done.err


def test_cyclic_definition_is_refused_with_file_line_and_cycle(flowchain: Run) -> None:
    Path("cyclic.yaml").write_text(
        "name: order\nsteps:\n- {name: a, component: x, after: [c]}\n- {name: b, component: x, after: [a]}\n- {name: c, component: x, after: [b]}\n"
    )
    done = flowchain("registry", "apply", "cyclic.yaml", FLOWCHAIN_BOOTSTRAP_SERVERS=NOWHERE)
    assert done == Done(1, "", "error: cyclic.yaml:3: steps.0.after: steps form a cycle: a → b → c → a\n")


def test_files_are_validated_without_a_server(flowchain: Run) -> None:
    Path("good.json").write_text(json.dumps([{"name": "order_to_cash", "steps": [STEP]}]))
    assert flowchain("registry", "validate", "good.json") == Done(0, "valid  order_to_cash, 1 steps\n", "")
    assert json.loads(flowchain("registry", "validate", "good.json", "--json").out) == [{"name": "order_to_cash", "tenant": None, "steps": 1}]


def test_foreign_flow_becomes_yaml_that_is_valid(flowchain: Run) -> None:
    Path("graph.json").write_text(json.dumps({"nodes": [{"id": "__start__"}, {"id": "a"}, {"id": "b"}], "edges": [{"source": "a", "target": "b"}]}))
    done = flowchain("registry", "import", "--kind", "langgraph", "graph.json")
    assert (done.code, done.err) == (0, "")
    Path("graph.yaml").write_text(done.out)
    assert flowchain("registry", "validate", "graph.yaml").out == "valid  graph, 2 steps\n"
    refused(flowchain("registry", "import", "--kind", "petri", "graph.json"), "'petri' is no kind of flow: langgraph, ai_brain, chain_mapping, custom")
    Path("bad.json").write_text('{"nodes": [{"id": "a"}],\n "edges": [\n  {"source": "a", "target": "z"}]}')
    refused(flowchain("registry", "import", "--kind", "langgraph", "bad.json"), "bad.json:3: edges.0.target: 'z' is no node")


def test_registry_that_does_not_answer_is_named(flowchain: Run) -> None:
    nobody = "postgresql://postgres@127.0.0.1:1/postgres"
    refused(flowchain("registry", "list", FLOWCHAIN_POSTGRES_DSN=nobody), "PostgreSQL does not answer at 127.0.0.1:1: `flowchain up` starts a local one")
    Path("good.json").write_text(json.dumps({"name": "order_to_cash", "steps": [STEP]}))
    refused(flowchain("registry", "apply", "good.json", "--effective", "soon", "--dry-run"), "'soon' is neither `now` nor a time")
