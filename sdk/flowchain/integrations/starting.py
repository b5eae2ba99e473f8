"""Begins to report as FLOWCHAIN_* say: what `flowchain-instrument` has every Python process of a service do first."""

import os

import flowchain
from flowchain.integrations import hooks, options


def start() -> None:
    """Have libraries wrapped, and report as FLOWCHAIN_SERVICE."""
    options.current = options.from_environment()
    flowchain.init(
        os.environ.get("FLOWCHAIN_SERVICE") or "unknown",
        os.environ.get("FLOWCHAIN_BOOTSTRAP_SERVERS") or "localhost:9092",
        os.environ.get("FLOWCHAIN_TENANT") or "default",
        topic_prefix=os.environ.get("FLOWCHAIN_TOPIC_PREFIX", ""),
    )
    hooks.install()
