"""The ledger on S3: the crash tests and the races of the local store, on a store in a bucket."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from airflow_mlops.core.registry.ledger import LEASE_VARIABLE, Ledger
from airflow_mlops.core.registry.versions import RegisteredModel


def _tests(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"s3_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


crash, races = _tests("test_registry_crash"), _tests("test_promotion_race")
for own, url in (
    ("from airflow_mlops.core.store import LocalStore", "from airflow_mlops.core.store import open_store"),
    ('LocalStore(setup["store"])', 'open_store(setup["store"])'),
):
    assert own in races.RACER
    races.RACER = races.RACER.replace(own, url)

lease = crash.lease
test_register_killed_and_tried_again = crash.test_register_killed_and_tried_again
test_promote_killed_and_tried_again = crash.test_promote_killed_and_tried_again
test_a_paused_promoter_that_wakes_up_late = crash.test_a_paused_promoter_that_wakes_up_late
versions = races.versions


@pytest.fixture
def store(s3_store: Any) -> Any:
    """What the contexts of these tests are on."""
    return s3_store


def test_rounds_of_two_promotions(mlflow_context, versions, tmp_path):
    rounds = races.race(mlflow_context, tmp_path, 20, "promote", "stated", store=mlflow_context.store.uri)
    for number, pair in enumerate(rounds, start=1):
        won = [found for found in pair if "entry" in found]
        lost = [found for found in pair if "error" in found]
        assert (len(won), len(lost)) == (1, 1), f"round {number}: {pair}"
        assert lost[0]["error"] == "ConflictError", lost
        for found in pair:
            assert found["tail"] == won[0]["entry"]
            assert found["alias"] == found["stands"] == won[0]["version"]
    entries = Ledger(mlflow_context.store, races.NAME).entries()
    assert [entry.seq for entry in entries] == list(range(1, len(entries) + 1))
    assert len([entry for entry in entries if entry.done]) == 20


def test_one_model_that_two_register_at_once_is_one_version(mlflow_context, log_model, tmp_path, monkeypatch):
    monkeypatch.delenv(LEASE_VARIABLE)
    models = [log_model("1"), log_model("2")]
    uri = mlflow_context.store.uri
    for number, pair in enumerate(
        races.race(mlflow_context, tmp_path, 3, "register", "same", models=models, store=uri)
    ):
        assert pair[0] == pair[1]
        registered = RegisteredModel(mlflow_context, f"same-{number}")
        assert len(registered.client.search_model_versions(f"name='{registered.name}'")) == 1
