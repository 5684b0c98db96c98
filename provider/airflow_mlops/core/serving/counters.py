"""What the gateway and the servers behind it have counted since they began, read where only their owner can.

The gateway tells through the unix socket in its folder, of which nothing is on a network; where the servers are it has
on record beside it, and they are asked directly, since the gateway passes no request for ``/metrics`` on.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from airflow_mlops.core.errors import CannotReachError, SpecError, did_you_mean
from airflow_mlops.core.serving import admin, exposition
from airflow_mlops.core.serving.client import ServerClient
from airflow_mlops.core.serving.gateway import Gateway, backend_of
from airflow_mlops.core.serving.places import Place, alive
from airflow_mlops.core.store import Store


def of_server(store: Store, server: str, place: Place) -> dict[str, Any]:
    """Return ``{"sources": [...], "missing": [{"name", "why"}]}`` of one server: its gateway, and what runs behind it.

    A source is what :func:`.exposition.counted` gives, with ``name`` and ``role`` (``gateway`` or ``server``).

    :raises CannotReachError: if the gateway does not answer.
    :raises SpecError: if it knows no such server.
    """
    told = place.gateway or str(alive(store).get("gateway") or "")
    folder = Path(told)
    if not told or not folder.is_dir():
        raise CannotReachError(
            "the gateway's folder is not here: the task must run on the machine of `airflow mlops serve` (restart one "
            "of an earlier version), or the connection's gateway_folder must be as workers see it"
        )
    slots = Gateway(folder).slots()
    if server not in slots:
        raise SpecError(f"the gateway knows no server {server!r}{did_you_mean(server, slots)}")
    requests, errors, started = admin.totals(folder, backend_of(server))
    gateway = {"requests": requests, "errors": errors, "started": started, "seconds": None, "buckets": None}
    sources: list[dict[str, Any]] = [{"name": "gateway", "role": "gateway", **gateway}]
    missing = []
    for slot in slots[server].values():
        if slot.address:
            try:
                sources.append(_of_address(slot.address))
            except CannotReachError as error:
                missing.append({"name": slot.address, "why": error.message})
    return {"sources": sources, "missing": missing, "at": time.time()}


def of_texts(texts: dict[str, str], series: exposition.Series | None) -> list[dict[str, Any]]:
    """Return the sources of servers that somebody else started.

    :param texts: what each has exposed, by a name for it.
    :raises SpecError: if the series are not there.
    """
    return [{"name": name, "role": "server", **exposition.counted(text, series)} for name, text in texts.items()]


def _of_address(address: str) -> dict[str, Any]:
    with ServerClient(address, timeout=5) as client:
        status, body, _ = client.call("/metrics")
    if status != 200:
        raise CannotReachError(f"the model server at {address} answers {status} to /metrics", address=address)
    found = exposition.counted(body.decode("utf-8", "replace"))
    return {"name": f"deployment {found['deployment']}", "role": "server", **found}
