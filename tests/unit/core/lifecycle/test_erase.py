"""A person's rows go from every dataset; what named the data still finds it."""

from __future__ import annotations

import json
import logging
from typing import Any

import pyarrow as pa
import pytest

from airflow_mlops.core.data.dataset import read_table, resolve, write_table
from airflow_mlops.core.data.publishing import data_key
from airflow_mlops.core.errors import SpecError
from airflow_mlops.core.lifecycle import erasures
from airflow_mlops.core.lifecycle.erase import RECORDS, Subject, erase, preview, was_erased
from airflow_mlops.core.lifecycle.gc import collect, limits_of
from airflow_mlops.core.registry.promote import promote_model
from airflow_mlops.core.training.rowkeys import hash_rows, load_row_keys
from airflow_mlops.core.vocabulary import DatasetRef


def everything(store: Any) -> bytes:
    return b"".join(store.get_bytes(key) for key in list(store.keys()))


def test_a_dry_run_says_what_would_go_and_changes_nothing(context, snapshot, store):
    snapshot("one", [1, 2, 3, 2])
    snapshot("two", [4, 5])
    before = everything(store)

    found = preview(context, Subject(("2",)))

    assert (found["rows"], found["searched"]) == (2, 2)
    assert [(one["datasets"], one["columns"], one["rows"]) for one in found["objects"]] == [(["one"], ["customer"], 2)]
    assert everything(store) == before


def test_rows_go_and_every_ref_resolves_to_what_is_left(context, snapshot, store, caplog):
    ref = snapshot("one", [1, 2, 3, 2])
    again = snapshot("two", [1, 2, 3, 2])
    other = snapshot("other", [4, 5])
    assert ref.digest == again.digest

    record = erase(context, Subject(("2",)), by="ana", reason="asked on 3 May")

    assert (record["state"], record["rows"]) == ("done", 2)
    (moved,) = record["objects"]
    assert (moved["old"], moved["rows_removed"], moved["rows"]) == (ref.digest, 2, 2)
    assert not store.exists(data_key(ref.digest))
    with caplog.at_level(logging.WARNING, "airflow_mlops"):
        assert read_table(store, ref).column("customer").to_pylist() == [1, 3]
    assert "2 rows were erased from it on" in caplog.text
    now = resolve(store, ref.to_dict())
    assert (now.digest, now.rows, now.name, now.roles) == (moved["new"], 2, "one", {"key": "customer"})
    assert read_table(store, again).num_rows == 2
    assert read_table(store, other).num_rows == 2
    # The data is also there under its new name for whoever lists the datasets.
    refs = [DatasetRef.from_dict(store.get_json(key)) for key in store.keys("datasets")]
    assert {one.name for one in refs if one.digest == moved["new"]} == {"one", "two"}
    assert preview(context, Subject(("2",)))["rows"] == 0


def test_two_erasures_in_a_row_are_one_chain(context, snapshot, store):
    ref = snapshot("one", [1, 2, 3])
    erase(context, Subject(("2",)), by="ana")
    erase(context, Subject(("3",)), by="bo")

    found = erasures.successor(store, ref.digest)
    assert found is not None
    assert (found.rows_removed, found.rows) == (2, 1)
    assert read_table(store, ref).column("customer").to_pylist() == [1]
    assert len([key for key in store.keys("data") if key.endswith(".parquet")]) == 1


def test_the_last_row_may_go_too(context, snapshot, store):
    ref = snapshot("one", [1])
    erase(context, Subject(("1",)), by="ana")

    assert read_table(store, ref).num_rows == 0


def test_the_key_is_nowhere_in_clear_and_can_be_asked_for(context, snapshot, store, caplog):
    key = "anna.kiss@example.org"
    snapshot("one", [key, "bo@example.org"])
    with caplog.at_level(logging.DEBUG):
        erase(context, Subject((key,)), by="dpo", reason="request 17")

    assert key not in caplog.text
    assert key not in repr(Subject((key,)))
    assert key.encode() not in everything(store)
    (found,) = was_erased(context, key)
    assert (found["by"], found["reason"], found["state"]) == ("dpo", "request 17", "done")
    assert was_erased(context, "bo@example.org") == []


