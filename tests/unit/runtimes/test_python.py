"""A step in an interpreter of its own: what it is told, what it says, how it ends, and that nothing is left of it."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG, task

from airflow_mlops.core.errors import CrashedError, MissingExtraError, SpecError, StoppedError
from airflow_mlops.exceptions import MlopsFailed, MlopsUnavailable
from airflow_mlops.operators.data import SnapshotDataOperator
from airflow_mlops.operators.training import TrainModelOperator
from airflow_mlops.runtimes import python
from airflow_mlops.runtimes.base import Job
from airflow_mlops.runtimes.python import PythonRuntime

log = logging.getLogger("tests.python")

#: Python runs this module in each process that finds it.
HOOK = """
import os, signal, subprocess, sys, time
done = []

def before(event, arguments):
    if event == "import" and arguments[0] == "airflow_mlops.core.steps" and not done:
        done.append(event)
        first()

def first():
    {first}

sys.addaudithook(before)
"""


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that temporary files are made in."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


@pytest.fixture
def job(tmp_path: Path) -> Callable[..., Job]:
    """Make the job of a snapshot; the step's Python runs ``first`` before the step."""
    (tmp_path / "rows.csv").write_text("id,age\n1,41\n2,17\n3,33\n")

    def make(first: str = "", variables: dict[str, str] | None = None, **args: Any) -> Job:
        code = tmp_path / "code"
        code.mkdir(exist_ok=True)
        (code / "sitecustomize.py").write_text(HOOK.format(first=first or "pass"))
        spec = {
            "step": "snapshot_data",
            "args": {"source": str(tmp_path / "rows.csv"), "name": "people", **args},
            "store": (tmp_path / "store").as_uri(),
            "key": "etl/r/snapshot/-1",
        }
        return Job(spec, variables or {}, (str(code),))

    return make


