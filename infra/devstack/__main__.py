"""The local stack from a shell: python -m infra.devstack up|down|status|fetch [--home DIR]"""

import argparse
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

from infra.devstack import DevstackError, Stack, down, fetch, running, status, up


def main() -> int:
    """Runs one command; what the user can act upon is one line on stderr."""
    options = _options()
    try:
        return _run(options.command, options.home, options.foreground)
    except DevstackError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m infra.devstack", description=__doc__)
    parser.add_argument("command", choices=["up", "down", "status", "fetch"])
    parser.add_argument("--home", type=Path, default=Path(".flowchain"), help="the stack's folder")
    parser.add_argument("--foreground", action="store_true", help="up: stop the engines with this process")
    return parser.parse_args()


def _run(command: str, home: Path, foreground: bool) -> int:
    if command == "fetch":
        fetch()
    elif command == "down":
        down(home)
    elif command == "status":
        return _show(status(home))
    elif foreground:
        _stay(home)
    else:
        return _show(up(home, detached=True))
    return 0


def _stay(home: Path) -> None:
    with running(home) as stack:
        _show(stack)
        while True:
            time.sleep(3600)


def _show(stack: Stack | None) -> int:
    if stack is None:
        print("There is no local stack here.")
        return 3
    table = Table("engine", Column("address", overflow="fold"), "http port", "pid", "answers")
    for engine in stack.engines:
        http, pid = str(engine.http_port or ""), str(engine.pid or "not ours")
        table.add_row(engine.name, engine.address, http, pid, "yes" if engine.healthy else "no")
    Console().print(table)
    return 0 if stack.healthy else 1


if __name__ == "__main__":
    sys.exit(main())