@pytest.mark.parametrize(
    ("column", "value", "left"),
    [
        (pa.array([7, 8], pa.int32()), "7", [8]),
        (pa.array([7, 8, None], pa.uint8()), "300", [7, 8, None]),
        (pa.array(["7", "07"]), "7", ["07"]),
        (pa.array(["7", None]), "x", ["7", None]),
        (pa.array([b"a", b"b"]), "a", [b"b"]),
        (pa.array([1.5, 2.5]), "1.5", [2.5]),
    ],
    ids=str,
)
def test_a_value_is_compared_in_the_type_of_the_column(context, store, column, value, left):
    ref = write_table(store, pa.table({"id": column}), name="one", roles={"key": "id"})
    erase(context, Subject((value,)), by="ana")

    assert read_table(store, ref).column("id").to_pylist() == left


def test_a_named_column_is_searched_in_every_dataset_that_has_it(context, snapshot, store):
    ref = snapshot("one", [1, 2], roles={}, email=["a", "b"])
    snapshot("two", [1, 2], roles={"key": ["customer", "spent"]})

    found = preview(context, Subject(("1",)))
    assert (found["searched"], found["rows"]) == (0, 0)
    assert sorted(one["datasets"][0] for one in found["unsearched"]) == ["one", "two"]
    assert "name the column" in found["unsearched"][0]["why"]

    record = erase(context, Subject(("b",), column="email"), by="ana")
    assert (record["rows"], record["unsearched"]) == (1, [])
    assert read_table(store, ref).column("email").to_pylist() == ["a"]


def test_models_that_were_trained_on_the_rows_are_named_and_their_row_keys_forgotten(context, version, store):
    first = version([1, 2, 3], promote=True)
    second = version([7, 8, 9])

    shown = preview(context, Subject(("2",)))
    record = erase(context, Subject(("2",)), by="ana")

    (model,) = record["models"]
    assert shown["models"] == record["models"]
    assert (model["model"], model["trained"], model["tested"], model["aliases"]) == (
        "churn/1",
        True,
        False,
        ["champion"],
    )
    assert model["input_example"] is False
    keys = load_row_keys(store, first["training"]["row_keys_uri"])
    import pandas

    expected = hash_rows(pandas.DataFrame({"customer": [1, 3]}), {"key": "customer"})
    assert sorted(keys) == sorted(expected)
    assert not store.exists(store.key_of(first["training"]["row_keys_uri"]))
    assert len(load_row_keys(store, second["training"]["row_keys_uri"])) == 3
    # Ledger and records go on naming the old digests, and everything still works.
    assert promote_model(context, model="churn/2", by="ana")["version"] == 2
    assert promote_model(context, model="churn/1", by="ana")["version"] == 1


def test_a_model_with_an_input_example_is_pointed_out(context, log_model, snapshot, store):
    ref = snapshot("train", [1, 2])
    logged = log_model("1", training={"dataset_digest": ref.digest})
    key = f"models/{logged['model_id']}.json"
    known = store.get_json(key)
    store.put_json(key, {**known, "manifest": {**known["manifest"], "input_example.json": "sha256:0"}})

    (model,) = preview(context, Subject(("1",)))["models"]

    assert (model["uri"], model["input_example"]) == (logged["uri"], True)


def test_reports_that_show_the_value_are_listed_for_a_person(context, snapshot, store):
    snapshot("one", [4711, 2])
    store.put_json("reports/d/t/1/details.json", {"examples": [4711]})
    store.put_json("reports/d/t/2/details.json", {"examples": [14711, 4711.5], "total": 3})

    found = preview(context, Subject(("4711",)))

    assert found["reports"] == [store.uri_of("reports/d/t/1/details.json")]


