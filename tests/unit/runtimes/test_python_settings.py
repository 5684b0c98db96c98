"""``runtime={"python": ...}``: which interpreter is meant, what is wrong with it, and what its process is given."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.core.errors import SpecError
from airflow_mlops.runtimes.python_settings import PythonSettings, settings_of


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """A folder that looks like a virtual environment."""
    (tmp_path / "bundle" / "envs" / "ml" / "bin").mkdir(parents=True)
    (tmp_path / "bundle" / "envs" / "ml" / "bin" / "python").symlink_to(sys.executable)
    return tmp_path / "bundle" / "envs" / "ml"


class TestSettings:
    def test_values_may_be_what_templates_render(self) -> None:
        found = settings_of({"python": " /opt/ml ", "inherit_environment": "False", "environment": {"N": 1, "U": None}})
        assert found == PythonSettings("/opt/ml", environment={"N": "1"}, inherit_environment=False)

    @pytest.mark.parametrize(
        ("more", "message"),
        [
            ({"python": ""}, r"runtime\['python'\] must be the path of an interpreter, got None"),
            ({"python": 3.12}, "must be the path of an interpreter, got 3.12"),
            ({"environment": "A=1"}, "must be an object of variables by name, got a str"),
            ({"environment": {"A B": "1"}}, "'A B' cannot be the name of a variable"),
            ({"private_environment": {"A": ["secret"]}}, "'A' cannot be .* with a text value"),
            ({"environment": {"A": "a\0b"}}, "'A' has a zero byte"),
            ({"code": "/src"}, r"runtime\['code'\] must be a list of folders"),
            ({"code": 7}, r"runtime\['code'\] must be a list of folders"),
            ({"inherit_environment": "perhaps"}, "must be True or False, got 'perhaps'"),
            ({"timeout": 3}, r"no key 'timeout'\. Keys: python, environment"),
        ],
    )
    def test_what_cannot_be_is_refused(self, more: dict[str, Any], message: str) -> None:
        with pytest.raises(SpecError, match=message):
            settings_of({"python": "/x", **more})

    def test_values_of_variables_do_not_show(self) -> None:
        found = settings_of({"python": "/x", "environment": {"A": "hush"}, "private_environment": {"B": "hush"}})
        assert "hush" not in repr(found)


class TestInterpreter:
    def test_a_path_of_an_interpreter(self) -> None:
        assert PythonSettings(sys.executable).interpreter([]) == Path(sys.executable)

    def test_a_virtual_environment(self, environment: Path) -> None:
        # The link is not followed: by it the environment is known.
        assert PythonSettings(str(environment)).interpreter([]) == environment / "bin" / "python"

    def test_a_path_in_the_home_folder(self, environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(environment.parent))
        assert PythonSettings("~/ml").interpreter([]) == environment / "bin" / "python"

    @pytest.mark.parametrize("given", ["envs/ml", "envs/ml/bin/python", "./envs/ml"])
    def test_a_path_relative_to_the_bundle_or_the_dag(self, environment: Path, tmp_path: Path, given: str) -> None:
        folders = [str(tmp_path / "elsewhere"), str(tmp_path / "bundle")]
        assert PythonSettings(given).interpreter(folders) == environment / "bin" / "python"

    def test_a_command_on_the_workers_path(self, environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (environment / "bin" / "python-for-ml").symlink_to(sys.executable)
        monkeypatch.setenv("PATH", str(environment / "bin"))
        assert PythonSettings("python-for-ml").interpreter(["/nowhere"]) == environment / "bin" / "python-for-ml"

    def test_one_that_is_not_there_is_said_with_how_to_make_it(self, tmp_path: Path) -> None:
        python = tmp_path / "ml" / "bin" / "python"
        with pytest.raises(SpecError, match=f"no interpreter {python}.*on every worker.*python -m venv {tmp_path}/ml$"):
            PythonSettings(str(python)).interpreter([])

    def test_a_command_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(SpecError, match=f"no interpreter {tmp_path}/python9, nor a command 'python9' on"):
            PythonSettings("python9").interpreter([str(tmp_path)])

    def test_one_whose_own_interpreter_was_removed(self, environment: Path) -> None:
        (environment / "bin" / "python").unlink()
        (environment / "bin" / "python").symlink_to("/opt/python3.1/bin/python")
        for given in (environment, environment / "bin" / "python"):
            with pytest.raises(SpecError, match=r"is a link to /opt/python3.1/bin/python, which is not there.*anew"):
                PythonSettings(str(given)).interpreter([])

    def test_a_folder_that_is_no_environment(self, tmp_path: Path) -> None:
        with pytest.raises(SpecError, match="is a folder, and no virtual environment: it has no bin/python"):
            PythonSettings(str(tmp_path)).interpreter([])

    def test_one_that_cannot_be_run(self, tmp_path: Path) -> None:
        shutil.copy(sys.executable, tmp_path / "python")
        (tmp_path / "python").chmod(0o644)
        with pytest.raises(SpecError, match=f"not executable by the worker's user.*chmod \\+x {tmp_path}/python"):
            PythonSettings(str(tmp_path / "python")).interpreter([])


class TestVariables:
    @pytest.fixture(autouse=True)
    def _worker(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in {
            "AIRFLOW__CORE__FERNET_KEY": "hush",
            "AIRFLOW_CONN_DB": "hush",
            "AIRFLOW_VAR_X": "hush",
            "AIRFLOW_HOME": "/airflow",
            "_AIRFLOW_PROCESS_CONTEXT": "client",
            "VIRTUAL_ENV": "/worker",
            "CONDA_PREFIX": "/worker",
            "PYTHONPATH": "/worker/lib",
            "PYTHONHOME": "/worker",
            "PYTHONHASHSEED": "1",
            "HTTPS_PROXY": "http://proxy",
        }.items():
            monkeypatch.setenv(name, value)

    def test_the_workers_own_are_kept_back(self) -> None:
        found = PythonSettings("/x").variables({}, Path("/ml/bin/python"))
        assert "hush" not in found.values()
        assert not [name for name in found if "AIRFLOW" in name or "/worker" in found[name]]
        assert (found["HTTPS_PROXY"], found["PYTHONHASHSEED"]) == ("http://proxy", "1")

    def test_all_of_the_workers_may_be_kept_back(self) -> None:
        found = PythonSettings("/x", inherit_environment=False).variables({}, Path("/ml/bin/python"))
        assert "HTTPS_PROXY" not in found
        assert found["HOME"] == os.environ["HOME"]

    def test_programs_of_the_environment_come_first(self) -> None:
        found = PythonSettings("/x").variables({}, Path("/ml/bin/python"))
        assert found["PATH"] == f"/ml/bin{os.pathsep}{os.environ['PATH']}"

    def test_credentials_count_more_than_the_users_which_count_more_than_the_workers(self) -> None:
        settings = PythonSettings("/x", {"HTTPS_PROXY": "mine", "A": "mine"}, {"A": "private", "B": "private"})
        found = settings.variables({"B": "credential"}, Path("/ml/bin/python"))
        assert (found["HTTPS_PROXY"], found["A"], found["B"]) == ("mine", "private", "credential")
