"""The user's process: what it prints is passed on without secrets, and nothing of it outlives the step."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.core.errors import SpecError, StoppedError
from airflow_mlops.core.training import process

log = logging.getLogger("airflow_mlops")


def run(code: str, cwd: Path, **variables: str) -> process.Ended:
    return process.run(["python", "-c", code], cwd=cwd, variables=variables, log=log)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def gone(pid: int, within: float = 20) -> bool:
    end = time.monotonic() + within
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.05)
    return not alive(pid)


def test_output_goes_to_the_log_line_by_line_and_the_exit_code_comes_back(tmp_path: Path, caplog: Any) -> None:
    with caplog.at_level(logging.INFO):
        ended = run("import sys; print('fitting'); print('10%\\r50%\\r100%', file=sys.stderr); sys.exit(3)", tmp_path)

    assert ended.code == 3
    assert sorted(ended.tail) == ["100%", "fitting"]
    assert {"| fitting", "| 100%"} <= set(caplog.messages)


def test_lines_come_while_it_runs(tmp_path: Path, caplog: Any) -> None:
    go_on = tmp_path / "go_on"
    code = f"import os, time; print('first')\nwhile not os.path.exists({str(go_on)!r}): time.sleep(0.01)"

    class Signal(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage() == "| first":
                go_on.touch()

    handler = Signal()
    log.addHandler(handler)
    try:
        with caplog.at_level(logging.INFO):
            assert run(code, tmp_path).code == 0
    finally:
        log.removeHandler(handler)


def test_secrets_do_not_show(tmp_path: Path, caplog: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter2/öffnen")
    monkeypatch.setenv("MLOPS_S3_STORE", '{"key": "AKIA", "secret": "s3cr3t/key+of"}')
    monkeypatch.setenv("AIRFLOW_CONN_DB", "postgres://me:pa55word@db/x")
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "0123456789")
    monkeypatch.setenv("WAREHOUSE", "postgresql://me:pa55word@db/x")
    code = (
        "import os; print(os.environ['MLFLOW_TRACKING_PASSWORD'], 'hunter2%2F%C3%B6ffnen', 's3cr3t%2Fkey%2Bof');"
        "print('see https://user:token@host/x', 'pa55word');"
        "print([k for k in os.environ if k.startswith(('MLOPS_', 'AIRFLOW__', 'AIRFLOW_CONN_'))])"
    )
    with caplog.at_level(logging.INFO):
        ended = run(code, tmp_path)

    assert list(ended.tail) == ["*** *** ***", "see https://host/x ***", "[]"]
    for secret in ("hunter2", "s3cr3t", "pa55word", "token"):
        assert secret not in caplog.text


def test_a_secret_of_several_lines_does_not_show(tmp_path: Path, caplog: Any) -> None:
    key = "-----BEGIN KEY-----\nc2VjcmV0LW9uZQ\nc2VjcmV0LXR3bw\n"
    with caplog.at_level(logging.INFO):
        run("import os; print(os.environ['SIGNING_KEY'])", tmp_path, SIGNING_KEY=key)
    assert caplog.messages.count("| ***") == 3


def test_a_long_line_is_cut(tmp_path: Path, caplog: Any) -> None:
    with caplog.at_level(logging.INFO):
        run("print('x' * 5000); print('\\r'.join(['y' * 1000] * 300), end='')", tmp_path)
    assert "(5,000 characters)" in caplog.text
    assert max(map(len, caplog.messages)) < 2100


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"the command nonesuch cannot be started: .*No such file"):
        process.run(["nonesuch", "x"], cwd=tmp_path, variables={}, log=log)


def test_python_is_the_interpreter_of_the_step(tmp_path: Path) -> None:
    assert run("import sys; print(sys.prefix)", tmp_path).tail == (sys.prefix,)


def test_what_it_leaves_running_is_killed(tmp_path: Path) -> None:
    code = (
        "import subprocess; p = subprocess.Popen(['sleep', '300'], start_new_session=True, stdout=subprocess.DEVNULL);"
        "print(p.pid)"
    )
    assert gone(int(run(code, tmp_path).tail[-1]))


@pytest.mark.parametrize("stubborn", [False, True])
def test_it_can_be_stopped_with_all_that_it_started(tmp_path: Path, stubborn: bool) -> None:
    pids = tmp_path / "pids"
    ignore = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" if stubborn else ""
    code = (
        f"{ignore}import os, subprocess, time; p = subprocess.Popen(['sleep', '300'], start_new_session=True);"
        f"open({str(pids)!r} + '.tmp', 'w').write(f'{{os.getpid()}} {{p.pid}}');"
        f"os.rename({str(pids)!r} + '.tmp', {str(pids)!r}); time.sleep(300)"
    )

    def stop() -> None:
        while not pids.exists():
            time.sleep(0.02)
        process.stop_all()

    stopper = threading.Thread(target=stop)
    stopper.start()
    with pytest.raises(StoppedError, match="the task was cancelled"):
        run(code, tmp_path)
    stopper.join()
    assert all(gone(int(pid)) for pid in pids.read_text().split())
    assert not process._running


def test_it_may_clean_up_when_it_is_stopped(tmp_path: Path) -> None:
    ready, cleaned = tmp_path / "ready", tmp_path / "cleaned"
    code = (
        "import signal, sys, time\n"
        f"signal.signal(signal.SIGTERM, lambda *_: (open({str(cleaned)!r}, 'w').close(), sys.exit(0)))\n"
        f"open({str(ready)!r}, 'w').close()\ntime.sleep(300)"
    )

    def stop() -> None:
        while not ready.exists():
            time.sleep(0.02)
        process.stop_all()

    threading.Thread(target=stop).start()
    with pytest.raises(StoppedError):
        run(code, tmp_path)
    assert cleaned.exists()


def test_it_may_clean_up_when_a_signal_ends_the_step(tmp_path: Path) -> None:
    """The step runs in a process of its own, as in another interpreter or a container."""
    ready, cleaned = tmp_path / "ready", tmp_path / "cleaned"
    script = (
        "import signal, sys, time\n"
        f"signal.signal(signal.SIGTERM, lambda *_: (open({str(cleaned)!r}, 'w').close(), sys.exit(0)))\n"
        f"open({str(ready)!r}, 'w').close()\ntime.sleep(300)"
    )
    step = (
        "import logging, pathlib, signal; from airflow_mlops.core.errors import StoppedError\n"
        "from airflow_mlops.core.training import process\n"
        "here, log = pathlib.Path('.'), logging.getLogger()\n"
        f"try: process.run(['python', '-c', {script!r}], cwd=here, variables={{}}, log=log)\n"
        "except StoppedError: print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)"
    )
    started = subprocess.Popen([sys.executable, "-c", step], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    try:
        while not ready.exists():
            assert started.poll() is None
            time.sleep(0.05)
        started.terminate()
        assert started.communicate(timeout=120)[0] == "True\n"
    finally:
        started.kill()
        started.wait()
    assert cleaned.exists()


@pytest.mark.parametrize("who", ["worker", "guard"])
def test_it_dies_with_the_worker(tmp_path: Path, who: str) -> None:
    pids = tmp_path / "pids"
    child = (
        "import os, subprocess, time; p = subprocess.Popen(['sleep', '300']);"
        f"open({str(pids)!r} + '.tmp', 'w').write(f'{{os.getpid()}} {{p.pid}} {{os.getppid()}}');"
        f"os.rename({str(pids)!r} + '.tmp', {str(pids)!r}); time.sleep(300)"
    )
    worker = (
        "import logging, pathlib; from airflow_mlops.core.training import process;"
        f"process.run(['python', '-c', {child!r}], cwd=pathlib.Path('.'), variables={{}}, log=logging.getLogger())"
    )
    started = subprocess.Popen([sys.executable, "-c", worker], cwd=tmp_path, stderr=subprocess.DEVNULL)
    try:
        while not pids.exists():
            assert started.poll() is None
            time.sleep(0.05)
        script, helper, guard = map(int, pids.read_text().split())
        if who == "worker":
            os.kill(started.pid, signal.SIGKILL)
            assert all(gone(pid) for pid in (script, helper, guard))
        else:
            os.kill(guard, signal.SIGKILL)
            assert gone(script)
            # The worker does not wait for what holds the pipe open and has nobody to end it.
            started.wait(120)
            os.kill(helper, signal.SIGKILL)
    finally:
        started.kill()
        started.wait()