def run(job: Job, **settings: Any) -> dict[str, Any]:
    return PythonRuntime({"python": sys.executable, **settings}).run(job, log)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(condition: Callable[[], Any], seconds: float = 120) -> Any:
    """Return the condition's first true value."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("waited in vain")


class TestRun:
    def test_the_result_is_that_of_the_step_and_nothing_is_left(self, job: Any, scratch: Path, caplog: Any) -> None:
        with caplog.at_level(logging.INFO):
            found = run(job())
        assert (found["kind"], found["rows"]) == ("dataset", 3)
        assert Path(found["uri"].removeprefix("file://")).is_file()
        assert list(scratch.iterdir()) == []
        assert f"The step runs in {sys.executable}" in caplog.messages
        assert {record.levelno for record in caplog.records} == {logging.INFO}

    def test_lines_come_as_they_are_said_at_their_level(self, job: Any, tmp_path: Path, caplog: Any) -> None:
        go = tmp_path / "go"
        first = (
            "print('said', flush=True); import logging, airflow_mlops.core.__main__ as main;"
            "main._log_to_standard_error(); logging.warning('beware')\n"
            f"    while not os.path.exists({str(go)!r}): time.sleep(.05)"
        )

        class Goes(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                if record.getMessage() == "beware":
                    go.touch()

        handler = Goes()
        log.addHandler(handler)
        try:
            with caplog.at_level(logging.INFO):
                run(job(first))
        finally:
            log.removeHandler(handler)
        assert [record.levelname for record in caplog.records if record.getMessage() == "beware"] == ["WARNING"]
        assert caplog.messages.index("said") < caplog.messages.index("beware")

    def test_it_sees_the_code_of_the_bundle_and_none_of_the_worker(self, job: Any, tmp_path: Path, caplog: Any) -> None:
        (tmp_path / "code").mkdir()
        (tmp_path / "code" / "team.py").write_text("print('of the team')")
        first = "import team, airflow_mlops; print('' in sys.path, airflow_mlops.__file__)"
        with caplog.at_level(logging.INFO):
            run(job(first))
        assert "of the team" in caplog.messages
        assert re.search(r"/core\.zip/airflow_mlops/__init__\.py", caplog.text)

    def test_code_may_be_elsewhere(self, job: Any, tmp_path: Path, caplog: Any) -> None:
        (tmp_path / "src").mkdir()
        (tmp_path / "src" / "sitecustomize.py").write_text("print('of src')")
        with caplog.at_level(logging.INFO):
            run(job("print('of the bundle')"), code=[str(tmp_path / "src")])
        assert "of src" in caplog.messages
        assert "of the bundle" not in caplog.messages

    def test_its_temporary_files_are_removed(self, job: Any, scratch: Path, caplog: Any) -> None:
        first = "import tempfile; print(tempfile.mkdtemp())"
        with caplog.at_level(logging.INFO):
            run(job(first))
        (made,) = [text for text in caplog.messages if text.startswith(str(scratch))]
        assert not Path(made).exists()
        assert list(scratch.iterdir()) == []


class TestSecrets:
    def test_they_are_in_no_argument_no_file_and_no_line(
        self, job: Any, scratch: Path, caplog: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "hush-hush-0")
        monkeypatch.setenv("AIRFLOW_CONN_DB", "postgres://me:hush-hush-0@db/x")
        seen: list[str] = []

        class Looks(logging.Handler):
            """Reads what others can read of the process while it runs."""

            def emit(self, record: logging.LogRecord) -> None:
                text = record.getMessage()
                if text.startswith("pid "):
                    seen.append(Path(f"/proc/{text[4:]}/cmdline").read_text())
                    files = (path for path in scratch.rglob("*") if path.is_file())
                    seen.extend(path.read_bytes().decode("latin-1") for path in files)
                    seen.extend(oct(path.stat().st_mode & 0o77) for path in scratch.iterdir())

        first = (
            "print([os.environ[n] for n in ('MLFLOW_TRACKING_PASSWORD', 'DB_PASSWORD', 'LICENCE')]);"
            "print([n for n in os.environ if n.startswith('AIRFLOW_')]); print('pid', os.getpid(), flush=True)"
        )
        handler = Looks()
        log.addHandler(handler)
        try:
            with caplog.at_level(logging.INFO):
                run(
                    job(first, {"MLFLOW_TRACKING_PASSWORD": "hush-hush-1"}),
                    environment={"DB_PASSWORD": "hush-hush-2"},
                    private_environment={"LICENCE": "hush-hush-3\nsecond line"},
                )
        finally:
            log.removeHandler(handler)
        assert "--spec" in seen[0]
        assert any("snapshot_data" in text for text in seen)
        assert "0o0" in seen
        assert not [text for text in (*seen, caplog.text) if "hush-hush" in text]
        assert "['***', '***', '***\\n***']" in caplog.messages
        assert "[]" in caplog.messages

    def test_they_are_not_in_an_error(self, job: Any) -> None:
        first = "print(os.environ['DB_PASSWORD'], flush=True); os._exit(3)"
        with pytest.raises(CrashedError, match=r"exit code 3.*Its last lines: \*\*\*$"):
            run(job(first), environment={"DB_PASSWORD": "hush-hush"})


class TestFaults:
    def test_an_error_of_the_step_comes_back_as_it_is(self, job: Any, scratch: Path) -> None:
        with pytest.raises(SpecError) as caught:
            run(job(nam="x"))
        assert caught.value.message == "snapshot_data has no argument 'nam'; did you mean 'name'?"
        assert list(scratch.iterdir()) == []

    def test_one_that_ends_without_a_report(self, job: Any) -> None:
        lines = "; ".join(f"print('line {number}')" for number in range(20))
        with pytest.raises(CrashedError) as caught:
            run(job(f"{lines}; sys.stdout.flush(); os._exit(3)"))
        assert caught.value.message == (
            f"the step in {sys.executable} ended with exit code 3 and left no report of the step. Its last lines: "
            + " | ".join(f"line {number}" for number in range(8, 20))
        )
        assert caught.value.fields == {"exit_code": 3}

    def test_one_that_crashes_its_interpreter(self, job: Any) -> None:
        with pytest.raises(StoppedError, match="was ended by signal 11, from outside or by a crash") as caught:
            run(job("import ctypes; ctypes.string_at(0)"))
        assert caught.value.retryable

    def test_a_library_that_it_lacks_is_said_with_how_to_install_it(self, job: Any, bare_python: Path) -> None:
        with pytest.raises(MissingExtraError) as caught:
            run(job(), python=str(bare_python))
        message = caught.value.message
        assert f"'pyarrow', which is not installed in {bare_python}; run: uv pip install --python" in message
        assert re.search(rf"--python {bare_python} 'numpy>=[\d.]+' 'pyarrow>=[\d.]+'$", message)
        assert caught.value.fields["library"] == "pyarrow"
        assert not caught.value.retryable

    def test_one_that_has_pip_is_told_of_pip(self, job: Any) -> None:
        code = "sys.modules['pyarrow'] = None"
        with pytest.raises(MissingExtraError, match=rf"{sys.executable} -m pip install "):
            run(job(code))

    def test_a_library_that_the_users_code_imports(self, job: Any, tmp_path: Path) -> None:
        (tmp_path / "code").mkdir()
        (tmp_path / "code" / "team.py").write_text("import cv2_of_nobody")
        made = job()
        made.spec.update(step="train_model", args={"dataset": made.spec["args"]["source"], "trainer": "team:train"})
        with pytest.raises(SpecError, match=r"no module 'cv2_of_nobody'.* install cv2-of-nobody\)"):
            run(made)

    def test_a_program_that_is_no_python(self, job: Any) -> None:
        with pytest.raises(SpecError, match=r"/true does not start as Python does \(exit code 0\)"):
            run(job(), python="/bin/true")

    def test_a_file_that_is_no_program(self, job: Any, tmp_path: Path) -> None:
        (tmp_path / "python").write_text("not a program")
        (tmp_path / "python").chmod(0o755)
        with pytest.raises(SpecError, match=r"python cannot be started: .*Exec format error"):
            run(job(), python=str(tmp_path / "python"))

    def test_a_python_that_does_not_start(self, job: Any) -> None:
        with pytest.raises(SpecError, match=r"does not start as Python does.*It said: .*encodings"):
            run(job(), environment={"PYTHONHOME": "/nowhere"})

    def test_a_python_that_is_too_old(self, job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(python, "OLDEST_PYTHON", (3, 99))
        version = ".".join(map(str, sys.version_info[:3]))
        with pytest.raises(SpecError, match=f"is Python {version}, and a step needs at least 3.99.*'image'") as caught:
            run(job())
        assert caught.value.fields["version"] == version

    def test_a_callable_that_cannot_go_there(self, job: Any, scratch: Path) -> None:
        with pytest.raises(SpecError, match=r"trainer: .*<lambda> .*cannot be imported by another process"):
            run(job(trainer=lambda X, y: None))
        assert list(scratch.iterdir()) == []


class TestKilled:
    #: It has a child in its group and one in a session of its own, and tells who they are.
    FAMILY = (
        "import tempfile; tempfile.mkdtemp()\n"
        "    sleeps = lambda **o: subprocess.Popen(['sleep', '600'], stdout=subprocess.DEVNULL, **o).pid\n"
        "    print('pids', os.getpid(), os.getppid(), sleeps(), sleeps(start_new_session=True), flush=True)\n"
        "    {more}time.sleep(600)"
    )

    @pytest.mark.parametrize("stubborn", [False, True])
    def test_cancelled_it_ends_with_all_that_it_started(self, job: Any, scratch: Path, stubborn: bool) -> None:
        more = "signal.signal(signal.SIGTERM, signal.SIG_IGN); " if stubborn else ""
        runtime = PythonRuntime({"python": sys.executable})
        pids: list[int] = []

        class Cancels(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                if record.getMessage().startswith("pids "):
                    pids.extend(map(int, record.getMessage().split()[1:]))
                    assert all(map(alive, pids))
                    runtime.cancel()

        handler = Cancels()
        log.addHandler(handler)
        try:
            with pytest.raises(StoppedError, match="was stopped before it ended: the task was cancelled"):
                runtime.run(job(self.FAMILY.format(more=more)), log)
        finally:
            log.removeHandler(handler)
        assert len(pids) == 4
        wait_for(lambda: not any(map(alive, pids)))
        assert list(scratch.iterdir()) == []

    def test_cancelled_before_it_began_it_does_not_begin(self, job: Any, tmp_path: Path) -> None:
        runtime = PythonRuntime({"python": sys.executable})
        runtime.cancel()
        with pytest.raises(StoppedError, match="the task was cancelled"):
            runtime.run(job("time.sleep(600)"), log)
        assert not (tmp_path / "store").exists()

    def test_an_exception_in_the_task_ends_it_too(self, job: Any, scratch: Path) -> None:
        """As the one does that Airflow raises when the task's time is up."""
        pids: list[int] = []

        class Raises(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                if record.getMessage().startswith("pids "):
                    pids.extend(map(int, record.getMessage().split()[1:]))
                    raise TimeoutError("its time is up")

        handler = Raises()
        log.addHandler(handler)
        try:
            with pytest.raises(TimeoutError):
                run(job(self.FAMILY.format(more="")))
        finally:
            log.removeHandler(handler)
        wait_for(lambda: not any(map(alive, pids)))
        assert list(scratch.iterdir()) == []

    @pytest.mark.parametrize("who", ["worker", "step"])
    def test_killed_it_leaves_neither_a_process_nor_a_file(
        self, job: Any, tmp_path: Path, scratch: Path, who: str
    ) -> None:
        made = job(self.FAMILY.format(more=""))
        (tmp_path / "job.json").write_text(json.dumps({"spec": made.spec, "code": made.code}))
        worker = (
            "import json, logging, sys\n"
            "from airflow_mlops.runtimes.base import Job\n"
            "from airflow_mlops.runtimes.python import PythonRuntime\n"
            "logging.basicConfig(level=logging.INFO, stream=sys.stdout, format='%(message)s')\n"
            "given = json.load(open(sys.argv[1]))\n"
            "job = Job(given['spec'], {}, tuple(given['code']))\n"
            "PythonRuntime({'python': sys.executable}).run(job, logging.getLogger())\n"
        )
        started = subprocess.Popen(
            [sys.executable, "-c", worker, str(tmp_path / "job.json")],
            env={**os.environ, "TMPDIR": str(scratch)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert started.stdout
            line = next(line for line in started.stdout if line.startswith("pids "))
            pids = list(map(int, line.split()[1:]))
            assert list(scratch.iterdir()) != []
            if who == "worker":
                started.kill()
            else:
                os.kill(pids[0], signal.SIGKILL)
            _, said = started.communicate(timeout=120)
            wait_for(lambda: not any(map(alive, pids)))
            wait_for(lambda: list(scratch.iterdir()) == [])
        finally:
            started.kill()
            started.wait()
        if who == "step":
            assert "was ended by signal 9, usually because the machine ran out of memory" in said
            assert started.returncode == 1
        else:
            assert started.returncode == -signal.SIGKILL


class TestOperator:
    @pytest.fixture
    def context(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
        monkeypatch.setenv("AIRFLOW__MLOPS__HOME", str(tmp_path / "home"))
        ti = SimpleNamespace(dag_id="etl", run_id="r1", task_id="x", map_index=-1, try_number=1)
        return {"ti": ti, "dag": SimpleNamespace(fileloc=str(tmp_path / "code" / "dag.py"), dag_id="etl")}

    def test_on_kill_ends_the_step_and_a_retry_may_come(self, job: Any, context: Any, scratch: Path) -> None:
        source = job(TestKilled.FAMILY.format(more="")).spec["args"]["source"]
        operator = SnapshotDataOperator(task_id="x", source=source, name="people", runtime={"python": sys.executable})
        pids: list[int] = []

        class Kills(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                if record.getMessage().startswith("pids "):
                    pids.extend(map(int, record.getMessage().split()[1:]))
                    operator.on_kill()

        handler = Kills()
        logging.getLogger("airflow_mlops.task").addHandler(handler)
        try:
            with pytest.raises(MlopsUnavailable, match="the task was cancelled"):
                operator.execute(context)
        finally:
            logging.getLogger("airflow_mlops.task").removeHandler(handler)
        wait_for(lambda: not any(map(alive, pids)))
        assert len(pids) == 4
        assert list(scratch.iterdir()) == []

    def test_a_result_is_what_it_is_in_the_tasks_process(self, job: Any, context: Any) -> None:
        source = job().spec["args"]["source"]
        there, here = (
            SnapshotDataOperator(task_id="x", source=source, name="people", runtime=runtime).execute(context)
            for runtime in ({"python": sys.executable}, None)
        )
        assert there == here

    def test_a_function_that_cannot_go_there_is_not_retried(self, job: Any, context: Any) -> None:
        source = job().spec["args"]["source"]

        def train(**more: Any) -> None:
            made = {"task_id": "x", "dataset": source, "target": "age", "runtime": {"python": sys.executable}}
            TrainModelOperator(**made, **more).execute(context)

        with pytest.raises(MlopsFailed, match=r"trainer: .*<lambda>.*pass 'module:function'.*@task.train_model"):
            train(trainer=lambda X, y: None)
        with pytest.raises(MlopsFailed, match=r"features: .*<lambda>.*cannot be imported by another process"):
            train(trainer="json:dumps", features=lambda X: X)

    def test_a_decorated_function_that_uses_its_file_is_told_what(self, job: Any, context: Any) -> None:
        def forest(X: Any, y: Any) -> Any:
            return log.name, X, y

        source = job().spec["args"]["source"]
        with DAG("etl", schedule=None):
            operator = task.train_model(dataset=source, target="age", runtime={"python": sys.executable})(
                forest
            )().operator
        with pytest.raises(MlopsFailed, match=r"forest uses log from outside itself.*import and define inside"):
            operator.execute(context)


def test_two_at_once_in_one_process_do_not_mix(job: Any, tmp_path: Path, scratch: Path) -> None:
    found: list[dict[str, Any]] = []
    first = job()
    threads = [threading.Thread(target=lambda: found.append(run(first))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2
    assert found[0]["digest"] == found[1]["digest"]
    assert list(scratch.iterdir()) == []
