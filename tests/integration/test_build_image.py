"""BuildImageOperator on a real Docker Engine: images of commits, found again, streamed, and failing with a reason."""

from __future__ import annotations

import base64
import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_mlops.exceptions import MlopsFailed, MlopsUnavailable
from airflow_mlops.operators.code import CheckoutCodeOperator
from airflow_mlops.operators.serving import BuildImageOperator
from airflow_mlops.runtimes.image_build import bases_of
from servers.docker import Engine
from servers.docker_registry import LOGIN, PASSWORD, DockerRegistry
from servers.docker_registry import docker_registry as docker_registry
from servers.git import Repository
from servers.s3 import free_port

EXAMPLE = Path(__file__).parents[1] / "examples" / "push_image.py"
DOCKERFILE = """ARG BASE=nothing
FROM ${BASE} AS code
COPY value.txt /value.txt
RUN echo "made of $(cat /value.txt)"
FROM code
CMD ["cat", "/value.txt"]
"""


@pytest.fixture
def context(tmp_path: Path, docker_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("AIRFLOW__MLOPS__HOME", str(tmp_path / "mlops"))
    monkeypatch.setenv("DOCKER_HOST", docker_engine.url)
    ti = SimpleNamespace(
        bundle_instance=SimpleNamespace(path=tmp_path), dag_id="d", task_id="build", run_id="r", map_index=-1
    )
    return {"ti": ti, "dag": SimpleNamespace(fileloc=str(tmp_path / "dag.py"))}


@pytest.fixture
def build(context: Any, base_image: str, tmp_path: Path, docker_engine: Engine) -> Any:
    """Build the project's image; all that a test has made is removed."""
    made = []

    def run(**more: Any) -> dict[str, Any]:
        given = {
            "context": "project",
            "tag": f"mlops-test/{tmp_path.name.lower()}:1",
            "build_args": {"BASE": base_image},
        }
        found = BuildImageOperator(task_id="build", **{**given, **more}).execute(context)
        made.append(found["id"])
        return found

    yield run
    client = docker_engine.client
    for one in reversed(list(dict.fromkeys(made))):
        client.remove_image(one, force=True)
    client.close()


def said(engine: Engine, image: str) -> str:
    return engine.command("run", "--rm", "--network", "none", image).stdout


def test_an_image_of_a_commit_carries_its_sha_and_is_made_once(
    repository: Repository, build: Any, docker_engine: Engine, base_image: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    one = repository.commit("one", Dockerfile=DOCKERFILE, value_txt="one")
    two = repository.commit("two", value_txt="two")
    first = build(git_sha=one)
    assert said(docker_engine, first["name"]) == "one", "the commit's files, not those of the working copy"
    assert (first["kind"], first["sha"], first["reused"]) == ("image", one, False)
    assert first["id"].startswith("sha256:")
    assert first["digest"] == first["id"], "of no registry"
    labels = docker_engine.client.inspect_image(first["id"])["Config"]["Labels"]
    assert labels == first["labels"]
    assert labels["org.opencontainers.image.revision"] == one
    assert labels["org.opencontainers.image.source"] == str(repository.folder)
    assert labels["airflow_mlops.context_digest"].startswith("sha256:")
    assert "| made of one" in caplog.text
    assert len(json.dumps(first)) < 16384

    again = build(git_sha=one, tag=first["name"].replace(":1", ":again"))
    assert (again["id"], again["reused"]) == (first["id"], True)
    assert said(docker_engine, again["name"]) == "one"
    other = build(git_sha=two)
    assert (other["reused"], said(docker_engine, other["name"])) == (False, "two")
    anew = build(git_sha=two, reuse=False)
    assert anew["reused"] is False
    # Another base is another image, though nothing else has changed.
    base = f"FROM {base_image}\nRUN true\n"
    (repository.folder / "base").mkdir()
    (repository.folder / "base" / "Dockerfile").write_text(base)
    below = build(context="project/base", tag="mlops-test/base:1", build_args=None)
    on_it = build(git_sha=two, build_args={"BASE": "mlops-test/base:1"})
    assert on_it["reused"] is False
    assert below["sha"] == two, "a folder of a git tree is labelled with its commit"
    assert below["labels"]["airflow_mlops.dirty"] == "true"


def test_it_takes_what_a_checkout_gives_without_what_was_left_there(
    repository: Repository, build: Any, context: Any, docker_engine: Engine
) -> None:
    sha = repository.commit(
        "one", Dockerfile=DOCKERFILE.replace("value.txt /", ". /all/\nCOPY value.txt /"), value_txt="1"
    )
    checkout = CheckoutCodeOperator(task_id="c", repository="project", requirements=None)
    code = checkout.execute(context)
    first = build(context=code)
    assert first["sha"] == sha
    (Path(code["path"]) / "__pycache__").mkdir()
    (Path(code["path"]) / "__pycache__" / "x.pyc").write_text("left by a test")
    second = build(context=code)
    assert second["reused"], "what the commit does not have makes no other image"
    listed = docker_engine.command("run", "--rm", "--network", "none", first["id"], "ls", "-A", "/all").stdout.split()
    assert listed == ["Dockerfile", "value.txt"]


def test_it_is_pushed_to_a_registry_that_asks_for_a_login(
    repository: Repository,
    build: Any,
    context: Any,
    base_image: str,
    docker_engine: Engine,
    docker_registry: DockerRegistry,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def connection(password: str, host: str = docker_registry.address) -> None:
        extra = {"docker_url": docker_engine.url}
        text = {"conn_type": "docker", "host": host, "login": LOGIN, "password": password, "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_REGISTRY", json.dumps(text))

    caplog.set_level(logging.DEBUG)
    sha = repository.commit("one", Dockerfile=DOCKERFILE, value_txt="pushed")
    tag = f"{docker_registry.address}/team/churn:1"
    connection("wrong-password")
    with pytest.raises(MlopsFailed, match=r"registry.* refuse.*login and password of"):
        build(git_sha=sha, tag=tag, docker_conn_id="registry", push=True)
    with pytest.raises(MlopsFailed, match="Give a connection of type docker"):
        build(git_sha=sha, tag=tag, push=True)
    connection(PASSWORD)
    found = build(git_sha=sha, tag=tag, docker_conn_id="registry", push=True)
    assert found["pushed"] == f"{docker_registry.address}/team/churn@{found['digest']}"
    assert found["digest"] != found["id"]
    again = build(git_sha=sha, tag=tag, docker_conn_id="registry", push=True)
    assert (again["digest"], again["reused"]) == (found["digest"], True)
    assert "Layer already exists" in caplog.text
    # Another machine gets this very image by that name; here, after it was forgotten.
    for name in (tag, found["pushed"]):
        docker_engine.command("rmi", "--force", name)
    client = docker_engine.client
    try:
        login = {"username": LOGIN, "password": PASSWORD}
        client.pull(f"{docker_registry.address}/team/churn", found["digest"], auth_config=login)
    finally:
        client.close()
    assert said(docker_engine, found["pushed"]) == "pushed"
    monkeypatch.setenv("AIRFLOW_CONN_CHURN_CODE", json.dumps({"conn_type": "git", "host": str(repository.folder)}))
    text = EXAMPLE.read_text().replace("https://git.example.com/churn.git", str(repository.folder))
    names: dict[str, Any] = {}
    exec(compile(text, str(EXAMPLE), "exec"), names)
    checkout, image = (names["dag"].get_task(name) for name in ("checkout", "image"))
    image.context = checkout.execute(context)
    image.tag, image.build_args = f"{docker_registry.address}/team/churn:{sha[:12]}", {"BASE": base_image}
    assert image.execute(context)["digest"] == found["digest"]
    shown = caplog.text + "".join(capfd.readouterr()) + json.dumps(found) + docker_registry.log.read_text()
    for secret in (PASSWORD, "wrong-password", base64.b64encode(f"{LOGIN}:{PASSWORD}".encode()).decode()):
        assert secret not in shown
    nobody = f"127.0.0.1:{free_port()}"
    with pytest.raises(MlopsUnavailable, match="cannot be pushed now"):
        build(git_sha=sha, tag=f"{nobody}/team/churn:1", push=True)


def test_a_step_that_fails_is_named_with_what_it_said(repository: Repository, build: Any) -> None:
    broken = DOCKERFILE.replace('RUN echo "made', 'RUN echo "libfoo is missing" >&2; exit 3; echo "made')
    sha = repository.commit("broken", Dockerfile=broken, value_txt="x")
    with pytest.raises(MlopsFailed, match=r"Step 4/11 : RUN echo .* failed: .* code: 3.* It said: libfoo is missing"):
        build(git_sha=sha)
    sha = repository.commit("unreadable", Dockerfile=DOCKERFILE + "BOGUS line\n")
    with pytest.raises(MlopsFailed, match=r"unknown instruction: BOGUS"):
        build(git_sha=sha)
    sha = repository.commit("no such file", Dockerfile=DOCKERFILE.replace("COPY value.txt", "COPY absent.txt"))
    with pytest.raises(MlopsFailed, match=r"COPY absent\.txt"):
        build(git_sha=sha)


def test_what_cannot_be_built_says_why(repository: Repository, build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sha = repository.commit("one", Dockerfile=DOCKERFILE, value_txt="x")
    for more, text in (
        ({"git_sha": "0" * 40}, "has no commit"),
        ({"dockerfile": "Dockerfil", "git_sha": sha}, "did you mean 'Dockerfile'"),
        ({"dockerfile": "../x", "git_sha": sha}, "inside the context"),
        ({"subfolder": "absent", "git_sha": sha}, "no folder of the context"),
        ({"context": "absent"}, "there is no folder"),
        ({"context": "https://example.com/x.git"}, "needs git_sha"),
        ({"context": {"kind": "dataset"}}, "ref of a CheckoutCodeOperator"),
        ({"tag": "Upper Case"}, "lower case"),
        ({"build_args": None, "git_sha": sha}, "does not have the image 'nothing'"),
    ):
        with pytest.raises((MlopsFailed, MlopsUnavailable), match=text):
            build(**more)
    monkeypatch.setenv("DOCKER_HOST", "unix:///no/engine")
    with pytest.raises(MlopsUnavailable, match="does not answer"):
        build(git_sha=sha)
    with pytest.raises(ValueError, match="password in it"):
        BuildImageOperator(task_id="b", context="https://u:p@example.com/x.git", tag="t")
    with pytest.raises(ValueError, match="pull must be"):
        BuildImageOperator(task_id="b", context="x", tag="t", pull="never")


CHILD = """
import json, logging, sys
from pathlib import Path
from airflow_mlops.runtimes import image_build
from airflow_mlops.runtimes.docker_engine import engine_of
given = json.loads(sys.argv[1])
wanted = image_build.Build(folder=Path(given["folder"]), tag=given["tag"], arguments=given["arguments"], sha="a" * 40)
found, reused = image_build.build(engine_of(None), wanted, logging.getLogger())
print(found["Id"], reused)
"""


def test_killed_after_the_build_and_run_again_there_is_one_image(
    repository: Repository, context: Any, base_image: str, docker_engine: Engine
) -> None:
    repository.commit("one", Dockerfile=DOCKERFILE, value_txt="killed")
    given = {"folder": str(repository.folder), "tag": "mlops-test/killed:1", "arguments": {"BASE": base_image}}
    command = [sys.executable, "-c", CHILD, json.dumps(given)]
    crash = {**os.environ, "AIRFLOW_MLOPS_CRASH_AT": "image.built"}
    killed = subprocess.run(command, env=crash, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    image, reused = done.stdout.splitlines()[-1].split()
    client = docker_engine.client
    try:
        assert reused == "True"
        assert [one["Id"] for one in client.images(name="mlops-test/killed")] == [image]
    finally:
        client.remove_image(image, force=True)
        client.close()


def test_the_base_images_of_a_dockerfile() -> None:
    text = (
        "ARG VERSION=3.11\nARG FLAVOUR\nFROM --platform=linux/amd64 python:${VERSION}-slim AS Base\n"
        "FROM ${FLAVOUR:-debian} AS tools\nFROM scratch\nFROM base\nCOPY --from=tools /x /x\n"
    )
    assert bases_of(text, {}) == ["python:3.11-slim", "debian"]
    assert bases_of(text, {"VERSION": "3.13", "FLAVOUR": "alpine"}) == ["python:3.13-slim", "alpine"]
