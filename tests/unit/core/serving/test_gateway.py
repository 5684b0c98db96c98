"""The gateway's folder: a configuration that HAProxy takes, whatever is deployed."""

from __future__ import annotations

import itertools
import subprocess
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.core.errors import CannotReachError, SpecError
from airflow_mlops.core.serving.gateway import Gateway, Settings, Slot, main, render
from airflow_mlops.core.serving.processes import GatewayProcess
from servers.docker_steps import wait_for
from servers.s3 import free_port


@pytest.mark.parametrize("resolver", ["", "127.0.0.11:53"])
def test_haproxy_takes_the_configuration(tmp_path: Path, resolver: str) -> None:
    address = "mlops-churn-1-abc:8080" if resolver else "127.0.0.1:9000"
    servers = {"churn": {"blue": Slot(address, 95), "green": Slot(address, 5)}, "a_b-c": {"blue": Slot(address, 0)}}
    text = render(Settings(bind=":8600", resolver=resolver), servers)
    (tmp_path / "haproxy.cfg").write_text(text)
    done = subprocess.run(
        ["haproxy", "-c", "-f", "haproxy.cfg"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_folder_is_made_by_a_command_and_keeps_what_is_deployed(tmp_path: Path) -> None:
    main([str(tmp_path / "gateway"), "--bind", ":8600"])
    gateway = Gateway(tmp_path / "gateway")
    with pytest.raises(CannotReachError, match="start it: airflow mlops serve"):
        gateway.apply("churn", {"blue": Slot("127.0.0.1:9000", 100)})
    main([str(tmp_path / "gateway"), "--bind", ":9600", "--resolver", "127.0.0.11:53"])
    text = (tmp_path / "gateway" / "haproxy.cfg").read_text()
    assert "bind :9600" in text
    assert "server blue 127.0.0.1:9000 weight 100" in text
    assert "nameserver first 127.0.0.11:53" in text


def test_nobody_but_its_user_can_open_the_runtime_api(world: Any) -> None:
    folder = world.gateway.folder
    assert (folder / "admin.sock").stat().st_mode & 0o007 == 0
    assert "level admin" in (folder / "haproxy.cfg").read_text()
    assert "stats enable" not in (folder / "haproxy.cfg").read_text()


def test_a_port_that_is_taken_is_named(world: Any, tmp_path: Path) -> None:
    gateway = Gateway(tmp_path / "second", Settings(bind=f"127.0.0.1:{world.port}"))
    with pytest.raises(CannotReachError, match=f"does not start at 127.0.0.1:{world.port}.*[Aa]ddress already in use"):
        GatewayProcess(gateway, print).ensure()


def test_servers_found_by_name_are_switched_as_well(tmp_path: Path) -> None:
    """Where names are looked up, a slot's address changes by a new configuration; weights change as ever."""
    port = free_port()
    gateway = Gateway(tmp_path / "gateway", Settings(bind=f"127.0.0.1:{port}", resolver="127.0.0.1:9"))
    process = GatewayProcess(gateway, print)
    process.ensure()
    try:
        gateway.apply("churn", {"blue": Slot("127.0.0.1:9000", 100)})
        gateway.apply("churn", {"blue": Slot("127.0.0.1:9000", 60), "green": Slot("127.0.0.1:9001", 40)})
        found = gateway.stats("churn")
        assert {name: (one.weight, one.address) for name, one in found.items()} == {
            "blue": (60, "127.0.0.1:9000"),
            "green": (40, "127.0.0.1:9001"),
        }
    finally:
        process.close()


def test_a_key_stays_with_its_server_and_a_share_that_grows_only_takes_keys_over(world: Any) -> None:
    world.deploy("a")
    seq = world.want("b")
    old, new = (world.fleet.ensure(world.state.read(one)).address for one in (1, seq))

    def taken(share: int) -> set[str]:
        """Return the keys that meet the new server."""
        world.gateway.apply("flights", {"blue": Slot(old, 100 - share), "green": Slot(new, share)})
        if share == 25:
            world.process.close()
            world.process.ensure()
        wait_for(lambda: world.gateway.stats("flights")["green"].status.startswith("UP"))
        return {f"user {n}" for n in range(200) if world.ask(X_Key=f"user {n}") == (200, seq)}

    shares = [5, 25, 50, 75]
    found = [taken(share) for share in shares]
    for before, after in itertools.pairwise(found):
        assert before < after
    assert [abs(len(keys) / 2 - share) < 12 for keys, share in zip(found, shares, strict=True)] == [True] * 4
    # An address as a proxy tells it is a key; this machine's own address says nothing.
    assert len({world.ask(X_Forwarded_For="203.0.113.9, 10.0.0.1") for _ in range(20)}) == 1
    assert len({world.ask() for _ in range(50)}) == 2
    world.gateway.apply("flights", {"blue": Slot(old, 100), "green": Slot(new, 0)})
    assert {world.ask(X_Key=key) for key in found[-1]} == {(200, 1)}


def test_the_header_of_the_key_is_a_name() -> None:
    assert "balance hdr(X-User-Id)" in render(Settings(key="X-User-Id"), {"churn": {}})
    with pytest.raises(SpecError, match="must be a name such as 'X-User-Id'"):
        Settings(key="x) if TRUE\n")
