"""Begins to report as FLOWCHAIN_* say: what `flowchain-instrument` has every Python process of a service do first."""

import flowchain
from flowchain.integrations import hooks, options


def start() -> None:
    """Have libraries wrapped, and report as FLOWCHAIN_SERVICE."""
    options.current = options.from_environment()
    flowchain.init()
    hooks.install()
