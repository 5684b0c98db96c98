"""In the fresh process: the model behind MLflow's scoring server, on a loopback port, and what it answers.

``/ping`` and ``/invocations`` are asked over HTTP as a client would. The input contract is that of the signature as
MLflow enforces it for JSON: a required column that is missing, and text where a number or an instant belongs, must be
refused (status 4xx); a column that the signature does not know is ignored. Text and booleans are taken from any value.
"""

from __future__ import annotations

import copy
import http.client
import itertools
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any

START_SECONDS = 60.0
ANSWER_SECONDS = 60.0
#: Clients that ask at once when requests a second are counted.
CLIENTS = 4
WRONG = "not a value of this type"
#: Types of a signature that MLflow refuses text for.
STRICT = ("integer", "long", "float", "double", "datetime")


class ScoringServer:
    """MLflow's scoring server for a loaded model, in a thread of this process."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def __enter__(self) -> ScoringServer:
        import uvicorn
        from mlflow.pyfunc import scoring_server

        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        config = uvicorn.Config(scoring_server.init(self._model), log_level="warning", access_log=False)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True)
        self._thread.start()
        end = time.monotonic() + START_SECONDS
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > end:
                raise TimeoutError(f"MLflow's scoring server did not start within {START_SECONDS:g} seconds")
            time.sleep(0.01)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._thread.join(START_SECONDS)
        self._socket.close()


class Client:
    """One connection to the server, kept open."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def ping(self) -> int:
        """Return the status of ``/ping``."""
        self._connection.request("GET", "/ping")
        answer = self._connection.getresponse()
        answer.read()
        return answer.status

    def invoke(self, body: bytes) -> tuple[int, Any]:
        """Return the status of ``/invocations``, and its predictions."""
        self._connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
        answer = self._connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            return answer.status, None
        said = json.loads(content)
        return answer.status, said.get("predictions", said) if isinstance(said, dict) else said


def body_of(example: Any) -> dict[str, Any]:
    """Return the request for an input, as MLflow writes it."""
    from mlflow.models.utils import convert_input_example_to_serving_input

    written: dict[str, Any] = json.loads(convert_input_example_to_serving_input(example))
    return written


def serve(client: Client, body: dict[str, Any]) -> dict[str, Any]:
    """Return ``ping``, ``invocations`` (the statuses) and ``predictions`` (how many, None if it is no list)."""
    ping = client.ping()
    status, predictions = client.invoke(_encoded(body))
    return {
        "ping": ping,
        "invocations": status,
        "predictions": len(predictions) if isinstance(predictions, list) else None,
    }


def contract(client: Client, body: dict[str, Any], schema: Any) -> dict[str, Any]:
    """Return what the server makes of inputs that are not those of the signature.

    :return: ``checked`` (how many inputs were sent) and ``broken``: ``[{"column", "what", "status"}]``, or ``reason``
        why nothing could be sent.
    """
    split = body.get("dataframe_split")
    if schema is None or not schema.has_input_names():
        return {"reason": "the model has no signature that names its columns, so nothing says what to refuse"}
    if not split:
        return {"reason": "the model takes no table"}
    given = [str(name) for name in split["columns"]]
    checked = 0
    broken: list[dict[str, Any]] = []
    status, usual = client.invoke(_encoded(body))
    for name in schema.required_input_names():
        if name in given:
            checked += 1
            _must_refuse(client, _without(split, name), broken, name, "missing")
    for one in schema.inputs:
        if one.name in given and getattr(one.type, "name", "") in STRICT:
            checked += 1
            what = f"text for {one.type.name}"
            _must_refuse(client, _with(split, one.name, WRONG), broken, one.name, what)
    more = "not_in_the_signature"
    checked += 1
    found, answer = client.invoke(_encoded({"dataframe_split": _with(split, more, 1)}))
    if found != status or answer != usual:
        broken.append({"column": None, "what": "one column more changes the answer", "status": found})
    return {"checked": checked, "broken": broken}


def _must_refuse(client: Client, split: dict[str, Any], broken: list[dict[str, Any]], name: str, what: str) -> None:
    status, _ = client.invoke(_encoded({"dataframe_split": split}))
    if not 400 <= status < 500:
        broken.append({"column": name, "what": what, "status": status})


def latency(client: Client, body: dict[str, Any], calls: int, seconds: float, warm_up: int) -> list[float]:
    """Return the milliseconds of requests of one row each, one after another."""
    rows = itertools.cycle(single_rows(body))
    for _ in range(warm_up):
        _answered(client, next(rows))
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while len(taken) < calls and (len(taken) < warm_up or time.perf_counter() < end):
        row = next(rows)
        began = time.perf_counter()
        _answered(client, row)
        taken.append((time.perf_counter() - began) * 1000)
    return taken


def requests_per_second(port: int, body: dict[str, Any], calls: int, seconds: float) -> float:
    """Return how many requests of one row each are answered in a second, with :data:`CLIENTS` asking at once."""
    rows = single_rows(body)
    began = time.perf_counter()

    def ask(_: int) -> int:
        with Client(port) as client:
            count = 0
            for row in itertools.islice(itertools.cycle(rows), calls // CLIENTS):
                _answered(client, row)
                count += 1
                if time.perf_counter() - began > seconds:
                    break
            return count

    with ThreadPoolExecutor(CLIENTS) as pool:
        answered = sum(pool.map(ask, range(CLIENTS)))
    return answered / (time.perf_counter() - began)


def single_rows(body: dict[str, Any]) -> list[bytes]:
    """Return the requests for each row of a table alone; of another input the request itself."""
    split = body.get("dataframe_split")
    if not split or not split.get("data"):
        return [_encoded(body)]
    return [_encoded({"dataframe_split": {"columns": split["columns"], "data": [row]}}) for row in split["data"]]


def _answered(client: Client, body: bytes) -> None:
    status, _ = client.invoke(body)
    if status != 200:
        raise ValueError(f"the scoring server answers a single row with status {status}")


def _encoded(body: dict[str, Any]) -> bytes:
    return json.dumps(body).encode()


def _without(split: dict[str, Any], name: str) -> dict[str, Any]:
    place = split["columns"].index(name)
    return {
        "columns": [one for one in split["columns"] if one != name],
        "data": [[*row[:place], *row[place + 1 :]] for row in split["data"]],
    }


def _with(split: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(split)
    changed.pop("index", None)
    if name not in changed["columns"]:
        changed["columns"].append(name)
        changed["data"] = [[*row, value] for row in changed["data"]]
        return changed
    place = changed["columns"].index(name)
    for row in changed["data"]:
        row[place] = value
    return changed
