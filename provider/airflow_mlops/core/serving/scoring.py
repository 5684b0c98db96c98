"""MLflow's scoring server, with a short way for what nearly all requests are.

MLflow's application answers everything. Requests to ``/invocations`` are given to the same function of it that its own
route calls, without the middleware and the routing before it, which cost as much as a small model's prediction.
"""

from __future__ import annotations

import asyncio
from typing import Any

from airflow_mlops.core.serving.measure import App


def application(model: Any) -> App:
    """Return the ASGI application that serves a model by MLflow's scoring protocol.

    :param model: what :func:`mlflow.pyfunc.load_model` gave, or what behaves as that.
    """
    from mlflow.environment_variables import MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT
    from mlflow.exceptions import MlflowException
    from mlflow.pyfunc import scoring_server

    whole: App = scoring_server.init(model)
    schema = model.metadata.get_input_schema()
    timeout = float(MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT.get())

    async def answer(body: bytes, kind: str | None) -> tuple[int, bytes, str]:
        called = asyncio.to_thread(scoring_server.invocations, body, kind, model, schema)
        try:
            found = await asyncio.wait_for(called, timeout)
        except (asyncio.TimeoutError, TimeoutError):
            return 504, b"Request processing time exceeded limit", "application/json"
        except MlflowException as error:
            return error.get_http_status_code(), error.serialize_as_json().encode(), "application/json"
        return found.status, found.response.encode(), found.mimetype

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] != "/invocations" or scope["method"] != "POST":
            await whole(scope, receive, send)
            return
        body = await _body(receive)
        if body is None:
            return
        kind = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"content-type"), None)
        status, text, mimetype = await answer(body, kind)
        if mimetype.startswith("text/"):
            mimetype += "; charset=utf-8"
        headers = [(b"content-length", str(len(text)).encode()), (b"content-type", mimetype.encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": text})

    return serve


async def _body(receive: Any) -> bytes | None:
    """Return a request's body; None if the client has gone."""
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)
