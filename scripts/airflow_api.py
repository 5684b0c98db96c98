"""Airflow's REST API, as scripts and tests call it."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any


class Api:
    """The REST API of one Airflow.

    :param url: its address.
    :param log: where the output of Airflow's own processes goes, for messages.
    """

    def __init__(self, url: str, log: Path | str) -> None:
        self.url = url
        self.log = log
        self.token = ""

    def log_in(self, user: str, password: str) -> None:
        """Take a token, which all later calls bring along."""
        self.token = self._request("POST", "/auth/token", {"username": user, "password": password})["access_token"]

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """Call the REST API below ``/api/v2`` and return its JSON; what only reads is asked for again after a 500.

        On SQLite a reader now and then meets a database that is locked.
        """
        for wait in (1, 2, 4) if method == "GET" else ():
            try:
                return self._request(method, f"/api/v2{path}", body)
            except urllib.error.HTTPError as error:
                if error.code != 500:
                    raise
                time.sleep(wait)
        return self._request(method, f"/api/v2{path}", body)

    def _request(self, method: str, path: str, body: Any) -> Any:
        request = urllib.request.Request(f"{self.url}{path}", method=method)
        request.add_header("Content-Type", "application/json")
        if self.token:
            request.add_header("Authorization", f"Bearer {self.token}")
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(request, data=data, timeout=120) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def wait_for_dag(self, dag_id: str, timeout: float = 90) -> None:
        """Wait until a DAG has been parsed, then unpause it, and have it parsed again.

        Airflow starts the watchers of a DAG's assets when it parses a file whose DAG is not paused.

        :raises RuntimeError: with the import error, if its file has one.
        """
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            errors = self.api("GET", "/importErrors")["import_errors"]
            if errors:
                raise RuntimeError(f"{errors[0]['filename']} does not import:\n{errors[0]['stack_trace']}")
            try:
                token = self.api("PATCH", f"/dags/{dag_id}", {"is_paused": False})["file_token"]
                break
            except urllib.error.HTTPError as error:
                if error.code != 404:
                    raise
                time.sleep(0.5)
        else:
            raise RuntimeError(f"the DAG {dag_id} did not appear within {timeout:.0f} s; see {self.log}")
        try:
            self.api("PUT", f"/parseDagFile/{token}")
        except urllib.error.HTTPError as error:
            if error.code != 409:  # somebody has asked for that already
                raise
