"""`flowchain-instrument <command>`: runs a Python service so that it reports to FlowChain, without a change in it.

The command, and every Python process that it starts, finds a `sitecustomize` of ours first on its path. That one runs the
host's own, if it has one, and has each library wrapped when the host imports it.
"""

import argparse
import os
import shutil
import sys
from pathlib import Path

SITE = Path(__file__).parent / "site"
_SERVERS = frozenset(("python", "python3", "uvicorn", "gunicorn", "hypercorn", "daphne", "faust", "celery", "flask", "fastapi"))
_VERBS = frozenset(("run", "dev", "worker"))


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
    """Return a service's name out of its command: `uvicorn shop.orders:app` is `orders`, `python run.py` is `run`."""
    names = [_bare(word) for word in command if not word.startswith("-")]
    telling = [name for name in names if name not in _SERVERS and name not in _VERBS]
    return (telling or names)[0]


def _bare(word: str) -> str:
    module = Path(word).name.partition(":")[0].removesuffix(".py")
    return module.rpartition(".")[2] or module


if __name__ == "__main__":
    main()
