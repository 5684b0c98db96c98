"""A step in a container of a real engine: what it may use, what it says, what is left of it."""

from __future__ import annotations

import dataclasses
import json
import logging
import threading
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.core.errors import (
    CannotReachError,
    CrashedError,
    CredentialsError,
    MissingExtraError,
    MlopsError,
    NotFoundError,
    SpecError,
    StoppedError,
    UnsupportedError,
)
from airflow_mlops.runtimes.docker import DockerRuntime
from airflow_mlops.runtimes.docker_engine import ContainerLostError, OutOfMemoryError
from servers.docker import Engine
from servers.docker_steps import job as job
from servers.docker_steps import on_engine as on_engine
from servers.docker_steps import ours as ours
from servers.docker_steps import wait_for
from servers.registry import Registry
from servers.registry import registry as registry
from servers.s3 import SECRET, S3Server

log = logging.getLogger("tests.docker")

pytestmark = pytest.mark.usefixtures("on_engine")


class TestRun:
    def test_the_result_is_that_of_the_step_and_nothing_is_left(
        self, job: Any, ml_image: str, ours: Any, tmp_path: Path, caplog: Any
    ) -> None:
        with caplog.at_level(logging.INFO):
            found = DockerRuntime({"image": ml_image}).run(job(), log)
        assert found["kind"] == "dataset"
        assert found["rows"] == 3
        assert Path(found["uri"].removeprefix("file://")).is_file()
        assert ours() == []
        assert f"of the image {ml_image} runs on the Docker Engine at" in caplog.text

    def test_what_is_written_belongs_to_the_workers_user(self, job: Any, ml_image: str, tmp_path: Path) -> None:
        DockerRuntime({"image": ml_image}).run(job(), log)
        written = [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
        assert {path.stat().st_uid for path in written} == {tmp_path.stat().st_uid}

    def test_limits_and_labels_are_the_containers(
        self, job: Any, ml_image: str, docker_engine: Engine, ours: Any, tmp_path: Path
    ) -> None:
        settings = {
            "image": ml_image,
            "memory": "300m",
            "cpus": 0.5,
            "shm_size": "80m",
            "network": "none",
            "environment": {"PLAIN": "shown"},
            "mounts": [f"{tmp_path}/rows.csv:/data/rows.csv:ro"],
            "user": "1234:1234",
        }
        runtime = DockerRuntime(settings)
        (tmp_path / "store").mkdir(mode=0o777)
        (tmp_path / "store").chmod(0o777)
        stopped: list[MlopsError] = []

        def run() -> None:
            try:
                runtime.run(job("time.sleep(60)"), log)
            except StoppedError as error:
                stopped.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            found = wait_for(lambda: [one for one in ours() if one["State"] == "running"])[0]
            client = docker_engine.client
            seen = client.inspect_container(found["Id"])
            client.close()
        finally:
            runtime.cancel()
            thread.join()
        assert "the task was cancelled" in stopped[0].message
        host = seen["HostConfig"]
        assert (host["Memory"], host["MemorySwap"], host["NanoCpus"]) == (300 << 20, 300 << 20, 500_000_000)
        assert (host["ShmSize"], host["NetworkMode"]) == (80 << 20, "none")
        assert seen["Config"]["User"] == "1234:1234"
        assert "PLAIN=shown" in seen["Config"]["Env"]
        mounts = {one["Destination"]: one["RW"] for one in seen["Mounts"]}
        assert mounts == {
            "/data/rows.csv": False,
            str(tmp_path / "rows.csv"): False,
            str(tmp_path / "store"): True,
        }
        labels = found["Labels"]
        assert (labels["airflow_mlops.dag"], labels["airflow_mlops.task"]) == ("etl", "snapshot")
        assert labels["airflow_mlops.map_index"] == "-1"
        assert ours() == []

    def test_secrets_are_neither_in_the_log_nor_in_the_containers_configuration(
        self, job: Any, ml_image: str, docker_engine: Engine, ours: Any, caplog: Any
    ) -> None:
        settings = {
            "image": ml_image,
            "environment": {"WAREHOUSE_PASSWORD": "hush-hush-1"},
            "private_environment": {"LICENCE": "hush-hush-2"},
            "auto_remove": "never",
        }
        first = "print(os.environ['WAREHOUSE_PASSWORD'], os.environ['LICENCE'], os.environ['MLFLOW_TRACKING_PASSWORD'])"
        with caplog.at_level(logging.INFO):
            DockerRuntime(settings).run(job(first, {"MLFLOW_TRACKING_PASSWORD": "hush-hush-3"}), log)
        assert "*** *** ***" in caplog.text
        kept = ours()[0]
        client = docker_engine.client
        configuration = json.dumps(client.inspect_container(kept["Id"]))
        said = client.logs(kept["Id"]).decode()
        client.remove_container(kept["Id"])
        client.close()
        for text in (caplog.text, configuration, said):
            assert "hush-hush" not in text
        assert "-kept-" in kept["Names"][0]

    def test_lines_come_as_they_are_said(self, job: Any, ml_image: str, tmp_path: Path, caplog: Any) -> None:
        go = str(tmp_path / "store" / "go")
        waits = f"print('said', flush=True)\n    while not os.path.exists({go!r}): time.sleep(.1)"
        runtime = DockerRuntime({"image": ml_image})
        found: list[Any] = []
        with caplog.at_level(logging.INFO):
            thread = threading.Thread(target=lambda: found.append(runtime.run(job(waits), log)))
            thread.start()
            try:
                wait_for(lambda: "said" in caplog.text)
                assert found == []
            finally:
                (tmp_path / "store" / "go").touch()
                thread.join()
        assert found[0]["rows"] == 3

    def test_it_runs_where_the_image_knows_no_such_user(self, job: Any, ml_image: str, tmp_path: Path) -> None:
        (tmp_path / "store").mkdir()
        (tmp_path / "store").chmod(0o777)
        first = "import getpass; print(getpass.getuser()); open(os.path.expanduser('~/x'), 'w').close()"
        assert DockerRuntime({"image": ml_image, "user": 4711}).run(job(first), log)["rows"] == 3

    def test_the_code_is_copied_to_the_path_that_it_has_here(self, job: Any, ml_image: str, tmp_path: Path) -> None:
        nested = tmp_path / "code" / "team" / "deep"
        made = job(
            "import team.deep.module as m; assert m.__file__.startswith(os.environ['HERE'])", {"HERE": str(tmp_path)}
        )
        nested.mkdir(parents=True)
        (nested / "module.py").write_text("")
        assert DockerRuntime({"image": ml_image}).run(made, log)["rows"] == 3

    def test_the_store_may_be_on_s3_and_the_rows_in_a_database(
        self, job: Any, ml_image: str, s3_server: S3Server, postgres: Any, ours: Any, caplog: Any
    ) -> None:
        postgres.execute("drop table if exists people", "create table people as select 1 as id union select 2")
        access = s3_server.access.to_json()
        made = job(
            "print('given', os.environ['MLOPS_S3_STORE'], os.environ['MLOPS_SQL_URL'])",
            {"MLOPS_S3_STORE": access, "MLOPS_SQL_URL": postgres.url},
            source=None,
            sql="select * from people",
            order_by="id",
        )
        made.spec["store"] = f"s3://{s3_server.bucket()}/mlops"
        with caplog.at_level(logging.INFO):
            found = DockerRuntime({"image": ml_image, "network": "host"}).run(made, log)
        assert found["rows"] == 2
        assert found["uri"].startswith(made.spec["store"])
        assert "given" in caplog.text
        assert SECRET not in caplog.text
        assert postgres.url not in caplog.text
        assert ours() == []


class TestFaults:
    def test_a_library_that_the_image_lacks(self, job: Any, base_image: str, ours: Any) -> None:
        with pytest.raises(
            MissingExtraError, match="'pyarrow', which is not installed there; run: pip install"
        ) as caught:
            DockerRuntime({"image": base_image}).run(job(), log)
        assert f"the image '{base_image}' lacks a library" in caught.value.message
        assert not caught.value.retryable
        assert ours() == []

    def test_an_image_that_is_not_there(self, job: Any) -> None:
        with pytest.raises(NotFoundError, match=r"does not have the image 'nobody/has:this', and runtime\['pull'\]"):
            DockerRuntime({"image": "nobody/has:this", "pull": "never"}).run(job(), log)

    def test_an_image_that_the_registry_does_not_have(self, job: Any, registry: Registry) -> None:
        with pytest.raises(NotFoundError, match=r"cannot be pulled: .*Check its name and tag"):
            DockerRuntime({"image": f"{registry.address}/nobody/has:this"}).run(job(), log)

    def test_a_registry_that_does_not_answer(self, job: Any) -> None:
        with pytest.raises(CannotReachError, match=r"cannot be pulled now: .*reaches the registry"):
            DockerRuntime({"image": "127.0.0.1:9/nobody/has:this"}).run(job(), log)

    def test_a_login_that_the_registry_refuses(
        self,
        job: Any,
        registry: Registry,
        docker_engine: Engine,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        connect(monkeypatch, docker_engine, registry, "wrong-password")
        image = f"{registry.address}/team/tiny:1"
        with pytest.raises(CredentialsError, match="refuses the") as caught:
            DockerRuntime({"image": image, "docker_conn_id": "engine"}).run(job(), log)
        assert "wrong-password" not in caught.value.message

    def test_an_image_is_pulled_with_the_connections_login(
        self,
        job: Any,
        registry: Registry,
        docker_engine: Engine,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        connect(monkeypatch, docker_engine, registry, registry.password)
        image = f"{registry.address}/team/tiny:1"
        # It has no Python, so it is pulled and then refused.
        with pytest.raises(SpecError, match="the image has no such interpreter"):
            DockerRuntime({"image": image, "docker_conn_id": "engine"}).run(job(), log)
        client = docker_engine.client
        assert client.images(image)
        client.remove_image(image)
        client.close()

    def test_a_gpu_where_there_is_none(self, job: Any, ml_image: str, ours: Any) -> None:
        with pytest.raises(UnsupportedError, match="cannot give a container a GPU; install the NVIDIA driver"):
            DockerRuntime({"image": ml_image, "gpus": 1}).run(job(), log)
        assert ours() == []

    def test_a_network_that_is_not_there(self, job: Any, ml_image: str, ours: Any) -> None:
        with pytest.raises(NotFoundError, match="docker network ls"):
            DockerRuntime({"image": ml_image, "network": "nowhere"}).run(job(), log)
        assert ours() == []

    def test_out_of_memory(self, job: Any, ml_image: str, ours: Any) -> None:
        with pytest.raises(OutOfMemoryError, match=r"more memory than runtime\['memory'\] allows \(64 MB\)") as caught:
            DockerRuntime({"image": ml_image, "memory": "64m"}).run(job("x = bytearray(200 << 20)"), log)
        assert not caught.value.retryable
        assert ours() == []

    def test_a_process_of_the_step_that_is_out_of_memory(self, job: Any, ml_image: str, ours: Any) -> None:
        # As a pool's worker: the step itself lives on, and fails because of it.
        starts = f"subprocess.run([sys.executable, '-Sc', {'x = bytearray(300 << 20)'!r}], check=True)"
        first = f"import subprocess, airflow_mlops.core.steps as steps; steps.run_step = lambda spec: {starts}"
        with pytest.raises(OutOfMemoryError, match=r"\(150 MB\)"):
            DockerRuntime({"image": ml_image, "memory": "150m"}).run(job(first), log)
        assert ours() == []

    @pytest.mark.parametrize("limits", [{"timeout": 1}, {"timeout": "1h", "limit": 1.0}, {"limit": 1.0}])
    def test_too_long(self, job: Any, ml_image: str, ours: Any, limits: dict[str, Any]) -> None:
        limit = limits.pop("limit", None)
        late = dataclasses.replace(job("time.sleep(60)"), limit=limit)
        with pytest.raises(
            StoppedError, match=r"longer than 1 s, .* raise runtime\['timeout'\] or the task's execution"
        ):
            DockerRuntime({"image": ml_image, **limits}).run(late, log)
        assert ours() == []

    def test_a_step_that_crashes_its_interpreter(self, job: Any, ml_image: str) -> None:
        with pytest.raises(CrashedError, match="killed by SIGSEGV in a container of the image"):
            DockerRuntime({"image": ml_image}).run(job("import ctypes; ctypes.string_at(0)"), log)

    def test_a_step_that_leaves_no_report(self, job: Any, ml_image: str) -> None:
        with pytest.raises(CrashedError, match=r"left no report .* exit code 3; it last said: bye"):
            DockerRuntime({"image": ml_image}).run(job("print('bye', flush=True); os._exit(3)"), log)

    def test_a_container_that_somebody_removes(self, job: Any, ml_image: str, docker_engine: Engine, ours: Any) -> None:
        def running() -> list[str]:
            return [one["Id"] for one in ours() if one["State"] == "running"]

        remove = threading.Timer(0, lambda: docker_engine.command("rm", "-f", wait_for(running)[0]))
        remove.start()
        with pytest.raises(ContainerLostError) as caught:
            DockerRuntime({"image": ml_image}).run(job("time.sleep(60)"), log)
        remove.join()
        assert caught.value.retryable

    def test_no_such_interpreter(self, job: Any, ml_image: str, ours: Any) -> None:
        with pytest.raises(SpecError, match=r"no such interpreter: .*runtime\['python'\]"):
            DockerRuntime({"image": ml_image, "python": "python4"}).run(job(), log)
        assert ours() == []

    def test_a_failed_container_is_kept_for_people(
        self, job: Any, base_image: str, docker_engine: Engine, ours: Any
    ) -> None:
        for _ in range(2):
            # The one that is kept is not what the next try finds.
            with pytest.raises(MissingExtraError):
                DockerRuntime({"image": base_image, "auto_remove": "success"}).run(job(), log)
        kept = ours()
        assert len(kept) == 2
        for one in kept:
            assert "MissingExtraError" in docker_engine.command("logs", one["Id"]).stdout
            docker_engine.command("rm", one["Id"])

    def test_an_error_of_the_step_is_the_same_as_here(self, job: Any, ml_image: str) -> None:
        with pytest.raises(SpecError, match="snapshot_data has no argument 'nam'; did you mean 'name'"):
            DockerRuntime({"image": ml_image}).run(job(nam="x"), log)


def connect(monkeypatch: pytest.MonkeyPatch, engine: Engine, registry: Registry, password: str) -> None:
    connection = {
        "conn_type": "docker",
        "host": registry.address,
        "login": "bot",
        "password": password,
        "extra": {"docker_url": engine.url},
    }
    monkeypatch.setenv("AIRFLOW_CONN_ENGINE", json.dumps(connection))
