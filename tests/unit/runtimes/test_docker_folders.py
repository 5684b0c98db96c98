"""Which folders of the worker a container gets, and what is refused because it could not be reached from there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.core.errors import SpecError
from airflow_mlops.runtimes.docker_engine import Engine
from airflow_mlops.runtimes.docker_folders import check_addresses, mounts_of
from airflow_mlops.runtimes.docker_settings import ContainerSettings, Mount, settings_of

HERE, ELSEWHERE = Engine("unix:///var/run/docker.sock"), Engine("tcp://gpu-box:2376", "gpu_box")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for name in ("home/store", "lake/orders", "dags"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "lake" / "orders" / "1.csv").write_text("a\n1\n")
    return tmp_path


def spec_of(home: Path, **args: Any) -> dict[str, Any]:
    return {
        "store": (home / "home" / "store").as_uri(),
        "tracking_uri": f"sqlite:///{home}/home/mlflow.db",
        "args": args,
    }


def mounted(spec: dict[str, Any], engine: Engine = HERE, code: tuple[str, ...] = (), **runtime: Any) -> list[Mount]:
    variables = runtime.pop("variables", {})
    return mounts_of(spec, variables, settings_of({"image": "x", **runtime}), engine, list(code))


def test_the_store_and_mlflow_are_written_and_data_is_only_read(home: Path) -> None:
    found = mounted(spec_of(home, dataset={"uri": (home / "lake" / "orders" / "1.csv").as_uri(), "kind": "dataset"}))
    # The store lies in the folder of MLflow's database, and so needs no mount of its own.
    assert found == [
        Mount(f"{home}/home", f"{home}/home"),
        Mount(f"{home}/lake/orders/1.csv", f"{home}/lake/orders/1.csv", read_only=True),
    ]


@pytest.mark.parametrize("source", ["{home}/lake/orders/*.csv", "{home}/lake/orders"])
def test_a_glob_is_the_folder_above_it(home: Path, source: str) -> None:
    found = mounted(spec_of(home, source=source.format(home=home)))
    assert found[1:] == [Mount(f"{home}/lake/orders", f"{home}/lake/orders", read_only=True)]


def test_files_in_lists_and_commands(home: Path) -> None:
    found = mounted(
        spec_of(home, source=[f"{home}/lake/orders/1.csv"], command=["python", f"{home}/dags", "{dataset}"])
    )
    assert {one.target for one in found[1:]} == {f"{home}/lake/orders/1.csv", f"{home}/dags"}


def test_a_database_that_is_a_file_is_mounted(home: Path) -> None:
    (home / "shop.db").touch()
    found = mounted({"store": "s3://b"}, variables={"MLOPS_SQL_URL": f"sqlite:///{home}/shop.db"})
    assert found == [Mount(f"{home}/shop.db", f"{home}/shop.db", read_only=True)]


def test_what_the_user_mounts_is_not_mounted_again(home: Path) -> None:
    own = [f"/nfs/lake:{home}/lake:ro", f"/nfs/home:{home}/home"]
    found = mounted(spec_of(home, source=f"{home}/lake/orders/1.csv"), mounts=own)
    assert [one.source for one in found] == ["/nfs/lake", "/nfs/home"]


def test_a_folder_that_is_written_is_not_served_by_a_mount_that_cannot_be(home: Path) -> None:
    found = mounted(spec_of(home), mounts=[f"/nfs/home:{home}/home:ro"])
    assert Mount(f"{home}/home", f"{home}/home") in found


def test_servers_and_buckets_need_no_folder() -> None:
    args = {"dataset": "s3://lake/orders/", "model": "models:/churn@champion"}
    assert mounted({"store": "s3://b/p", "tracking_uri": "https://mlflow.example.com", "args": args}, ELSEWHERE) == []


def test_an_engine_on_another_machine_has_no_folder_of_this_one(home: Path) -> None:
    with pytest.raises(SpecError, match=r"gpu-box:2376 \(connection 'gpu_box'\) is another machine, and the store is"):
        mounted(spec_of(home), ELSEWHERE)
    on_s3 = {"store": "s3://b", "args": {"dataset": f"{home}/lake/orders/1.csv"}}
    with pytest.raises(SpecError, match=rf"the argument 'dataset' is on this one: {home}.*data on S3; or name a mount"):
        mounted(on_s3, ELSEWHERE)
    assert mounted(on_s3, ELSEWHERE, mounts=[f"/nfs/lake:{home}/lake:ro"])[0].source == "/nfs/lake"
    # What lies in a folder of code is copied.
    assert mounted({"store": "s3://b", "args": {"notebook": f"{home}/dags"}}, ELSEWHERE, (f"{home}/dags",)) == []


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "0.0.0.0", "[::1]"])
def test_a_server_on_localhost_is_refused_without_its_credentials(host: str) -> None:
    spec = {"tracking_uri": f"http://bot:hush@{host}:5000"}
    with pytest.raises(
        SpecError, match=r"MLflow is at http://.*:5000, and in a container .* is the container"
    ) as caught:
        check_addresses(spec, {}, ContainerSettings("x"))
    assert "hush" not in str(caught.value)
    check_addresses(spec, {}, ContainerSettings("x", network="host"))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "MLOPS_S3_STORE",
            '{"endpoint_url": "http://localhost:9000", "secret": "hush"}',
            "S3 server is at http://localhost",
        ),
        (
            "MLOPS_SQL_URL",
            "postgresql+psycopg2://bot:hush@127.0.0.1/shop",
            r"database is at postgresql\S+//127\.0\.0\.1",
        ),
    ],
)
def test_so_are_an_s3_server_and_a_database(name: str, value: str, message: str) -> None:
    spec = {"tracking_uri": "https://mlflow.example.com"}
    with pytest.raises(SpecError, match=message) as caught:
        check_addresses(spec, {name: value}, ContainerSettings("x"))
    assert "hush" not in str(caught.value)
    elsewhere = value.replace("localhost", "box").replace("127.0.0.1", "box")
    check_addresses(spec, {name: elsewhere}, ContainerSettings("x"))
