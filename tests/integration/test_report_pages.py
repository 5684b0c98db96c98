"""Report pages and links with a real API server: who gets in, what the headers say, what a browser shows."""

from __future__ import annotations

import dataclasses
import http.client
import http.server
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

import pytest

from airflow_mlops.core.store import LocalStore, safe_name

#: Refuses one DAG to whoever is no admin.
AUTH_MANAGER = """
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager


class PickyAuthManager(SimpleAuthManager):
    def is_authorized_dag(self, *, method, user, access_entity=None, details=None):
        if details is not None and details.id == "secret" and user.role.lower() != "admin":
            return False
        return super().is_authorized_dag(method=method, user=user, access_entity=access_entity, details=details)
"""

STEP = """
from airflow_mlops.core.reports import publish
from airflow_mlops.core.vocabulary import Report


def probe(context, *, number=0, passed=True):
    report = Report(report="probe", passed=passed, severity="ok" if passed else "error", summary=f"number {number} ünï")
    result = publish(
        context, report, details={"number": number}, template="base.html", identity=number, title=f"Probe {number}"
    )
    return {**result, "kind": "model", "name": "a model", "version": 3, "run_id": f"run{number}"}
"""

DAG = """
import datetime as dt

from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import DAG
from airflow_mlops.core.steps import STEPS
from airflow_mlops.links.model import MLflowRunLink, ModelVersionLink, ReportLink
from airflow_mlops.notifications.gate import GateNotifier
from airflow_mlops.operators.base import GateOperator

STEPS["probe"] = "probe_step:probe"


class ProbeOperator(GateOperator):
    step = "probe"
    step_arguments = ("number", "passed")
    needs_mlflow = True
    operator_extra_links = (ReportLink(), MLflowRunLink(), ModelVersionLink())
    template_fields = (*GateOperator.template_fields, "number")

    def __init__(self, *, number=0, passed=True, **kwargs):
        super().__init__(**kwargs)
        self.number = number
        self.passed = passed


class LateProbeOperator(ProbeOperator):
    def execute(self, context):
        self.defer(trigger=TimeDeltaTrigger(dt.timedelta(milliseconds=10)), method_name="execute_complete")

    def execute_complete(self, context, event=None):
        return super().execute(context)


def keep(context):
    with open(OUT, "a") as file:
        file.write(context["mlops_message"])


OUT = __file__.replace("links.py", "message.txt")
with DAG("links", schedule=None) as links:
    ProbeOperator(task_id="plain", number=7)
    ProbeOperator.partial(task_id="mapped").expand(number=[1, 2])
    LateProbeOperator(task_id="late", number=9)
    ProbeOperator(
        task_id="failed", number=13, passed=False, retries=2, owner="team-flights",
        on_failure_callback=GateNotifier(notifiers=[keep, lambda context: 1 / 0]),
    )
"""


