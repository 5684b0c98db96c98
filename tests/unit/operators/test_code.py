"""CheckoutCodeOperator: the right commit, as it was committed, in an environment of its own, acted on once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSkipException

import airflow_mlops
from airflow_mlops.core.code import checkout
from airflow_mlops.core.faults import CRASH_POINTS, VARIABLE
from airflow_mlops.exceptions import MlopsFailed, MlopsUnavailable
from airflow_mlops.operators.code import CheckoutCodeOperator
from servers.git import LOGIN, PASSWORD, GitServer, Repository


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__MLOPS__HOME", str(tmp_path / "mlops"))


def context(tmp_path: Path, *told: dict[str, Any], run: str = "r1") -> Any:
    events = [SimpleNamespace(extra=extra, timestamp=str(number)) for number, extra in enumerate(told)]
    ti = SimpleNamespace(
        bundle_instance=SimpleNamespace(path=tmp_path), dag_id="project", task_id="checkout", run_id=run, map_index=-1
    )
    return {
        "ti": ti,
        "dag": SimpleNamespace(fileloc=str(tmp_path / "dag.py")),
        "triggering_asset_events": {"code": events} if told else {},
    }


def operator(**more: Any) -> CheckoutCodeOperator:
    return CheckoutCodeOperator(
        **{"task_id": "checkout", "repository": "project", "ref": "main", "requirements": None, **more}
    )


def watched(sha: str, **more: Any) -> dict[str, Any]:
    return {
        "from_trigger": True,
        "payload": {"kind": "commit", "id": sha, "sha": sha, "ref": "refs/heads/main", **more},
    }


def test_which_commit_counts(repository: Repository, tmp_path: Path) -> None:
    one, two, three = (repository.commit(name, value_txt=name) for name in ("one", "two", "three"))
    tip = operator().execute(context(tmp_path))
    assert (tip["sha"], tip["subject"], tip["python"]) == (three, "three", None)
    assert (Path(tip["path"]) / "value.txt").read_text() == "three"
    told = operator().execute(context(tmp_path, watched(one), watched(two, subject="two")))
    assert (told["sha"], told["subject"]) == (two, "two"), "the newest of the events"
    assert (Path(told["path"]) / "value.txt").read_text() == "two"
    posted = operator().execute(context(tmp_path, {"from_rest_api": True, "sha": one}, run="r2"))
    assert posted["sha"] == one
    asked = operator(sha=two.upper()).execute(context(tmp_path, watched(three), run="r3"))
    assert asked["sha"] == two, "what is asked for comes first"
    assert asked["path"] == told["path"]


def test_a_commit_is_acted_on_once_unless_somebody_asks(repository: Repository, tmp_path: Path) -> None:
    sha = repository.commit("one")
    operator().execute(context(tmp_path, watched(sha), run="first"))
    operator().execute(context(tmp_path, watched(sha), run="first"))  # a retry, or cleared
    with pytest.raises(AirflowSkipException, match="the run first has acted on"):
        operator().execute(context(tmp_path, watched(sha), run="told-again"))
    operator(sha=sha).execute(context(tmp_path, run="by-hand"))
    operator(once=False).execute(context(tmp_path, watched(sha), run="each-time"))
    # What a CI asked for is not done again for the event that follows.
    other = repository.commit("two")
    operator(sha=other).execute(context(tmp_path, run="ci"))
    with pytest.raises(AirflowSkipException, match="the run ci"):
        operator().execute(context(tmp_path, watched(other), run="event"))


def test_a_working_copy_is_the_commit_whatever_was_left_in_it(repository: Repository, tmp_path: Path) -> None:
    sha = repository.commit("one", value_txt="1", pkg__mod_py="x = 1\n")
    place = Path(operator(sha=sha).execute(context(tmp_path))["path"])
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run([sys.executable, "-c", "import pkg.mod"], cwd=place, env=kept, check=True)
    assert list(place.rglob("*.pyc")), "what Python leaves is no change"
    assert repository.git("-C", str(place), "status", "--porcelain") == ""
    (place / "value.txt").write_text("changed")
    (place / "left.txt").write_text("left")
    operator(sha=sha).execute(context(tmp_path, run="r2"))
    assert (place / "value.txt").read_text() == "1"
    assert not (place / "left.txt").exists()
    assert repository.git("-C", str(place), "rev-parse", "HEAD") == sha


def test_a_commit_of_another_branch_and_one_that_is_nowhere(
    repository: Repository, git_server: GitServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.commit("one")
    repository.git("checkout", "--quiet", "-b", "feature")
    sha = repository.commit("draft")
    connection = f'{{"conn_type": "git", "host": "{git_server.url(repository)}", "login": "{LOGIN}", '
    monkeypatch.setenv("AIRFLOW_CONN_CODE", connection + f'"password": "{PASSWORD}"}}')
    found = operator(repository=None, git_conn_id="code", sha=sha).execute(context(tmp_path))
    assert found["repository"] == git_server.url(repository)
    assert PASSWORD not in (Path(found["path"]) / ".git" / "config").read_text()
    with pytest.raises(MlopsFailed, match="has no commit"):
        operator(sha="0" * 40).execute(context(tmp_path))
    with pytest.raises(MlopsFailed, match="full sha"):
        operator(sha="main").execute(context(tmp_path))
    with pytest.raises(MlopsFailed, match="has no absent"):
        operator(ref="absent").execute(context(tmp_path))
    with pytest.raises(MlopsUnavailable, match="cannot be reached now"):
        operator(repository="http://127.0.0.1:9/x.git", sha=sha).execute(context(tmp_path, run="r2"))


def wheel(folder: Path) -> None:
    """Write a package that no index has."""
    with zipfile.ZipFile(folder / "tiny_thing-1.0-py3-none-any.whl", "w") as file:
        file.writestr("tiny_thing.py", "VALUE = 7\n")
        file.writestr("tiny_thing-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-thing\nVersion: 1.0\n")
        file.writestr(
            "tiny_thing-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        file.writestr("tiny_thing-1.0.dist-info/RECORD", "")


def test_the_environment_has_the_commits_packages_over_the_workers(repository: Repository, tmp_path: Path) -> None:
    wheel(repository.folder)
    requirements = "./tiny_thing-1.0-py3-none-any.whl\nnumpy\n"
    first = operator(requirements="requirements.txt")
    repository.commit("one", requirements_txt=requirements)
    python = first.execute(context(tmp_path))["python"]
    code = "import tiny_thing, numpy, mlflow.version, sys; print(tiny_thing.VALUE, tiny_thing.__file__, sys.prefix)"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    value, file, prefix = done.stdout.split()
    assert value == "7"
    assert file.startswith(prefix)
    assert prefix != sys.prefix
    # Commits with the same requirements share it.
    repository.commit("two", other_txt="x")
    assert first.execute(context(tmp_path, run="r2"))["python"] == python
    repository.commit("three", requirements_txt="this-package-is-nowhere-at-all==1.0\n")
    with pytest.raises((MlopsFailed, MlopsUnavailable), match=r"cannot be installed.*this-package-is-nowhere-at-all"):
        first.execute(context(tmp_path, run="r3"))
    repository.git("rm", "--quiet", "requirements.txt")
    repository.commit("four", other_txt="y")
    with pytest.raises(MlopsFailed, match=r"the commit has no requirements\.txt"):
        first.execute(context(tmp_path, run="r4"))


def test_a_worker_without_pip_gets_one_for_the_environment(
    bare_python: Path, repository: Repository, tmp_path: Path
) -> None:
    """As where the worker's own environment was made by uv."""
    wheel(repository.folder)
    sha = repository.commit("one", requirements_txt="./tiny_thing-1.0-py3-none-any.whl\n")
    command = [str(bare_python), "-c", CHILD, str(repository.folder), sha, str(tmp_path / "work")]
    where = {**os.environ, "PYTHONPATH": str(Path(airflow_mlops.__file__).parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=where)
    assert done.returncode == 0, done.stderr[-2000:]
    _, python = done.stdout.split()
    assert subprocess.run([python, "-c", "import tiny_thing"], check=False).returncode == 0


CHILD = """
import logging, sys
from pathlib import Path
from airflow_mlops.core.code import checkout
from airflow_mlops.core.code.git import access_of
place = checkout.checkout(access_of(sys.argv[1]), sys.argv[2], "main", Path(sys.argv[3]) / "c", logging.getLogger())
print(place, checkout.environment(place, "requirements.txt", Path(sys.argv[3]) / "e", logging.getLogger()))
"""


@pytest.mark.parametrize("point", CRASH_POINTS["checkout_code"])
def test_killed_and_run_again_it_is_one_clean_run(repository: Repository, tmp_path: Path, point: str) -> None:
    sha = repository.commit("one", requirements_txt="numpy\n", value_txt="1")
    command = [sys.executable, "-c", CHILD, str(repository.folder), sha, str(tmp_path / "work")]
    killed = subprocess.run(command, env={**os.environ, VARIABLE: point}, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    place, python = done.stdout.split()
    assert (Path(place) / "value.txt").read_text() == "1"
    assert subprocess.run([python, "-c", "import numpy"], check=False).returncode == 0
    assert sorted(one.name for one in (tmp_path / "work" / "c").iterdir()) == sorted([".locks", Path(place).name])


def test_old_working_copies_go_and_what_was_used_today_stays(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkout, "KEEP", 2)
    places = []
    for number in range(4):
        sha = repository.commit(str(number))
        places.append(Path(operator(sha=sha).execute(context(tmp_path, run=f"r{number}"))["path"]))
        os.utime(places[-1], (number, number)) if number < 2 else None
    assert [place.exists() for place in places] == [False, False, True, True]


def test_mistakes_are_refused_where_they_are_written() -> None:
    with pytest.raises(ValueError, match="password in it"):
        operator(repository="https://u:p@example.com/x.git")
    with pytest.raises(ValueError, match="repository or git_conn_id"):
        operator(repository=None)
    assert isinstance(CheckoutCodeOperator.template_fields, tuple)
