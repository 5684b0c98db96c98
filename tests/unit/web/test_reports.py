"""Which files a report's address can reach. The whole way, through the API server, is in the integration tests."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.core.errors import NotFoundError
from airflow_mlops.core.store import LocalStore, safe_name
from airflow_mlops.web.reports import DOWNLOAD, content_type, open_report


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> LocalStore:
    """A store with reports of two DAGs, and a secret beside it."""
    folder = tmp_path_factory.mktemp("web")
    (folder / "secret").write_text("secret")
    store = LocalStore(folder / "store")
    store.put_bytes("reports/one/t/report.html", b"one")
    store.put_bytes("reports/two/t/report.html", b"two")
    store.put_bytes(f"reports/{safe_name('ä/b')}/t/report.html", b"umlaut")
    store.put_bytes("ledger/x", b"secret")
    return store


def read(store: LocalStore, dag_id: str, path: str) -> bytes:
    with open_report(store, dag_id, path) as file:
        return file.read()


def test_a_dag_has_its_own_reports(reports: LocalStore) -> None:
    assert read(reports, "one", "t/report.html") == b"one"
    assert read(reports, "two", "t/report.html") == b"two"
    assert read(reports, "ä/b", "t/report.html") == b"umlaut"


@pytest.mark.parametrize("dag_id", ["", ".", "..", "../ledger", "one/t", "~", "\0", "One"])
def test_a_dag_that_is_none_has_none(reports: LocalStore, dag_id: str) -> None:
    with pytest.raises(NotFoundError):
        read(reports, dag_id, "t/report.html")


PIECES = st.sampled_from(
    ["..", ".", "", "t", "one", "two", "report.html", "ledger", "x", "\\", "\0", "%2e%2e", "~", "a"]
)


@given(st.lists(PIECES, max_size=8), st.sampled_from(["/", "//", "\\", "/./"]))
def test_no_path_gives_what_is_not_a_report_of_the_dag(reports: LocalStore, parts: list[str], between: str) -> None:
    path = between.join(parts)
    try:
        found = read(reports, "one", path)
    except NotFoundError:
        return
    assert found == b"one"
    assert path == "t/report.html"


def test_a_link_may_move_reports_to_another_disk_but_not_out_of_the_dags_own(
    reports: LocalStore, tmp_path_factory: pytest.TempPathFactory
) -> None:
    disk = tmp_path_factory.mktemp("disk")
    (disk / "report.html").write_text("elsewhere")
    (reports.root / "reports" / "three").symlink_to(disk)
    assert read(reports, "three", "report.html") == b"elsewhere"
    (disk / "out.html").symlink_to(reports.root.parent / "secret")
    (disk / "loop").symlink_to(disk / "loop")
    for path in ("out.html", "loop", "loop/x"):
        with pytest.raises(NotFoundError):
            read(reports, "three", path)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("a/report.HTML", "text/html; charset=utf-8"),
        ("details.json", "application/json"),
        ("a.js", DOWNLOAD),
        ("a.htm", DOWNLOAD),
        ("html", DOWNLOAD),
        ("a.html.exe", DOWNLOAD),
    ],
)
def test_content_types(path: str, kind: str) -> None:
    assert content_type(path) == kind
