"""Requests to a model server by MLflow's scoring protocol, on the standard library alone."""

from __future__ import annotations

import http.client
import json
import re
import time
from dataclasses import dataclass
from typing import Any

from airflow_mlops.core.errors import CannotReachError, MlopsError, SpecError

Answer = tuple[int, bytes, float]


class ServerClient:
    """One connection to a server, or to the gateway in front of it.

    :param address: ``host:port``.
    :param prefix: ``/<server>`` at a gateway.
    :param timeout: seconds that an answer may take.
    """

    def __init__(self, address: str, prefix: str = "", timeout: float = 30.0) -> None:
        self.address, self.prefix, self.timeout = address, prefix, timeout
        host, _, port = address.rpartition(":")
        self._connection = http.client.HTTPConnection(host, int(port), timeout=timeout)

    def __enter__(self) -> ServerClient:
        return self

    def __exit__(self, *_: Any) -> None:
        self._connection.close()

    def call(self, path: str, body: bytes | None = None, kind: str = "application/json") -> Answer:
        """Send one request; return status, body and the seconds that it took.

        :raises CannotReachError: if nobody answers, or not in time.
        """
        began = time.perf_counter()
        try:
            headers = {"Content-Type": kind} if body is not None else {}
            self._connection.request("GET" if body is None else "POST", self.prefix + path, body, headers)
            answer = self._connection.getresponse()
            return answer.status, answer.read(), time.perf_counter() - began
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise CannotReachError(
                f"the model server at {self.address} does not answer {path} ({type(error).__name__}: {error})",
                address=self.address,
            ) from None

    def answers(self) -> bool:
        """Return whether it says that it can serve."""
        try:
            return self.call("/ping")[0] == 200
        except CannotReachError:
            return False

    def model(self) -> dict[str, Any]:
        """Return what it says that it serves: ``model``, ``version``, ``digest``, ``deployment``.

        :raises CannotReachError: if nobody answers.
        :raises SpecError: if what answers is no server of this provider.
        """
        status, body, _ = self.call("/model")
        if status in (502, 503, 504):
            raise CannotReachError(f"the gateway at {self.address} has no model server for {self.prefix or '/'} now")
        try:
            found = json.loads(body) if status == 200 else None
        except ValueError:
            found = None
        if not isinstance(found, dict) or "digest" not in found:
            raise SpecError(
                f"{self.address}{self.prefix}/model answers {status}: there is no such server, or it is none that this "
                "provider has deployed"
            )
        return found

    def invoke(self, body: bytes, kind: str = "application/json") -> tuple[Any, float]:
        """Return the predictions for a request's body, and the seconds that they took.

        :raises CannotReachError: if nobody answers.
        :raises SpecError: if the server refuses the request.
        """
        status, answer, seconds = self.call("/invocations", body, kind)
        if status != 200:
            try:
                said = json.loads(answer).get("message") or ""
            except (ValueError, AttributeError):
                said = ""
            raise SpecError(f"it answers {status}{f': {said[:200]}' if said else ''}", status=status)
        found = json.loads(answer)
        return (found["predictions"] if isinstance(found, dict) and "predictions" in found else found), seconds


@dataclass(frozen=True)
class Wanted:
    """A model that a server shall serve.

    :param facts: what of its ``/model`` must be so.
    """

    facts: dict[str, str]

    @classmethod
    def of(cls, model: Any) -> Wanted:
        """Read a deployment's report, a model's ref, a digest, ``name/3``, or a version's number.

        :raises SpecError: for anything else.
        """
        if isinstance(model, dict) and model.get("kind") == "deployment":
            model = model.get("model")
        if isinstance(model, dict):
            if model.get("digest"):
                return cls({"digest": str(model["digest"])})
            if model.get("name") and model.get("version"):
                return cls({"model": str(model["name"]), "version": str(model["version"])})
        text = str(model).removeprefix("models:/")
        if re.fullmatch(r"sha256:[0-9a-f]{64}", text):
            return cls({"digest": text})
        if text.isdigit():
            return cls({"version": text})
        name, _, version = text.rpartition("/")
        if name and version.isdigit():
            return cls({"model": name, "version": version})
        raise SpecError(
            f"the model to wait for must be a ref with a digest or with name and version, a digest, 'name/3' or a "
            f"version's number, got {model!r}"
        )

    def served(self, address: str, server: str, answers: int) -> tuple[dict[str, Any] | None, str]:
        """Return what serves if so many answers in a row are the model's, else None; and what to say of it."""
        found: dict[str, Any] = {}
        try:
            for _ in range(answers):
                # A new connection each, as another client would have.
                with ServerClient(address, f"/{server}", timeout=10) as client:
                    found = client.model()
                if any(str(found.get(key)) != value for key, value in self.facts.items()):
                    return None, f"it serves {_named(found)}, not yet {self.facts}"
        except MlopsError as error:
            return None, error.message
        return found, f"it serves {_named(found)}"


def _named(found: dict[str, Any]) -> str:
    version = f"/{found['version']}" if found.get("version") else ""
    return f"{found.get('model')}{version} (deployment {found.get('deployment')})"
