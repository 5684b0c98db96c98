"""What nothing needs goes, and only that; whoever begins to use something keeps it."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Any

import pytest

from airflow_mlops.core.data.dataset import read_table
from airflow_mlops.core.data.publishing import data_key
from airflow_mlops.core.errors import ConflictError, NotFoundError, SpecError
from airflow_mlops.core.lifecycle import lock, sweep, uses
from airflow_mlops.core.lifecycle.gc import Plan, collect, limits_of, plan
from airflow_mlops.core.registry.promote import promote_model
from airflow_mlops.core.registry.versions import RegisteredModel
from airflow_mlops.core.store import LocalStore
from airflow_mlops.core.vocabulary import DatasetRef

DAY = dt.timedelta(days=1)


def planned(context: Any, **limits: Any) -> Plan:
    return plan(context, limits_of(**limits))


def kinds(found: Plan) -> dict[str, int]:
    return {row["kind"]: row["count"] for row in found.summary()}


def keys(found: Plan) -> set[str]:
    return {key for one in found.garbage for key in one.keys}


def test_a_snapshot_that_nothing_needs_goes_when_its_grace_is_over(context, snapshot, aged, store):
    old = snapshot("old")
    aged(days=20)
    young = snapshot("young", [7])

    found = planned(context)

    assert kinds(found) == {"dataset ref": 1, "snapshot": 1}
    assert data_key(old.digest) in keys(found)
    # Looking changes nothing.
    assert read_table(store, young).num_rows == 1
    assert store.exists(data_key(old.digest))

    record = collect(context, limits_of(), by="ana")

    assert (record["state"], record["by"], len(record["deleted"])) == ("done", "ana", 2)
    assert not store.exists(data_key(old.digest))
    assert store.exists(data_key(young.digest))
    assert kinds(planned(context)) == {}
    # What was deleted stays on record.
    (kept,) = store.keys(sweep.RECORDS)
    assert store.get_json(kept)["deleted"] == record["deleted"]
    assert list(store.keys(sweep.TRASH)) == []


def test_the_grace_period_is_a_day_at_least():
    with pytest.raises(SpecError, match="longer than any run"):
        limits_of(grace=dt.timedelta(hours=1))
    with pytest.raises(SpecError, match="0 or more"):
        limits_of(keep_rollback=-1)


def test_what_a_rollback_can_reach_stays_with_its_data_row_keys_and_evidence(context, version, aged, store):
    first, second = version(promote=True), version(promote=True)
    never = version()
    aged(days=100)

    found = planned(context)

    gone = keys(found)
    for ref in (first, second):
        assert data_key(ref["training"]["dataset_digest"]) not in gone
        assert data_key(ref["test_dataset"]["digest"]) not in gone
        assert store.key_of(ref["training"]["row_keys_uri"]) not in gone
    assert data_key(never["training"]["dataset_digest"]) in gone
    assert data_key(never["test_dataset"]["digest"]) in gone
    assert store.key_of(never["training"]["row_keys_uri"]) in gone
    assert kinds(found) == {"report": 1, "dataset ref": 2, "snapshot": 2, "row keys": 1}
    assert {key for key in gone if key.startswith("reports/")} == {
        "reports/flights/test/3/details.json",
        "reports/flights/test/3/report.html",
    }
    assert [row["version"] for row in planned(context, retention=0 * DAY).unneeded] == [3]

    collect(context, limits_of(), by="ana")
    assert read_table(store, DatasetRef.from_dict(first["test_dataset"])).num_rows == 4
    # And a rollback still finds its evidence.
    entry = promote_model(context, model="churn/1", by="ana")
    assert entry["version"] == 1


def test_decisions_and_cards_stay_and_keep_no_data(context, version, snapshot, aged, store):
    named = snapshot("named")
    store.put_json("approvals/churn/1.json", {"request": {"data": named.digest}})
    version(promote=True)
    store.put_json("cards/churn/1/card.json", {"data": named.digest})
    aged(days=1000)

    found = keys(planned(context, keep_rollback=0))

    assert data_key(named.digest) in found
    assert not any(key.startswith(("approvals/", "cards/")) or key.endswith("card.html") for key in found)
    assert any(key.endswith("/card.html") for key in store.keys("reports"))


def test_keep_rollback_gives_up_the_data_of_older_versions_and_keeps_their_evidence(context, version, aged):
    refs = [version(promote=True) for _ in range(3)]
    aged(days=100)

    gone = keys(planned(context, keep_rollback=1))

    digests = [data_key(ref["training"]["dataset_digest"]) for ref in refs]
    assert [key in gone for key in digests] == [True, False, False]
    assert not any(key.startswith(("reports/", "versions/", "models/", "ledger/")) for key in gone)
    assert not any(key in keys(planned(context)) for key in digests)


def test_an_alias_that_was_set_by_hand_keeps_its_version(context, version, aged):
    ref = version()
    RegisteredModel(context, "churn").point("shadow", 1)
    aged(days=100)

    assert keys(planned(context)) == set()
    RegisteredModel(context, "churn").point("shadow", None)
    assert data_key(ref["training"]["dataset_digest"]) in keys(planned(context))


def test_a_version_that_nobody_promoted_keeps_its_data_while_it_is_retained(context, version, aged):
    version()
    aged(days=30)

    assert kinds(planned(context)) == {}
    assert kinds(planned(context, retention=20 * DAY)) == {
        "report": 1,
        "dataset ref": 2,
        "snapshot": 2,
        "row keys": 1,
    }


def test_a_version_that_was_deleted_in_mlflow_loses_its_records(context, version, aged, store):
    version()
    version(promote=True)
    RegisteredModel(context, "churn").delete_version(1)
    aged(days=100)

    found = planned(context)
    assert kinds(found)["version record"] == 1
    assert kinds(found)["registration"] == 1
    collect(context, limits_of(), by="ana")
    assert list(store.keys("versions")) == ["versions/churn/2.json"]


def test_a_registry_that_does_not_know_the_model_deletes_nothing(context, version, aged, store, migrated_database):
    import shutil

    from airflow_mlops.core.tracking import sqlite_uri

    version(promote=True)
    aged(days=1000)
    other = store.root.parent / "other.db"
    shutil.copy(migrated_database, other)
    wrong = dataclasses.replace(context, tracking_uri=sqlite_uri(other))

    found = planned(wrong)

    assert keys(found) == set()
    assert "does not know" in found.notes[0]


def test_documents_of_kinds_to_come_keep_what_they_name(context, snapshot, aged, store):
    named, by_uri = snapshot("named"), snapshot("uri", [9])
    store.put_json("policies/1.json", {"waits_for": [{"digest": named.digest}]})
    store.put_json("portraits/churn.json", {"data": by_uri.uri})
    aged(days=1000)

    assert keys(planned(context)) == set()


def test_orphaned_schemas_and_marks_and_staging_go(context, snapshot, aged, store):
    wide = snapshot("wide", **{f"c{i}": [1, 2, 3] for i in range(120)})
    assert wide.schema_uri
    aged(days=10)
    assert kinds(planned(context)) == {}
    store.staging_folder()
    aged(days=20)
    uses.keep(store, data_key(wide.digest))
    assert kinds(planned(context)) == {}, "it is in use again, with its ref and its schema"

    aged(days=20)
    assert kinds(planned(context)) == {"dataset ref": 1, "snapshot": 1, "schema": 1}
    later = dt.datetime.now(dt.timezone.utc) + 20 * DAY
    assert kinds(planned(context, now=later))["staging"] == 1
    collect(context, limits_of(now=later), by="ana")
    assert {key.partition("/")[0] for key in list(store.keys())} == {"lifecycle"}
    assert not list((store.root / ".staging").iterdir())


def test_reading_a_snapshot_keeps_it_for_another_grace_period(context, snapshot, aged, store):
    ref = snapshot()
    aged(days=20)
    read_table(store, ref)

    assert kinds(planned(context)) == {}
    assert collect(context, limits_of(), by="ana")["deleted"] == []


def test_what_comes_into_use_between_plan_and_deletion_stays(context, snapshot, aged, store, monkeypatch):
    ref = snapshot()
    aged(days=20)
    monkeypatch.setattr(
        "airflow_mlops.core.lifecycle.gc.crash_point",
        lambda name: uses.keep(store, data_key(ref.digest)) if name == "gc.planned" else None,
    )

    record = collect(context, limits_of(), by="ana")

    assert [one["kind"] for one in record["deleted"]] == []
    assert read_table(store, ref).num_rows == 3


@pytest.mark.parametrize("point", ["gc.copied", "gc.deleted"])
def test_what_is_marked_as_used_while_it_is_deleted_is_put_back(context, snapshot, aged, store, monkeypatch, point):
    ref = snapshot()
    aged(days=20)
    key = data_key(ref.digest)

    def use(name: str) -> None:
        copied = any(one.endswith(key) for one in store.keys(sweep.TRASH))
        if name == point and copied and store.exists(key) == (point == "gc.copied"):
            # The user's mark; the object is looked for before the collector deletes it.
            store.put_json(uses.mark_key(key), {})

    monkeypatch.setattr("airflow_mlops.core.lifecycle.sweep.crash_point", use)
    record = collect(context, limits_of(), by="ana")

    assert read_table(store, ref).num_rows == 3
    assert store.exists(key)
    assert not any(key in one["keys"] for one in record["deleted"])


def test_what_is_named_by_the_time_it_is_deleted_is_put_back(context, snapshot, aged, store, monkeypatch):
    ref = snapshot()
    aged(days=20)

    def name_it(name: str) -> None:
        if name == "gc.deleted":
            store.put_json("policies/1.json", {"dataset": ref.to_dict()})

    monkeypatch.setattr("airflow_mlops.core.lifecycle.sweep.crash_point", name_it)
    record = collect(context, limits_of(), by="ana")

    assert record["deleted"] == []
    assert data_key(ref.digest) in record["restored"]
    assert read_table(store, ref).num_rows == 3
    assert kinds(planned(context)) == {}


def test_one_collection_at_a_time(context, store, monkeypatch):
    monkeypatch.setenv("AIRFLOW_MLOPS_LEASE_SECONDS", "30")
    with (
        lock.only_one(store, "erasure", "bo"),
        pytest.raises(ConflictError, match=r"erasure by bo runs .* or was killed; if it was, try again in"),
    ):
        collect(context, limits_of(), by="ana")
    assert collect(context, limits_of(), by="ana")["state"] == "done"
    assert len(list(store.keys("lifecycle/locks"))) == 1


def test_a_collection_that_slept_through_its_lease_deletes_nothing_more(context, snapshot, aged, store, monkeypatch):
    ref = snapshot()
    aged(days=20)

    def sleep(name: str) -> None:
        if name == "gc.copied":
            monkeypatch.setattr(lock.time, "time", lambda: 4e9)

    monkeypatch.setattr("airflow_mlops.core.lifecycle.sweep.crash_point", sleep)
    with pytest.raises(ConflictError, match="stopped for longer than its lease"):
        collect(context, limits_of(), by="ana")
    assert read_table(store, ref).num_rows == 3


def test_a_missing_object_is_not_in_use(store):
    assert uses.keep(store, "data/none.parquet") is False
    with pytest.raises(NotFoundError):
        store.stat(uses.mark_key("data/none.parquet"))


def test_a_store_that_was_moved_keeps_what_its_records_name(context, version, snapshot, aged, store, tmp_path):
    ref = version(promote=True)
    wide = snapshot("wide", **{f"c{i}": [1, 2, 3] for i in range(120)})
    store.put_json("policies/1.json", {"dataset": wide.to_dict()})
    aged(days=1000)
    store.root.rename(tmp_path / "moved")
    moved = dataclasses.replace(context, store=LocalStore(tmp_path / "moved"))

    found = planned(moved)

    assert ref["training"]["row_keys_uri"].startswith(store.uri)
    assert keys(found) == set()


def test_reference_profiles_stay_for_versions_that_can_be_rolled_back_to(context, version, aged, store):
    from airflow_mlops.core.drift.binding import bind, binding_key

    version(promote=True)
    never = version()
    bound = list(store.keys("profiles"))
    bind(context, "churn", never["version"], never["test_dataset"])
    (other,) = set(store.keys("profiles")) - set(bound)
    assert bound
    aged(days=1000)

    going = keys(planned(context))

    assert {other, binding_key("churn", never["version"])} <= going
    assert not {*bound, binding_key("churn", 1)} & going
