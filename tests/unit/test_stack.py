"""The Compose file, and the script that makes its passwords and watches its containers."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "deploy" / "image")]


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of ``make stack-up``, in a folder of its own and with no Docker."""
    # Each test has its own copy; a module of this name belongs to the image as well.
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location("stack_script", ROOT / "scripts" / "stack.py")
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ENV", tmp_path / ".env")
    monkeypatch.setattr(module, "inspect", lambda *names: [])
    monkeypatch.delenv("COMPOSE_PROJECT_NAME", raising=False)
    return module


@pytest.fixture
def image() -> Any:
    """The module that containers run."""
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location("stack_image", ROOT / "deploy" / "image" / "stack.py")
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    return found


def settings(path: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in path.read_text().splitlines() if "=" in line)


class TestSettings:
    def test_only_the_owner_reads_them_and_git_does_not(self, script: Any) -> None:
        script.make_settings()
        assert stat.S_IMODE(script.ENV.stat().st_mode) == 0o600
        assert list(script.ENV.parent.iterdir()) == [script.ENV]
        assert ".env" in (ROOT / ".gitignore").read_text().splitlines()

    def test_every_password_is_another_one_each_time(self, script: Any) -> None:
        script.make_settings()
        first = settings(script.ENV)
        script.ENV.unlink()
        script.make_settings()
        second = settings(script.ENV)
        plain = {"COMPOSE_PROJECT_NAME", "AIRFLOW_PORT", "MLFLOW_PORT", "GATEWAY_PORT"}
        secret = set(first) - plain
        assert len({*map(first.get, secret), *map(second.get, secret)}) == 2 * len(secret)
        assert all(len(first[name]) >= 20 for name in secret)

    def test_what_is_there_is_kept_and_what_is_missing_is_added(self, script: Any) -> None:
        script.ENV.write_text("# mine\nAIRFLOW_PORT=9999\nPOSTGRES_PASSWORD=\nOTHER=x")
        script.make_settings()
        lines, found = script.ENV.read_text().splitlines(), settings(script.ENV)
        assert lines[0] == "# mine"
        assert (found["AIRFLOW_PORT"], found["OTHER"]) == ("9999", "x")
        assert found["POSTGRES_PASSWORD"]
        assert [line.partition("=")[0] for line in lines].count("POSTGRES_PASSWORD") == 1
        before = script.ENV.read_text()
        script.make_settings()
        assert script.ENV.read_text() == before

    def test_new_passwords_are_not_made_for_old_data(self, script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(script, "inspect", lambda *names: [{"Name": names[0]}])
        with pytest.raises(SystemExit, match=r"mlops_postgres, mlops_s3 are there.*not in \.env.*docker volume rm"):
            script.make_settings()
        assert not script.ENV.exists()

    def test_the_fernet_key_is_one(self, script: Any) -> None:
        from cryptography.fernet import Fernet

        script.make_settings()
        Fernet(settings(script.ENV)["AIRFLOW_FERNET_KEY"])


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({"Status": "running", "ExitCode": 0, "Health": {"Status": "healthy"}}, "well"),
        ({"Status": "running", "ExitCode": 0, "Health": {"Status": "starting"}}, "starting"),
        ({"Status": "running", "ExitCode": 0, "Health": {"Status": "unhealthy"}}, "unhealthy"),
        ({"Status": "exited", "ExitCode": 0}, "exited with code 0"),
        ({"Status": "restarting", "ExitCode": 3}, "restarting with code 3"),
        ({"Status": "restarting", "ExitCode": 3, "restarts": 1}, "starting"),
    ],
)
def test_what_a_container_is_said_to_be(script: Any, state: dict[str, Any], expected: str) -> None:
    def said(service: str, state: dict[str, Any]) -> str:
        labels = {"com.docker.compose.service": service}
        container = {"Config": {"Labels": labels}, "State": state, "RestartCount": state.get("restarts", 3)}
        assert script.state_of(container)[0] == service
        return str(script.state_of(container)[1])

    assert said("mlflow", state) == expected
    assert said("set-up", {"Status": "exited", "ExitCode": 0}) == "well"


