"""Wraps libraries when the host imports them, at once where it has done so already."""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from flowchain.integrations.guarding import attempt

WRAPPERS = {
    "aiohttp.client": "aiohttp.wrap_aiohttp",
    "aiokafka": "aiokafka.wrap_aiokafka",
    "confluent_kafka": "confluent.wrap_confluent",
    "confluent_kafka.aio": "confluent.wrap_confluent_aio",
    "django.core.handlers.asgi": "asgi.wrap_django",
    "django.core.handlers.wsgi": "wsgi.wrap_django",
    "faust.agents.agent": "faust.wrap_agents",
    "faust.app.base": "faust.wrap_app",
    "faust.streams": "faust.wrap_streams",
    "fastapi.applications": "asgi.wrap_starlette",
    "flask.app": "wsgi.wrap_flask",
    "grpc": "grpc.wrap_grpc",
    "httpx": "httpx.wrap_httpx",
    "kafka": "kafka_python.wrap_kafka_python",
    "requests.sessions": "requests.wrap_requests",
    "starlette.applications": "asgi.wrap_starlette",
}
"""Module of the host -> the function of an integration that wraps it."""


class Finder(MetaPathFinder):
    """Finds nothing by itself: it has the module that others find wrapped after it has run."""

    def __init__(self) -> None:
        self._busy: set[str] = set()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in WRAPPERS or fullname in self._busy:
            return None
        self._busy.add(fullname)
        try:
            spec = _found_by_others(self, fullname, path, target)
        finally:
            self._busy.discard(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Wrapping(spec.loader)
        return spec


def _found_by_others(finder: Finder, fullname: str, path: Sequence[str] | None, target: ModuleType | None) -> ModuleSpec | None:
    for other in sys.meta_path:
        find = getattr(other, "find_spec", None)
        if other is not finder and find is not None:
            spec: ModuleSpec | None = find(fullname, path, target)
            if spec is not None:
                return spec
    return None


class _Wrapping(Loader):
    """Loads as the loader it stands for, then wraps."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = module.__loader__ = self._loader  # as if we had never been here
        self._loader.exec_module(module)
        attempt(_wrap, module)


def _wrap(module: ModuleType) -> None:
    where, function = WRAPPERS[module.__name__].rsplit(".", 1)
    getattr(import_module(f"flowchain.integrations.{where}"), function)(module)


def install() -> None:
    """Wrap what is imported, and what will be."""
    if not any(isinstance(finder, Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, Finder())
    for name in WRAPPERS:
        if name in sys.modules:
            attempt(_wrap, sys.modules[name])
