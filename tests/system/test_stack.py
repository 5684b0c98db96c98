"""The Compose stack on a real engine: built, brought up, level 1 run in it, looked at from outside, and taken down."""

from __future__ import annotations

import json
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from servers.docker import Engine
from servers.stack import Stack

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

pytestmark = [pytest.mark.scheduler, pytest.mark.timeout(1500)]

#: How the names of secrets end; the id of a key of S3 is none.
SECRET = ("PASSWORD", "USERS", "SECRET", "SECRET_KEY", "FERNET_KEY")
#: The gateway's files, in the containers that have them.
FOLDER = "/opt/airflow/gateway"
SERVE = "mlops_level_2_serve"
SERVERS = {"postgres", "s3", "mlflow", "api-server", "scheduler", "dag-processor", "triggerer", "gateway"}


@dataclass
class Platform:
    """The stack after a run of level 1.

    :param said: what ``make stack-up`` printed.
    :param run: the run as it came out.
    """

    stack: Stack
    said: str
    run: Any
    containers: dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def platform(docker_engine: Engine, base_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    from airflow_api import Api
    from demo import DAG, scheduled, trigger

    stack = Stack.prepare(docker_engine, tmp_path_factory.mktemp("stack") / "clone")
    try:
        said = stack.script("up")
        airflow = Api(f"http://127.0.0.1:{stack.ports['AIRFLOW_PORT']}", "docker-compose logs")
        _, _, password = stack.settings["AIRFLOW_USERS"].split(":")
        airflow.log_in("admin", password)
        airflow.wait_for_dag(DAG)
        run = scheduled(airflow, DAG, "in the stack, started by the schedule", timeout=300)
        assert run.state == "success", f"{run.tasks}\n{stack.compose('logs', '--tail', '60', 'scheduler')}"
        version = str(run.results["model.register"]["version"])
        stack.execute("scheduler", "airflow", "mlops", "promote", "flights_late", version, "--reason", "report read")
        airflow.wait_for_dag(SERVE)
        served = trigger(airflow, SERVE, "the champion is served", {"model_name": "flights_late"})
        assert served.state == "success", f"{served.tasks}\n{stack.compose('logs', '--tail', '60', 'scheduler')}"
        yield Platform(stack, said, run, stack.containers())
    finally:
        stack.remove()


def test_it_says_where_everything_is_and_shows_no_password(platform: Platform) -> None:
    stack = platform.stack
    for name in SERVERS:
        assert f"{name} is well" in platform.said
    for port in stack.ports.values():
        assert f"http://localhost:{port}" in platform.said
    secrets = {value.rpartition(":")[2] for name, value in stack.settings.items() if name.endswith(SECRET)}
    assert len(secrets) == 10
    shown = platform.said + stack.compose("logs", "--no-color")
    assert not [secret for secret in secrets if secret in shown]


def test_level_1_keeps_its_models_in_postgres_and_its_files_on_s3(platform: Platform) -> None:
    stack, results = platform.stack, platform.run.results
    assert set(platform.run.tasks.values()) == {"success"}
    assert results["data.snapshot"]["uri"].startswith("s3://mlops/store/")
    assert results["model.test"]["report_uri"].startswith("s3://mlops/store/")
    query = "select name || ' ' || version from model_versions"
    registered = stack.execute("postgres", "psql", "-U", "postgres", "-d", "mlflow", "-tAc", query)
    assert registered.strip() == f"flights_late {results['model.register']['version']}"
    query = "select count(*) from task_instance where state = 'success' and dag_id = 'mlops_level_1'"
    done = stack.execute("postgres", "psql", "-U", "postgres", "-d", "airflow", "-tAc", query)
    assert int(done) == len(platform.run.tasks)
    objects = keys_of(platform, "mlops"), keys_of(platform, "mlflow")
    assert all(key.startswith("store/") for key in objects[0])
    assert any(key.endswith(".html") for key in objects[0])
    assert any(key.startswith("artifacts/") and key.endswith("/MLmodel") for key in objects[1])


def keys_of(platform: Platform, bucket: str) -> list[str]:
    """Return the objects of a bucket, asked from this machine, which alone sees the inner network."""
    from airflow_mlops.core.s3 import S3Access

    networks = platform.containers["s3"]["NetworkSettings"]["Networks"]
    address = networks[f"{platform.stack.project}_data"]["IPAddress"]
    settings = platform.stack.settings
    access = S3Access(key=settings["S3_ACCESS_KEY"], secret=settings["S3_SECRET_KEY"], region="us-east-1")
    client = replace(access, endpoint_url=f"http://{address}:9000").client()
    return [one["Key"] for one in client.list_objects_v2(Bucket=bucket)["Contents"]]


def test_ports_are_open_on_loopback_alone(platform: Platform) -> None:
    published = [
        (binding["HostIp"], int(binding["HostPort"]))
        for one in platform.containers.values()
        for bindings in one["NetworkSettings"]["Ports"].values()
        for binding in bindings or ()
    ]
    assert sorted(published) == sorted(("127.0.0.1", port) for port in platform.stack.ports.values())
    others = {
        address.address
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
        if address.family == socket.AF_INET and not address.address.startswith("127.")
    }
    for port in platform.stack.ports.values():
        socket.create_connection(("127.0.0.1", port), 5).close()
        for other in others:
            with pytest.raises(OSError, match="refused"):
                socket.create_connection((other, port), 5)


def test_nothing_runs_as_root(platform: Platform) -> None:
    for service, container in platform.containers.items():
        assert container["Config"]["User"] not in ("", "0", "root"), service
    for service in SERVERS:
        listed = platform.stack.engine.command("top", platform.containers[service]["Id"], "-eo", "pid,uid,args").stdout
        users = {line.split()[1] for line in listed.splitlines()[1:]}
        assert users, service
        assert "0" not in users, listed
    # The folder of a server whose own image has none.
    platform.stack.execute("s3", "touch", "/data/written")


def test_the_gateway_answers_and_its_admin_socket_is_its_own(platform: Platform) -> None:
    stack = platform.stack
    gateway = f"http://127.0.0.1:{stack.ports['GATEWAY_PORT']}"
    with urllib.request.urlopen(f"{gateway}/gateway/health", timeout=10) as answer:
        assert answer.status == 200
    with pytest.raises(urllib.error.HTTPError, match="404") as refused:
        urllib.request.urlopen(f"{gateway}/nobody/invocations", timeout=10)
    assert "no such model server" in refused.value.read().decode()
    # It works from inside, where it is a file that only its user can open ...
    ask = f"import socket; s = socket.socket(socket.AF_UNIX); s.connect('{FOLDER}/admin.sock'); "
    ask += "s.send(b'show info\\n'); print(s.recv(99).decode())"
    assert "HAProxy" in stack.execute("gateway", "python3", "-c", ask)
    assert stack.execute("gateway", "stat", "-c", "%a %u", f"{FOLDER}/admin.sock").split() == ["660", "50000"]
    # ... of no other container but those that deploy, ...
    mounts = {
        service: {mount["Destination"] for mount in container["Mounts"]}
        for service, container in platform.containers.items()
    }
    with_folder = {service for service, places in mounts.items() if FOLDER in places}
    assert with_folder == {"gateway", "set-up", "scheduler", "triggerer"}
    with_engine = {service for service, places in mounts.items() if "/var/run/docker.sock" in places}
    assert with_engine == {"scheduler", "triggerer"}, "as somebody has opted in"
    # ... and on no port: it listens on one, but for Docker's own names on loopback, and that takes no commands.
    rows = [line.split() for line in stack.execute("gateway", "cat", "/proc/net/tcp", "/proc/net/tcp6").splitlines()]
    local = {row[1] for row in rows if row[3] == "0A"}
    assert {int(one.partition(":")[2], 16) for one in local if not one.startswith("0B00007F")} == {8080}
    with socket.create_connection(("127.0.0.1", stack.ports["GATEWAY_PORT"]), 10) as connection:
        connection.sendall(b"show info\n\n")
        assert b"HAProxy" not in connection.recv(4096)


def test_the_gateway_is_not_on_the_network_of_the_databases(platform: Platform) -> None:
    def networks(service: str) -> set[str]:
        return set(platform.containers[service]["NetworkSettings"]["Networks"])

    default, data, models = (f"{platform.stack.project}_{name}" for name in ("default", "data", "models"))
    assert networks("postgres") == {data}
    assert networks("s3") == {data, models}
    assert networks("gateway") == {default, models}
    (model,) = platform.stack.models()
    (found,) = json.loads(platform.stack.engine.command("inspect", model).stdout)
    assert set(found["NetworkSettings"]["Networks"]) == {models}
    for name in (data, models):
        assert json.loads(platform.stack.engine.command("network", "inspect", name).stdout)[0]["Internal"]


def test_the_champion_is_served_by_the_gateway_and_captured_to_s3(platform: Platform) -> None:
    stack = platform.stack
    gateway = f"http://127.0.0.1:{stack.ports['GATEWAY_PORT']}/flights"
    with urllib.request.urlopen(f"{gateway}/model", timeout=60) as answer:
        served = json.loads(answer.read())
    assert (served["model"], served["version"]) == (
        "flights_late",
        str(platform.run.results["model.register"]["version"]),
    )
    before = {key for key in keys_of(platform, "mlops") if key.startswith("store/predictions/flights/")}
    (model,) = stack.models()
    example = "import json; print(open('/mlops/model/serving_input_example.json').read())"
    body = stack.engine.command("exec", model, "python3", "-c", example).stdout.encode()
    request = urllib.request.Request(f"{gateway}/invocations", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert json.loads(answer.read())["predictions"]
    # It writes when it is told to end, and the engine starts it again on request.
    stack.engine.command("stop", "--time", "120", model)
    after = {key for key in keys_of(platform, "mlops") if key.startswith("store/predictions/flights/")}
    assert after > before
    stack.engine.command("start", model)
    # No key of the store is in what the engine shows of the container.
    assert stack.settings["S3_SECRET_KEY"] not in stack.engine.command("inspect", model).stdout


def test_mlflow_asks_for_a_password(platform: Platform) -> None:
    url = f"http://127.0.0.1:{platform.stack.ports['MLFLOW_PORT']}/api/2.0/mlflow/registered-models/search"
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(url, timeout=10)


def test_down_keeps_the_data_and_leaves_nothing_else(platform: Platform) -> None:
    stack = platform.stack
    settings = stack.settings
    stack.script("down")
    (model,) = stack.models()
    (found,) = json.loads(stack.engine.command("inspect", model).stdout)
    assert not found["State"]["Running"], "its container stays, to be started again"
    assert {kind for kind, _ in stack.leftovers()} == {"volume"}
    kept = stack.engine.command("volume", "ls", "--quiet", "--filter", f"name={stack.project}").stdout.split()
    assert set(kept) == {f"{stack.project}_{name}" for name in ("airflow-logs", "flights", "gateway", "postgres", "s3")}
    assert stack.settings == settings
    # Somebody loses the file: what is there must not be locked up behind new passwords.
    (stack.folder / ".env").unlink()
    refused = stack.run(sys.executable, "scripts/stack.py", "up", check=False)
    assert "Put the file back" in refused
    stack.remove()
    assert stack.leftovers() == []