def test_the_same_data_is_not_taken_again_from_a_source_that_still_has_the_rows(context, snapshot):
    snapshot("one", [1, 2])
    erase(context, Subject(("2",)), by="ana", reason="asked")

    with pytest.raises(SpecError, match=r"1 rows were erased on .* \(asked\): the source still has them"):
        snapshot("one", [1, 2])
    assert snapshot("one", [1, 3]).rows == 2


def test_an_altered_file_stops_nothing_else(context, snapshot, store):
    bad, good = snapshot("bad", [1, 2]), snapshot("good", [1, 5])
    path = store.path_of(data_key(bad.digest))
    path.write_bytes(path.read_bytes()[:-1] + b"x")

    record = erase(context, Subject(("1",)), by="ana")

    assert record["rows"] == 1
    assert "altered" in record["unsearched"][0]["why"]
    assert read_table(store, good).num_rows == 1


def test_a_collection_keeps_what_took_the_place_of_needed_data(context, version, aged, store):
    ref = version([1, 2, 3], promote=True)
    erase(context, Subject(("2",)), by="ana")
    aged(days=1000)

    collect(context, limits_of(), by="ana")

    training = DatasetRef(
        name="train",
        digest=ref["training"]["dataset_digest"],
        uri=store.uri_of(data_key(ref["training"]["dataset_digest"])),
    )
    assert read_table(store, training).column("customer").to_pylist() == [1, 3]
    assert len(load_row_keys(store, ref["training"]["row_keys_uri"])) == 2


def test_an_empty_key_is_refused():
    for values in ((), ("",), ("1", "")):
        with pytest.raises(SpecError, match="at least one key"):
            Subject(values)


def test_records_say_who_when_and_why(context, snapshot, store):
    ref = snapshot("one", [1, 2])
    record = erase(context, Subject(("2",)), by="ana", reason="asked")

    note = store.get_json(erasures.record_key(ref.digest))
    assert (note["by"], note["reason"], note["rows_removed"], note["erasure"]) == ("ana", "asked", 1, record["id"])
    assert store.get_json(f"{RECORDS}/{record['id']}.json") == json.loads(json.dumps(record))


def test_what_is_published_while_it_runs_is_searched_as_well(context, snapshot, store, monkeypatch):
    snapshot("one", [1, 2])
    later: list[DatasetRef] = []

    def publish(name: str) -> None:
        if name == "erase.recorded" and not later:
            later.append(snapshot("later", [2, 9]))

    monkeypatch.setattr("airflow_mlops.core.lifecycle.erase.crash_point", publish)
    record = erase(context, Subject(("2",)), by="ana")

    assert record["rows"] == 2
    assert read_table(store, later[0]).column("customer").to_pylist() == [9]


def test_row_keys_over_all_columns_are_forgotten_too(context, log_model, snapshot, store):
    import numpy as np

    from airflow_mlops.core.data.dataset import read_frame
    from airflow_mlops.core.training.rowkeys import save_row_keys

    ref = snapshot("train", [1, 2, 3])
    keys = hash_rows(read_frame(store, ref), {})
    uri = save_row_keys(store, np.asarray(keys))
    log_model("1", training={"dataset_digest": ref.digest, "row_keys_uri": uri, "row_key_columns": None})

    erase(context, Subject(("2",)), by="ana")
    assert sorted(load_row_keys(store, uri)) == sorted(keys[[0, 2]])
    erase(context, Subject(("3",)), by="ana")
    assert list(load_row_keys(store, uri)) == [keys[0]]
    assert len(list(store.keys("rowkeys"))) == 1


def test_a_key_role_that_names_no_column_is_not_searched(context, store):
    write_table(store, pa.table({"a": [1]}), name="odd", roles={"key": "b"})

    assert [one["datasets"] for one in preview(context, Subject(("1",)))["unsearched"]] == [["odd"]]