@dataclass
class Server:
    """A running API server in a home of its own."""

    home: Path
    port: int
    environment: dict[str, str]
    tokens: dict[str, str] = field(default_factory=dict)

    @property
    def log(self) -> str:
        return (self.home / "api.log").read_text()

    def get(
        self, path: str, user: str | None = None, *, method: str = "GET", **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """Ask for a path exactly as it is written; no client in between tidies it."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        if user:
            headers["Authorization"] = f"Bearer {self.tokens[user]}"
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, body

    def log_in(self, user: str, password: str) -> None:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/auth/token",
            data=json.dumps({"username": user, "password": password}).encode(),
            headers={"Content-Type": "application/json"},
        )
        self.tokens[user] = json.loads(urllib.request.urlopen(request, timeout=60).read())["access_token"]

    def start(self, **more: str) -> subprocess.Popen[bytes]:
        with open(self.home / "api.log", "ab") as log:
            process = subprocess.Popen(
                [
                    str(Path(sys.executable).parent / "airflow"),
                    "api-server",
                    "--port",
                    str(self.port),
                    "--workers",
                    "1",
                ],
                env={**self.environment, **more},
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.home,
                start_new_session=True,
            )
        end = time.monotonic() + 120
        while time.monotonic() < end and process.poll() is None:
            try:
                self.log_in("admin", "a")
                self.log_in("viewer", "v")
            except OSError:
                time.sleep(0.3)
            else:
                return process
        stop(process)
        raise AssertionError(self.log[-5000:])


def stop(process: subprocess.Popen[bytes]) -> None:
    """End the server and the workers it has started."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign)
            process.wait(20)
        except ProcessLookupError:
            break
        except subprocess.TimeoutExpired:
            continue


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Server:
    """A home with a database, two users, DAGs, reports; nothing runs in it yet."""
    home = tmp_path_factory.mktemp("airflow")
    (home / "dags").mkdir()
    (home / "lib").mkdir()
    (home / "dags" / "links.py").write_text(DAG)
    (home / "lib" / "picky.py").write_text(AUTH_MANAGER)
    (home / "lib" / "probe_step.py").write_text(STEP)
    (home / "passwords.json").write_text(json.dumps({"admin": "a", "viewer": "v"}))
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "MLFLOW", "PYTHONPATH"))}
    environment = {
        **inherited,
        "AIRFLOW_HOME": str(home),
        "PYTHONPATH": str(home / "lib"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__AUTH_MANAGER": "picky.PickyAuthManager",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin,viewer:viewer",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "passwords.json"),
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}",
        "AIRFLOW__API_AUTH__JWT_SECRET": "x" * 64,
        "AIRFLOW__MLOPS__MLFLOW_UI_URL": "http://user:hunter2@mlflow.example.com/",
    }
    airflow = [str(Path(sys.executable).parent / "airflow")]
    subprocess.run([*airflow, "db", "migrate"], env=environment, check=True, capture_output=True, timeout=180)
    server = Server(home, port, environment)
    put_reports(server)
    return server


def put_reports(server: Server) -> None:
    """Write what the tests ask for, and what nobody may get."""
    store = LocalStore(server.home / "mlops" / "store")
    for dag in ("open", "secret", "dag with ü"):
        folder = f"reports/{safe_name(dag)}/task/0123"
        store.put_bytes(f"{folder}/report.html", b"<!doctype html><h1>Report</h1>" + dag.encode())
        store.put_json(f"{folder}/details.json", {"dag": dag})
    store.put_bytes("reports/open/task/0123/page.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>")
    store.put_bytes("reports/open/task/0123/table.parquet", b"PAR1")
    store.put_bytes("reports/open/task/0123/evil.js", b"alert(1)")
    store.put_bytes("reports/open/task/0123/big.json", b" " * (3 << 20) + b"1")
    store.put_bytes("ledger/model/1.intent", b"{}")
    (server.home / "outside.html").write_text("outside")
    folder = store.root / "reports" / "open"
    (folder / "link.html").symlink_to(server.home / "outside.html")
    (folder / "up").symlink_to(store.root / "ledger")
    (folder / "other").symlink_to(store.root / "reports" / "secret")
    (folder / ".hidden.html").write_text("hidden")


