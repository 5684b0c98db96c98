"""``airflow mlops gc`` and ``erase``: dry run first, then the deed, and never a key in the output."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
from typing import Any

import pyarrow as pa
import pytest

from airflow_mlops.core.data.dataset import read_table, write_table
from airflow_mlops.core.data.publishing import data_key


@pytest.fixture
def snapshot(context: Any) -> Any:
    table = pa.table({"customer": ["anna", "bo", "cy"], "spent": [1.0, 2.0, 3.0]})
    return write_table(context.store, table, name="spending", roles={"key": "customer"})


@pytest.fixture
def old(context: Any, snapshot: Any) -> Any:
    then = (dt.datetime.now() - dt.timedelta(days=30)).timestamp()
    for key in list(context.store.keys()):
        os.utime(context.store.path_of(key), (then, then))
    return snapshot


def test_gc_shows_first_and_deletes_when_told(airflow, context, old):
    code, printed = airflow("gc", "--output", "json")
    (plan,) = json.loads(printed)
    assert code == 0
    assert plan["dry_run"] is True
    assert [(row["kind"], row["count"]) for row in plan["summary"]] == [("dataset ref", 1), ("snapshot", 1)]
    assert context.store.exists(data_key(old.digest))

    code, printed = airflow("gc", "--delete", "--by", "ana", "--output", "json")
    (record,) = json.loads(printed)
    assert (code, record["state"], record["by"], len(record["deleted"])) == (0, "done", "ana", 2)
    assert not context.store.exists(data_key(old.digest))


def test_gc_as_a_table_ends_with_what_to_do(airflow, old):
    code, printed = airflow("gc")
    assert code == 0
    assert "snapshot" in printed
    assert "Dry run: nothing was deleted." in airflow.errors
    assert "Add --delete" in airflow.errors
    assert data_key(old.digest) in airflow("gc", "--list", "--output", "plain")[1]

    airflow("gc", "--delete")
    assert re.search(r"Deleted [\d,]+ bytes. Record: ", airflow.errors)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("gc", "--grace", "1h"), "SpecError: the grace period must be longer than any run"),
        (("gc", "--grace", "soon"), "SpecError: --grace: 'soon' is not a duration"),
        (("gc", "--retention", "x"), "SpecError: --retention: 'x' is not a duration"),
        (("gc", "--keep-rollback", "-1"), "SpecError: keep_rollback must be 0 or more"),
        (("erase",), "SpecError: give either --key or --keys-file"),
        (("erase", "--keys-file", "/no/such"), "SpecError: the file of keys /no/such cannot be read: No such file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_errors_are_one_line(airflow, context, words, message):
    code, _ = airflow(*words)
    assert isinstance(code, str)
    assert code.startswith(message)
    assert len(code.splitlines()) == 1


def test_erase_shows_first_and_erases_when_told(airflow, context, snapshot):
    code, printed = airflow("erase", "--key", "anna", "--output", "json")
    (found,) = json.loads(printed)
    assert (code, found["state"], found["rows"]) == (0, "dry run", 1)
    assert read_table(context.store, snapshot).num_rows == 3

    code, printed = airflow("erase", "--key", "anna", "bo", "--reason", "asked", "--by", "dpo", "--delete")
    assert code == 0
    assert "Erased 2 rows." in airflow.errors
    assert "anna" not in printed + airflow.errors
    assert read_table(context.store, snapshot).column("customer").to_pylist() == ["cy"]


def test_keys_come_from_a_file_or_standard_input(airflow, context, snapshot, tmp_path, monkeypatch):
    import io

    file = tmp_path / "keys.txt"
    file.write_bytes("\ufeffanna\r\n\n".encode())
    assert json.loads(airflow("erase", "--keys-file", str(file), "--output", "json")[1])[0]["rows"] == 1
    monkeypatch.setattr("sys.stdin", io.StringIO("anna\nbo\n"))
    assert json.loads(airflow("erase", "--keys-file", "-", "--output", "json")[1])[0]["rows"] == 2
    file.write_text("\n")
    assert "has no key" in airflow("erase", "--keys-file", str(file))[0]
    file.write_bytes(b"\xff\xfe")
    assert "is not UTF-8" in airflow("erase", "--keys-file", str(file))[0]


def test_what_could_not_be_searched_fails_the_command_after_the_rest_is_done(airflow, context, snapshot):
    write_table(context.store, pa.table({"n": [1]}), name="nameless")

    code, _ = airflow("erase", "--key", "anna", "--delete")

    assert code.startswith("MlopsError: 1 contents could not be searched, for example nameless: no key role")
    assert read_table(context.store, snapshot).num_rows == 2
    assert airflow("erase", "--key", "bo", "--column", "customer", "--delete")[0] == 0


def test_models_and_reports_for_a_person_are_named(airflow, context, snapshot, log_model):
    ref = log_model("1", training={"dataset_digest": snapshot.digest})
    context.store.put_json("reports/d/t/1/details.json", {"examples": ["anna"]})

    airflow("erase", "--key", "anna")

    assert f"{ref['uri']} was trained on data that had the rows: decide to retrain" in airflow.errors
    assert "reports/d/t/1/details.json has the key in its text" in airflow.errors