class TestUsers:
    def test_roles_and_passwords_are_told_apart(self, image: Any) -> None:
        roles, passwords = image.users("admin:Admin:s3:cret, eva:viewer:x")
        assert roles == "admin:admin,eva:viewer"
        assert passwords == {"admin": "s3:cret", "eva": "x"}

    @pytest.mark.parametrize("text", ["admin", "admin:admin:", "eva:boss:x", ":admin:x", "", " , "])
    def test_what_is_none_is_refused(self, image: Any, text: str) -> None:
        with pytest.raises(SystemExit, match="AIRFLOW_USERS"):
            image.users(text)


class TestComposeFile:
    def test_docker_compose_reads_it(self, script: Any, tmp_path: Path) -> None:
        if not shutil.which("docker-compose"):
            pytest.skip("there is no Compose here: apt-get install docker-compose")
        files = ["--file", str(ROOT / "docker-compose.yml"), "--file", str(ROOT / "deploy" / "model-servers.yml")]
        command = ["docker-compose", *files, "--env-file", str(script.ENV)]
        script.ENV.write_text("")
        refused = subprocess.run([*command, "config", "-q"], capture_output=True, text=True, check=False)
        assert refused.returncode != 0
        assert "make stack-env" in refused.stderr
        script.make_settings()
        done = subprocess.run([*command, "config", "-q"], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        shown = subprocess.run([*command, "config"], capture_output=True, text=True, check=True)
        for service in yaml.safe_load(shown.stdout)["services"].values():
            for name, value in service.get("environment", {}).items():
                if name.startswith("AIRFLOW_CONN_"):
                    assert json.loads(value)["conn_type"]

    def test_the_engine_is_given_to_those_who_deploy_and_only_on_request(
        self, script: Any, services: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert "docker.sock" not in (ROOT / "docker-compose.yml").read_text()
        monkeypatch.delenv("COMPOSE_FILE", raising=False)
        assert script.engine_socket() == {}
        override = yaml.safe_load((ROOT / "deploy" / "model-servers.yml").read_text())
        given = {name for name, one in override["services"].items() if "docker.sock" in str(one.get("volumes"))}
        assert given == {"scheduler", "triggerer"}
        assert set(override["services"]) <= set(services)
        script.ENV.write_text("COMPOSE_FILE=docker-compose.yml:deploy/model-servers.yml\nDOCKER_SOCKET=/no/socket\n")
        with pytest.raises(SystemExit, match="name it by DOCKER_SOCKET"):
            script.engine_socket()
        monkeypatch.setenv("DOCKER_SOCKET", str(script.ENV))
        assert script.engine_socket() == {"DOCKER_SOCKET": str(script.ENV), "DOCKER_GID": str(script.ENV.stat().st_gid)}

    def test_what_is_published_is_on_loopback(self, services: dict[str, dict[str, Any]]) -> None:
        ports = [port for service in services.values() for port in service.get("ports", ())]
        assert len(ports) == 3
        assert all(str(port).startswith("127.0.0.1:") for port in ports)

    def test_each_service_checks_its_health_and_comes_back(self, services: dict[str, dict[str, Any]]) -> None:
        for name, service in services.items():
            once = name == "set-up"
            assert service["restart"] == ("no" if once else "unless-stopped"), name
            assert once or service["healthcheck"]["test"], name
            assert service["cap_drop"] == ["ALL"], name

    def test_no_secret_has_a_default(self) -> None:
        for name in (ROOT / "docker-compose.yml").read_text().split("${")[1:]:
            variable = name.partition("}")[0]
            if any(word in variable for word in ("PASSWORD", "KEY", "SECRET", "USERS")):
                assert variable.endswith(":?run make stack-env"), variable
