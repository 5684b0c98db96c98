"""An ASGI application that is made when it is first asked for."""

from __future__ import annotations

import importlib
import threading
from typing import Any


class LazyApp:
    """Stand for an ASGI application until the first request, without importing its framework.

    :param factory: ``module:function`` that makes the application.
    """

    def __init__(self, factory: str) -> None:
        self.factory = factory
        self._app: Any = None
        self._lock = threading.Lock()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one request."""
        await self.app()(scope, receive, send)

    def app(self) -> Any:
        """Return the application; made once, whatever the number of threads."""
        with self._lock:
            if self._app is None:
                module, _, function = self.factory.partition(":")
                self._app = getattr(importlib.import_module(module), function)()
            return self._app
