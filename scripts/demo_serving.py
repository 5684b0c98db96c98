"""Where the demo serves its models: in containers of a Docker Engine, where one runs and has an image for them; else by
processes of this machine. It says which, and why, and never waits for an engine.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import sys
import tarfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from airflow_home import ROOT, Airflow, stop_group

SERVER, CONNECTION = "flights", "demo_servers"
#: Images that may be there: that of `make stack-up`, and the demo's own.
STACK_IMAGE, OWN_IMAGE = "airflow-mlops:latest", "airflow-mlops-demo:latest"
#: What a model of the demo needs; the first ones must be the very versions that it was trained with.
SAME, NEEDED = ("scikit-learn", "skops", "mlflow"), ("pandas", "pyarrow")
SOCKET = "unix:///var/run/docker.sock"
#: Seconds that an engine may take to answer, and a container to say what its image has.
ANSWER, PROBE = 5, 60


class Serving:
    """The model servers of the demo.

    :param airflow: whose environment is told where they are, before it starts.
    """

    def __init__(self, airflow: Airflow) -> None:
        self.airflow, self.url = airflow, os.environ.get("DOCKER_HOST") or SOCKET
        self.kept = airflow.home / "serving.json"
        self.image, self.why = "", "nobody has looked for a Docker Engine yet"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        if self.possible:
            airflow.environment.update(MLOPS_SERVER=SERVER, AIRFLOW__MLOPS__SERVER_CONN_ID=CONNECTION)

    @property
    def possible(self) -> bool:
        """Whether models can be served at all: the gateway is HAProxy."""
        return shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin") is not None

    def look(self) -> None:
        """Begin to look for an engine and an image, and to make one if the engine has what it is made of."""
        if self.possible:
            self._thread.start()

    def decide(self) -> None:
        """Take what is there by now, say so, and have Airflow's tasks go there."""
        if not self.possible:
            print("\nModels are released, and not deployed: there is no HAProxy here (apt-get install haproxy).")
            return
        self._thread.join(2)
        if self._thread.is_alive():
            self._stop.set()
            self.image, self.why = "", f"the Docker Engine at {self.url} was not ready: {self.why}"
        self.kept.write_text(json.dumps({"image": self.image, "why": self.why}))
        how = f"in containers ({self.why})" if self.image else f"by processes of this machine: {self.why}"
        print(f"\nModels are served {how}.", flush=True)
        extra: dict[str, Any] = {"backend": "processes"}
        connection: dict[str, Any] = {"connection_id": CONNECTION, "conn_type": "model_server"}
        if self.image:
            connection |= {"host": "127.0.0.1", "port": self.airflow.ports["models"]}
            extra = {"backend": "docker", "gateway_folder": str(self.gateway), "image": self.image}
        self.airflow.api("POST", "/connections", {**connection, "extra": json.dumps(extra)})

    def recall(self) -> None:
        """Take what the demo decided."""
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(self.kept.read_text())
            self.image, self.why = found["image"], found["why"]

    @property
    def gateway(self) -> Path:
        """The folder of the gateway in front of containers."""
        return self.airflow.home / "gateway"

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Have models answer for as long as this lasts; in the end nothing of them runs."""
        if not self.possible:
            yield
        elif self.image:
            with self._containers():
                yield
        else:
            with self._processes():
                yield

    @contextlib.contextmanager
    def _processes(self) -> Iterator[None]:
        process = self.airflow.spawn("mlops", "serve", "--port", str(self.airflow.ports["models"]), log="serve.log")
        try:
            yield
        finally:
            stop_group(process)

    @contextlib.contextmanager
    def _containers(self) -> Iterator[None]:
        from airflow_mlops.core.serving.gateway import Gateway, Settings
        from airflow_mlops.core.serving.processes import GatewayProcess

        settings = Settings(bind=f"127.0.0.1:{self.airflow.ports['models']}")
        gateway = GatewayProcess(Gateway(self.gateway, settings), lambda text: print(f"    {text}", flush=True))
        gateway.ensure()
        try:
            self._each("start")
            yield
        finally:
            gateway.close()
            self._each("stop")

    def forget(self) -> None:
        """Remove the containers of an earlier demo, if an engine has some."""
        with contextlib.suppress(Exception):
            self._each("remove_container", force=True, v=True)

    def _each(self, action: str, **options: Any) -> None:
        from airflow_mlops.core.serving.containers import OWNER, owner_of
        from airflow_mlops.core.store import LocalStore

        client = self._client(timeout=60)
        store = LocalStore(self.airflow.home / "mlops" / "store")
        try:
            for one in client.containers(all=True, filters={"label": f"{OWNER}={owner_of(store)}"}):
                getattr(client, action)(one["Id"], **options)
        finally:
            client.close()

    def served(self) -> str:
        """Return the version whose answers the server gives, or a dash."""
        try:
            with urllib.request.urlopen(f"{self.address}/model", timeout=30) as answer:
                return str(json.loads(answer.read()).get("version") or "–")
        except (OSError, ValueError):
            return "–"

    @property
    def address(self) -> str:
        """Where clients reach the model."""
        return f"http://127.0.0.1:{self.airflow.ports['models']}/{SERVER}"

    def told(self, seconds: float = 240) -> str:
        """Wait until the champion answers, and say where; or how to have it served."""
        if not self.possible:
            return "not served: there is no HAProxy here (apt-get install haproxy); then run make demo again"
        if not self.kept.exists():
            return "not served: nothing is deployed yet; run make demo first"
        end = time.monotonic() + seconds
        while (version := self.served()) == "–" and time.monotonic() < end:
            time.sleep(0.5)
        if version == "–":
            return "not served: trigger the DAG mlops_level_2_serve, which deploys the champion"
        return f"{self.address}/invocations  flights_late version {version}, {self.how}"

    @property
    def how(self) -> str:
        """By what models are served."""
        return f"in a container of {self.image}" if self.image else "by a process"

    def _client(self, timeout: float) -> Any:
        import docker

        return docker.APIClient(base_url=self.url, version="auto", timeout=timeout)

    def _look(self) -> None:
        """Find an image, or the reason for having none."""
        self.why = "it does not answer"
        try:
            client = self._client(ANSWER)
        except Exception:
            self.why = f"no Docker Engine answers at {self.url}"
            return
        try:
            if not self.url.startswith("unix://"):
                self.why = f"the Docker Engine at {self.url} is another machine's"
                return
            found, self.why = self._image(client)
            self.image = "" if self._stop.is_set() else found
        except Exception as error:
            text = " ".join(str(error).split())[:200]
            self.why = f"the Docker Engine at {self.url} fails: {text or type(error).__name__}"
        finally:
            client.close()

    def _image(self, client: Any) -> tuple[str, str]:
        wanted = os.environ.get("MLOPS_DEMO_IMAGE")
        said = []
        for name in (wanted,) if wanted else (STACK_IMAGE, OWN_IMAGE):
            if not client.images(name=name, quiet=True):
                said.append(f"it has no image {name}")
                continue
            self.why = f"its image {name} is being looked at"
            lacks = self._lacks(client, name)
            if not lacks:
                return name, f"the Docker Engine at {self.url} runs, and has the image {name}"
            said.append(f"its image {name} {lacks}")
        where = f"the Docker Engine at {self.url} runs, but"
        if wanted:
            return "", f"{where} {said[0]}"
        base = os.environ.get("PYTHON_IMAGE") or f"python:{sys.version_info[0]}.{sys.version_info[1]}-slim-bookworm"
        if not client.images(name=base, quiet=True):
            return "", f"{where} {', '.join(said)}, nor {base} to make one from (docker pull {base})"
        self.why = f"the image {OWN_IMAGE} is being made from {base}"
        failed = self._build(client, base) or self._lacks(client, OWN_IMAGE)
        if failed:
            return "", f"{where} {OWN_IMAGE} cannot be made from {base}: {failed}"
        return OWN_IMAGE, f"the Docker Engine at {self.url} runs, and made the image {OWN_IMAGE} from {base}"

    def _lacks(self, client: Any, image: str) -> str:
        """Return what an image does not have for models of this environment; empty if it has all."""
        code = f"import importlib.metadata as m; print(*(m.version(n) for n in {SAME + NEEDED!r}))"
        host = client.create_host_config(network_mode="none")
        made = client.create_container(image, entrypoint=["python3", "-c", code], host_config=host)["Id"]
        try:
            client.start(made)
            status = client.wait(made, timeout=PROBE)["StatusCode"]
            lines = client.logs(made).decode("utf-8", "replace").strip().splitlines() or [""]
        finally:
            client.remove_container(made, force=True, v=True)
        if status:
            return f"cannot serve models ({lines[-1][:120]})"
        for name, version in zip(SAME, lines[-1].split(), strict=False):
            if version != metadata.version(name):
                return f"has {name} {version}, and models here are made with {metadata.version(name)}"
        return ""

    def _build(self, client: Any, base: str) -> str:
        """Make the demo's own image; return why that failed, or an empty text."""
        names = " ".join(SAME + NEEDED)
        dockerfile = f"FROM {base}\nCOPY constraints.txt /\nRUN python3 -m pip install -c /constraints.txt {names}\n"
        context = io.BytesIO()
        with tarfile.open(fileobj=context, mode="w") as archive:
            for name, data in (
                ("Dockerfile", dockerfile.encode()),
                ("constraints.txt", (ROOT / "constraints.txt").read_bytes()),
            ):
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
        context.seek(0)
        patient = self._client(timeout=3600)
        try:
            for line in patient.build(
                fileobj=context, custom_context=True, tag=OWN_IMAGE, rm=True, forcerm=True, decode=True
            ):
                if self._stop.is_set():
                    return "there was no time left"  # to hang up ends the build
                if "error" in line:
                    return " ".join(str(line["error"]).split())[:200]
        finally:
            patient.close()
        return ""
