"""`flowchain-instrument <command>`: runs a Python service so that it reports to FlowChain, without a change in it.

The command, and every Python process that it starts, finds a `sitecustomize` of ours first on its path. That one runs the
host's own, if it has one, and has each library wrapped when the host imports it.
"""

import argparse
import os
import re
import shutil
import sys
from pathlib import Path

SITE = Path(__file__).parent / "site"
_APPLICATION = re.compile(r"([A-Za-z_][\w.]*):[A-Za-z_]\w*(?:\(.*\))?")
_COMMON = frozenset(("app", "application", "asgi", "main", "manage", "server", "service", "wsgi"))


def main() -> None:
    """Parse our options, set the environment and become the command."""
    options = _parser().parse_args()
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        _parser().error("a command is missing, e.g. flowchain-instrument uvicorn app:app")
    program = shutil.which(command[0])
    if program is None:
        sys.exit(f"flowchain-instrument: {command[0]}: not found")
    settings = {
        "FLOWCHAIN_SERVICE": options.service or os.environ.get("FLOWCHAIN_SERVICE") or service_name(command),
        "FLOWCHAIN_BOOTSTRAP_SERVERS": options.bootstrap_servers,
        "FLOWCHAIN_TENANT": options.tenant,
        "FLOWCHAIN_TOPIC_PREFIX": options.topic_prefix,
        "FLOWCHAIN_CHAINS": ",".join(options.chain),
        "FLOWCHAIN_BEGIN": "off" if options.no_begin else None,
        "FLOWCHAIN_CLIENT_STEPS": "on" if options.client_steps else None,
        "PYTHONPATH": os.pathsep.join([str(SITE), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    os.execve(program, command, {**os.environ, **{name: value for name, value in settings.items() if value}})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="flowchain-instrument", description=(__doc__ or "").split("\n")[0],
        epilog="Example: flowchain-instrument --service orders uvicorn app:app --port 8000",
    )  # fmt: skip
    parser.add_argument("--service", help="the component's name; else FLOWCHAIN_SERVICE, else what the command runs")
    parser.add_argument("--bootstrap-servers", metavar="HOST:PORT", help="Kafka; else FLOWCHAIN_BOOTSTRAP_SERVERS, else localhost:9092")
    parser.add_argument("--tenant", help="else FLOWCHAIN_TENANT, else default")
    parser.add_argument("--topic-prefix", help="of FlowChain's topics; else FLOWCHAIN_TOPIC_PREFIX")
    parser.add_argument("--chain", action="append", default=[], metavar='"POST /orders=order_to_cash"',
                        help="the chain that a request without a flow begins, instead of one named after its route; repeatable")  # fmt: skip
    parser.add_argument("--no-begin", action="store_true", help="a request without a flow begins no execution")
    parser.add_argument("--client-steps", action="store_true", help="a call to another service is a step of its own")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="the service's own command")
    return parser


def service_name(command: list[str]) -> str:
    """Return a service's name out of its command: `uvicorn shop.orders:app` is `orders`, `python run.py` is `run`.

    A module that is called as every service's is (`main:app`) tells less than its package, or the folder it runs in.
    """
    name = next(filter(None, (_module(word) for word in command[1:])), None) or _after_dash_m_or_a(command) or Path(command[0]).name
    parts = [part for part in name.split(".") if part not in _COMMON]
    return parts[-1] if parts else Path.cwd().name or name


def _module(word: str) -> str | None:
    """Return the module that a word names as `module:object` or as a script, None where it names none."""
    found = _APPLICATION.fullmatch(word)
    if found is not None:
        return found[1]
    return Path(word).stem if word.endswith(".py") else None


def _after_dash_m_or_a(command: list[str]) -> str | None:
    """Return what `python -m` runs, or the application that `faust -A` and `celery -A` are given."""
    flags = ("-A", "--app", "-m")
    return next((command[command.index(flag) + 1] for flag in flags if flag in command[:-1]), None)


if __name__ == "__main__":
    main()
