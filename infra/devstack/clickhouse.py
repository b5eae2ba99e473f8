"""ClickHouse: a `clickhouse` binary where there is one, else the server that is inside libchdb."""

import shutil
import sys
from pathlib import Path
from xml.sax.saxutils import escape

import psutil
from clickhouse_driver import Client  # type: ignore[import-untyped]
from clickhouse_driver.errors import Error  # type: ignore[import-untyped]

from infra.devstack.model import HOST, Engine
from infra.devstack.processes import HERE, Command

# one file for server and users, so that both ways of running it read the same
CONFIG = """\
<clickhouse>
  <path>{data}/</path>
  <tmp_path>{data}/tmp/</tmp_path>
  <user_files_path>{data}/user_files/</user_files_path>
  <format_schema_path>{data}/format_schemas/</format_schema_path>
  <listen_host>{host}</listen_host>
  <tcp_port>{port}</tcp_port>
  <http_port>{http_port}</http_port>
  <timezone>UTC</timezone>
  <max_server_memory_usage>{memory}</max_server_memory_usage>
  <mark_cache_size>268435456</mark_cache_size>
  <logger><level>information</level><console>1</console></logger>
  <users_config>{config}</users_config>
  <profiles><default/></profiles>
  <quotas><default/></quotas>
  <users>
    <default>
      <password/>
      <networks><ip>127.0.0.1</ip><ip>::1</ip></networks>
      <profile>default</profile>
      <quota>default</quota>
      <access_management>1</access_management>
    </default>
  </users>
</clickhouse>
"""


def binary() -> str | None:
    """The `clickhouse` of this machine, if it has one."""
    return shutil.which("clickhouse")


def prepare(data: Path, library: Path | None, port: int, http_port: int) -> Command:
    """Writes the configuration; the command that runs the server."""
    data.mkdir(parents=True, exist_ok=True)
    config = data.parent / "clickhouse.xml"
    paths = {"data": escape(str(data)), "config": escape(str(config))}
    config.write_text(CONFIG.format(**paths, host=HOST, port=port, http_port=http_port, memory=_memory()))
    if library is not None:
        return Command((sys.executable, "-I", "-S", str(HERE / "_chdb.py"), str(library), str(config)))
    # without this variable the server forks a watchdog, and our pid would be the watchdog's
    one_process = (str(shutil.which("env")), "CLICKHOUSE_WATCHDOG_ENABLE=0")
    return Command((str(binary()), "server", f"--config-file={config}"), one_process)


def _memory() -> int:
    return int(min(4 * 2**30, psutil.virtual_memory().total // 2))


def healthy(engine: Engine) -> bool:
    """Whether the server answers a query."""
    client = Client.from_url(f"{engine.address}?connect_timeout=3&send_receive_timeout=3")
    try:
        return bool(client.execute("SELECT 1") == [(1,)])
    except (Error, OSError, EOFError):
        return False
    finally:
        client.disconnect()
