"""The application in the API server: ``GET /mlops/reports/{dag_id}/{path}``.

Only who may read a DAG may read its reports. A report is a document without scripts; the headers hold it to that,
whatever somebody may have written into the store.
"""

# No `from __future__ import annotations`: FastAPI resolves the annotations, and they are local to the factory.

import logging
from collections.abc import Iterator
from typing import IO, Any
from urllib.parse import quote, urlencode

from airflow.api_fastapi.app import API_ROOT_PATH
from airflow.api_fastapi.core_api.security import requires_access_dag
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse, StreamingResponse
from starlette.exceptions import HTTPException as AnyHTTPException

from airflow_mlops.core.errors import MlopsError, NotFoundError
from airflow_mlops.core.store import Store
from airflow_mlops.hooks.store import StoreHook
from airflow_mlops.web.reports import DOWNLOAD, content_type, open_report

log = logging.getLogger(__name__)

BLOCK = 1 << 20
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'; base-uri 'none'; "
    "form-action 'none'; sandbox"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "private, no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def create_app() -> FastAPI:
    """Return the application that the plugin mounts."""
    app = FastAPI(title="MLOps", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_exception_handler(AnyHTTPException, _refusal)
    app.add_api_route(
        "/reports/{dag_id}/{path:path}",
        report_file,
        methods=["GET", "HEAD"],
        dependencies=[Depends(requires_access_dag(method="GET"))],
        response_class=StreamingResponse,
    )
    return app


def report_file(request: Request, dag_id: str, path: str, store: str | None = None) -> Response:
    """Serve one file of a DAG's reports.

    :param store: the connection of the store, where the task was given one.
    :raises HTTPException: 404 if there is no such file; 503 if the API server has no store to read from.
    """
    try:
        file = open_report(_store(store), dag_id, path)
    except NotFoundError as error:
        raise HTTPException(404, "There is no such report") from error
    except Exception as error:
        log.warning("the store cannot be read: %s", error)
        if store:  # who may only read reports does not learn which connections exist
            raise HTTPException(404, "There is no such report") from error
        if isinstance(error, (MlopsError, LookupError)) or type(error).__name__ == "AirflowNotFoundException":
            raise HTTPException(503, f"The API server cannot open the store: {error}") from error
        raise HTTPException(503, "The API server cannot open the store; its log says why") from error
    kind = content_type(path)
    headers = {**HEADERS, "Content-Length": str(_size(file))}
    if kind == DOWNLOAD:
        headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{quote(path.rpartition('/')[2], safe='')}"
    if request.method == "HEAD":
        file.close()
        return Response(media_type=kind, headers=headers)
    # Set here: a response class would add a charset to text types of its own.
    return StreamingResponse(_blocks(file), headers={**headers, "Content-Type": kind})


def _store(conn_id: str | None) -> Store:
    return StoreHook(conn_id or None).get_conn()


def _size(file: IO[bytes]) -> int:
    size = file.seek(0, 2)
    file.seek(0)
    return size


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while block := file.read(BLOCK):
            yield block


async def _refusal(request: Request, error: Any) -> Response:
    """Answer with the error; send a browser that has no session to the login page, and from there back."""
    if error.status_code == 401 and "text/html" in request.headers.get("accept", ""):
        login = f"{API_ROOT_PATH}api/v2/auth/login?{urlencode({'next': str(request.url)})}"
        return RedirectResponse(login, status_code=302, headers={"Cache-Control": "no-store"})
    return JSONResponse(
        {"detail": error.detail}, status_code=error.status_code, headers={**HEADERS, **(error.headers or {})}
    )