@pytest.fixture(scope="module")
def links_run(deployment: Server) -> str:
    """The run id of the DAG ``links``, run without a scheduler."""
    code = """
import runpy, sys

run = runpy.run_path(sys.argv[1])["links"].test()
print("RUN", run.run_id, run.state)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(deployment.home / "dags" / "links.py")],
        env=deployment.environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    found = re.search(r"^RUN (\S+) failed$", done.stdout, flags=re.M)
    assert found, done.stdout[-3000:] + done.stderr[-6000:]
    return found[1]


@pytest.fixture(scope="module")
def server(deployment: Server, links_run: str) -> Iterator[Server]:
    """The API server, running."""
    process = deployment.start()
    yield deployment
    stop(process)


PAGE = "/mlops/reports/open/task/0123/report.html"


def test_who_may_read_the_dag_gets_the_report_under_a_strict_policy(server: Server) -> None:
    status, headers, body = server.get(PAGE, "viewer")
    assert status == 200
    assert body.endswith(b"<h1>Report</h1>open")
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert headers["content-length"] == str(len(body))
    policy = dict(part.strip().partition(" ")[::2] for part in headers["content-security-policy"].split(";"))
    assert policy == {
        "default-src": "'none'",
        "style-src": "'unsafe-inline'",
        "img-src": "data:",
        "frame-ancestors": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "sandbox": "",
    }
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "private, no-store"


def test_a_head_request_gives_the_same_headers_and_no_body(server: Server) -> None:
    status, headers, body = server.get(PAGE, "viewer", method="HEAD")
    assert (status, body) == (200, b"")
    assert headers["content-length"] == str(len(server.get(PAGE, "viewer")[2]))
    assert "sandbox" in headers["content-security-policy"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_reports_can_only_be_read(server: Server, method: str) -> None:
    assert server.get(PAGE, "admin", method=method)[0] == 405


def test_nobody_gets_in_without_a_session(server: Server) -> None:
    status, _, body = server.get(PAGE)
    assert status == 401
    assert b"Report" not in body
    assert server.get(PAGE, Authorization="Bearer nonsense")[0] in (401, 403)
    assert server.get(PAGE, Cookie="_token=nonsense")[0] in (401, 403)


def test_a_browser_without_a_session_is_sent_to_the_login_and_from_there_back(server: Server) -> None:
    status, headers, _ = server.get(PAGE, Accept="text/html,*/*", Host=f"127.0.0.1:{server.port}")
    assert status == 302
    target = urlsplit(headers["location"])
    assert target.path == "/api/v2/auth/login"
    assert parse_qs(target.query)["next"] == [f"http://127.0.0.1:{server.port}{PAGE}"]
    status, headers, _ = server.get(headers["location"], Host=f"127.0.0.1:{server.port}")
    assert status in (302, 307), "Airflow takes the address as a safe one"
    assert unquote(headers["location"]).endswith(PAGE)


def test_a_session_cookie_is_as_good_as_a_token(server: Server) -> None:
    assert server.get(PAGE, Cookie=f"_token={server.tokens['viewer']}")[0] == 200


def test_who_may_not_read_the_dag_may_not_read_its_reports(server: Server) -> None:
    secret = PAGE.replace("open", "secret")
    status, _, body = server.get(secret, "viewer")
    assert status == 403
    assert b"<h1>" not in body
    assert server.get(secret, "admin")[0] == 200


def test_a_dag_id_with_other_letters_is_found_by_its_quoted_id(server: Server) -> None:
    status, _, body = server.get(f"/mlops/reports/{quote('dag with ü', safe='')}/task/0123/report.html", "viewer")
    assert status == 200
    assert body.decode().endswith("dag with ü")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("details.json", "application/json"),
        ("page.svg", "image/svg+xml"),
        ("table.parquet", "application/octet-stream"),
        ("evil.js", "application/octet-stream"),
    ],
)
def test_only_what_a_page_needs_is_shown_the_rest_is_a_download(server: Server, name: str, kind: str) -> None:
    status, headers, _ = server.get(f"/mlops/reports/open/task/0123/{name}", "viewer")
    assert status == 200
    assert headers["content-type"] == kind
    assert ("content-disposition" in headers) == (kind == "application/octet-stream")
    assert "sandbox" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"


def test_a_large_file_arrives_whole(server: Server) -> None:
    body = server.get("/mlops/reports/open/task/0123/big.json", "viewer")[2]
    assert len(body) == (3 << 20) + 1


@pytest.mark.parametrize(
    "path",
    [
        "open/",
        "open/task",
        "open/task/0123",
        "open/task/0123/",
        "open/task/0123/nothing.html",
        "open/../secret/task/0123/report.html",
        "open/%2e%2e/secret/task/0123/report.html",
        "open/..%2fsecret/task/0123/report.html",
        "open/%2e%2e%2fsecret%2ftask%2f0123%2freport.html",
        "open/%252e%252e/secret/task/0123/report.html",
        "open/task/..%5c..%5c..%5cledger/model/1.intent",
        "open/task/../../../ledger/model/1.intent",
        "open/..%2f..%2fledger%2fmodel%2f1.intent",
        "open/.%00./x",
        "open/task/0123/report.html%00",
        "open//etc/passwd",
        "open/%2fetc%2fpasswd",
        "open/task/0123/./report.html",
        "open/task//0123/report.html",
        "open/link.html",
        "open/up/model/1.intent",
        "open/other/task/0123/report.html",
        "open/.hidden.html",
        "open/%ff%fe",
        "open/" + "x" * 5000,
        "~/task/0123/report.html",
        "./task/0123/report.html",
        "../ledger/model/1.intent",
        "%2e%2e/ledger/model/1.intent",
        "nowhere/task/0123/report.html",
        "../../../../etc/passwd",
    ],
)
def test_no_path_leads_anywhere_else(server: Server, path: str) -> None:
    status, _, body = server.get(f"/mlops/reports/{path}", "viewer")
    assert status in (403, 404), body[:200]
    for text in (b"outside", b"hidden", b"root:", b"<h1>Report", b"{}"):
        assert text not in body


def test_another_store_is_asked_for_by_its_connection_and_says_nothing_about_others(
    server: Server, tmp_path: Path
) -> None:
    LocalStore(tmp_path / "far").put_bytes("reports/open/task/1/report.html", b"far away")
    body = {"connection_id": "far", "conn_type": "fs", "extra": json.dumps({"path": str(tmp_path / "far")})}
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.port}/api/v2/connections",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json", "Authorization": f"Bearer {server.tokens['admin']}"},
    )
    urllib.request.urlopen(request, timeout=30).read()
    assert server.get("/mlops/reports/open/task/1/report.html?store=far", "viewer")[2] == b"far away"
    missing = server.get("/mlops/reports/open/task/1/report.html?store=far2", "viewer")
    assert (missing[0], missing[2]) == (404, b'{"detail":"There is no such report"}')


def links_of(server: Server, run_id: str, task: str, map_index: int = -1) -> dict[str, str | None]:
    path = f"/api/v2/dags/links/dagRuns/{quote(run_id, safe='')}/taskInstances/{task}/links?map_index={map_index}"
    status, _, body = server.get(path, "viewer")
    assert status == 200, body
    found: dict[str, str | None] = json.loads(body)["extra_links"]
    return found


@pytest.mark.parametrize(
    ("task", "map_index", "number"), [("plain", -1, 7), ("mapped", 0, 1), ("mapped", 1, 2), ("late", -1, 9)]
)
def test_a_task_has_its_links_and_they_open(
    server: Server, links_run: str, task: str, map_index: int, number: int
) -> None:
    links = links_of(server, links_run, task, map_index)
    assert links["MLflow run"] == f"http://mlflow.example.com/#/runs/run{number}"
    assert links["Model version"] == "http://mlflow.example.com/#/models/a%20model/versions/3"
    report = links["Report"] or ""
    assert report.startswith(f"http://127.0.0.1:{server.port}/mlops/reports/links/{task}/")
    status, _, body = server.get(urlsplit(report).path, "viewer")
    assert status == 200
    assert f"Probe {number}" in body.decode()


def test_a_failed_gate_has_its_report_too_and_its_notice_says_what_to_do(server: Server, links_run: str) -> None:
    report = links_of(server, links_run, "failed")["Report"]
    assert report
    assert b"Failed" in server.get(urlsplit(report).path, "viewer")[2]
    message = (server.home / "dags" / "message.txt").read_text()
    assert message.startswith(f"Task failed of DAG links failed (run {links_run}, try 1 of 3)")
    assert f"Why: number 13 ünï Report: {report}" in message
    assert message.count(report) == 1
    assert "Owner: team-flights" in message
    assert "MLflow run: http://mlflow.example.com/#/runs/run13" in message
    assert "What to do: Read the report." in message
    assert "hunter2" not in message


def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not found:
        pytest.skip("no Chromium here to open a report in")
    return found


class Session(http.server.BaseHTTPRequestHandler):
    """Pass a browser's requests on to the API server with a session cookie, and keep what it asked for."""

    server: Any

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        airflow: Server = self.server.airflow
        status, headers, body = airflow.get(self.path, Cookie=f"_token={airflow.tokens['viewer']}")
        self.send_response(status)
        for name in ("content-type", "content-length", "content-security-policy", "x-content-type-options"):
            if name in headers:
                self.send_header(name, headers[name])
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def browse(server: Server, tmp_path: Path) -> Iterator[Callable[[str], tuple[Any, str, list[str]]]]:
    """Open an address in Chromium: the picture, what its console says, the paths that it asked for."""
    from PIL import Image

    proxy: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Session)
    proxy.airflow, proxy.asked = server, []
    threading.Thread(target=proxy.serve_forever, daemon=True).start()

    def open_page(path: str) -> tuple[Any, str, list[str]]:
        picture = tmp_path / "page.png"
        done = subprocess.run(
            [
                chromium(),
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--hide-scrollbars",
                "--enable-logging=stderr",
                f"--user-data-dir={tmp_path / 'profile'}",
                "--window-size=900,700",
                f"--screenshot={picture}",
                f"http://127.0.0.1:{proxy.server_port}{path}",
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        asked = [one for one in proxy.asked if one != "/favicon.ico"]
        console = "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)
        return Image.open(picture).convert("RGB"), console, asked

    yield open_page
    proxy.shutdown()
    proxy.server_close()


def test_a_browser_shows_the_report_in_its_own_style(
    server: Server, links_run: str, browse: Callable[[str], tuple[Any, str, list[str]]]
) -> None:
    report = urlsplit(links_of(server, links_run, "plain")["Report"] or "").path
    picture, console, asked = browse(report)
    colours = {colour for _, colour in picture.getcolors(1 << 20)}
    assert (0x1A, 0x7F, 0x4B) in colours, "the green of a verdict that passed: the style is applied"
    assert (0xF5, 0xF7, 0xFA) in colours
    assert console == "", "nothing of the page is refused"
    assert asked == [report]


def test_a_browser_runs_no_script_and_fetches_nothing_whatever_stands_in_the_store(
    server: Server, browse: Callable[[str], tuple[Any, str, list[str]]]
) -> None:
    LocalStore(server.home / "mlops" / "store").put_bytes(
        "reports/open/task/0123/taken.html",
        b"<!doctype html><style>body{background:#008000;color:#008000}</style>"
        b"<body onload=\"document.body.style.background='#ff0000'\">"
        b"<script>document.body.style.background='#ff0000'</script>"
        b"<img src='/stolen.png'><link rel=stylesheet href='/stolen.css'><iframe src='/stolen.html'></iframe>"
        b"<meta http-equiv=refresh content='0;url=javascript:alert(1)'></body>",
    )
    picture, console, asked = browse("/mlops/reports/open/task/0123/taken.html")
    assert picture.getpixel((450, 600)) == (0, 0x80, 0)
    assert "script" in console
    assert asked == ["/mlops/reports/open/task/0123/taken.html"]


def test_nothing_broke_in_the_server(server: Server) -> None:
    assert "Traceback" not in server.log, server.log[-5000:]
    assert "already registered" not in server.log


def test_an_api_server_that_may_not_use_the_embedded_store_says_so(server: Server) -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        second = dataclasses.replace(server, port=one.getsockname()[1], tokens={})
    process = second.start(AIRFLOW__CORE__EXECUTOR="airflow.providers.celery.executors.celery_executor.CeleryExecutor")
    try:
        status, _, body = second.get(PAGE, "viewer")
    finally:
        stop(process)
    assert status == 503
    assert "set [mlops] backend = connections" in json.loads(body)["detail"]
