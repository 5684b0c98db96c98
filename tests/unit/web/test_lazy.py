"""The application is made on the first request, once."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from typing import Any

import pytest

from airflow_mlops.web.lazy import LazyApp

MADE: list[int] = []


def make() -> Any:
    MADE.append(1)
    time.sleep(0.05)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(scope)

    return app


def test_it_is_made_once_by_any_number_of_threads_and_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lazy_of_this_test", sys.modules[__name__])
    MADE.clear()
    lazy = LazyApp("lazy_of_this_test:make")
    assert MADE == []
    threads = [threading.Thread(target=lazy.app) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert MADE == [1]
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(lazy({"type": "http"}, None, send))
    assert sent == [{"type": "http"}]


def test_every_process_loads_the_plugin_and_none_pays_for_the_web_framework() -> None:
    code = (
        "import sys\nfrom airflow.plugins_manager import AirflowPlugin\nbefore = set(sys.modules)\n"
        "from airflow_mlops.plugin import MlopsPlugin\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "app = MlopsPlugin.fastapi_apps[0]\n"
        "assert app['url_prefix'] == '/mlops', app\n"
        "assert not new & {'fastapi', 'starlette', 'uvicorn', 'sqlalchemy', 'pandas', 'mlflow', 'jinja2'}, new\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
