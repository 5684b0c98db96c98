"""Promotions and registrations that race in processes of their own, on one SQLite file and one store."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.core.registry.ledger import Ledger
from airflow_mlops.core.registry.promote import promote_model
from airflow_mlops.core.registry.register import register_model
from airflow_mlops.core.registry.versions import RegisteredModel
from airflow_mlops.core.steps import StepContext

NAME = "churn"
ROUNDS = 100

RACER = """
import json, logging, sys, time
from pathlib import Path
from airflow_mlops.core.errors import MlopsError
from airflow_mlops.core.registry.ledger import Ledger, last_done
from airflow_mlops.core.registry.promote import promote_model
from airflow_mlops.core.registry.register import register_model
from airflow_mlops.core.registry.rollback import rollback_model
from airflow_mlops.core.registry.versions import RegisteredModel
from airflow_mlops.core.steps import StepContext
from airflow_mlops.core.store import LocalStore

logging.disable(logging.CRITICAL)
setup = json.loads(sys.argv[1])
me, what = setup["me"], setup["what"]
meeting = Path(setup["meeting"])
store = LocalStore(setup["store"])

def context(key):
    return StepContext(store=store, tracking_uri=setup["tracking_uri"], key=key, run={"dag_id": f"racer-{me}"})

def meet(place):
    (meeting / f"{place}-{me}").touch()
    while not (meeting / f"{place}-{1 - me}").exists():
        if (meeting / "over").exists():
            sys.exit(f"at {place} the other racer had died")
        time.sleep(0.001)

def promotion(number):
    model = RegisteredModel(context(""), "churn")
    champion = model.alias("champion")
    # Two versions that differ from each other and from the champion.
    version = ((champion or 0) + me) % 3 + 1
    expected = "unset" if what == "unstated" else champion
    meet(f"{number}-go")
    try:
        if what == "rollback" and me == 1:
            entry = rollback_model(context(f"{me}/{number}"), model_name="churn")
        else:
            entry = promote_model(
                context(f"{me}/{number}"), model=f"churn/{version}", expected_champion=expected, evidence=[]
            )
        found = {"entry": entry["seq"], "version": entry["version"]}
    except MlopsError as error:
        found = {"error": type(error).__name__, "message": str(error)}
    meet(f"{number}-done")
    tail = last_done(Ledger(store, "churn").entries(), "champion")
    found |= {"tail": tail.seq, "stands": tail.version, "alias": model.alias("champion")}
    meet(f"{number}-read")
    return found

def registration(number):
    meet(f"{number}-go")
    model, key = setup["models"][me if what == "different" else 0], f"{me if what == 'different' else 0}/{number}"
    ref = register_model(context(key), model=model, model_name=f"{what}-{number}")
    return {"version": ref["version"]}

RegisteredModel(context(""), "churn").exists()  # Past the slow imports.
act = promotion if setup["act"] == "promote" else registration
print(json.dumps([act(number) for number in range(setup["rounds"])]))
"""


def race(context: StepContext, folder: Path, rounds: int, act: str, what: str, **more: Any) -> list[list[Any]]:
    """Run two racers over so many rounds and return what each found, round by round."""
    meeting = folder / f"meeting-{act}-{what}"
    meeting.mkdir()
    setup = {
        "meeting": str(meeting),
        "store": str(folder / "store"),
        "tracking_uri": context.tracking_uri,
        "rounds": rounds,
        "act": act,
        "what": what,
        **more,
    }
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, json.dumps({**setup, "me": me})],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for me in (0, 1)
    ]

    def end(racer: subprocess.Popen[str]) -> tuple[str, str]:
        try:
            return racer.communicate(timeout=300)
        finally:
            racer.kill()
            if racer.returncode:
                (meeting / "over").touch()  # The other one would wait for it.

    with ThreadPoolExecutor() as pool:
        ended = list(pool.map(end, racers))
    failed = [errors for racer, (_, errors) in zip(racers, ended, strict=True) if racer.returncode]
    assert not failed, "\n".join(failed)
    both = [json.loads(out.strip().splitlines()[-1]) for out, _ in ended]
    return [list(pair) for pair in zip(*both, strict=True)]


@pytest.fixture
def versions(mlflow_context: StepContext, log_model: Any) -> list[dict[str, Any]]:
    """Three versions of ``churn``."""
    return [register_model(mlflow_context, model=log_model(str(n)), model_name=NAME) for n in (1, 2, 3)]


def test_a_hundred_rounds_of_two_promotions(mlflow_context, versions, tmp_path):
    rounds = race(mlflow_context, tmp_path, ROUNDS, "promote", "stated")

    for number, pair in enumerate(rounds, start=1):
        won = [found for found in pair if "entry" in found]
        lost = [found for found in pair if "error" in found]
        assert (len(won), len(lost)) == (1, 1), f"round {number}: {pair}"
        assert lost[0]["error"] == "ConflictError", lost
        assert f"version {won[0]['version']} now" in lost[0]["message"]
        for found in pair:
            assert found["tail"] == won[0]["entry"]
            assert found["alias"] == found["stands"] == won[0]["version"]

    entries = Ledger(mlflow_context.store, NAME).entries()
    assert [entry.seq for entry in entries] == list(range(1, len(entries) + 1))
    done = [entry for entry in entries if entry.done]
    assert len(done) == ROUNDS
    assert [e.previous for e in done[1:]] == [e.version for e in done[:-1]]
    assert {entry.intent["action"] for entry in entries} == {"promote"}


def test_promotions_that_say_nothing_of_what_they_replace(mlflow_context, versions, tmp_path):
    rounds = race(mlflow_context, tmp_path, 15, "promote", "unstated")

    for pair in rounds:
        # One after the other is fair; at once only one.
        assert 1 <= len([found for found in pair if "entry" in found]) <= 2
        assert {found.get("error", "ConflictError") for found in pair} == {"ConflictError"}
        for found in pair:
            assert found["alias"] == found["stands"]
    entries = Ledger(mlflow_context.store, NAME).entries()
    assert [entry.seq for entry in entries] == list(range(1, len(entries) + 1))
    assert {entry.intent["action"] for entry in entries} == {"promote"}
    won = [found["entry"] for pair in rounds for found in pair if "entry" in found]
    assert sorted(won) == [entry.seq for entry in entries if entry.done]


def test_a_rollback_and_a_promotion_at_once(mlflow_context, versions, tmp_path):
    for version in versions:
        promote_model(dataclasses.replace(mlflow_context, key=version["uri"]), model=version, evidence=[])

    rounds = race(mlflow_context, tmp_path, 15, "promote", "rollback")

    for pair in rounds:
        # A rollback that begins when the promotion is done takes that back; of two at once only one gets through.
        assert 1 <= len([found for found in pair if "entry" in found]) <= 2
        assert {found.get("error", "ConflictError") for found in pair} <= {"ConflictError", "NotFoundError"}
        for found in pair:
            assert found["alias"] == found["stands"]
    done = [entry for entry in Ledger(mlflow_context.store, NAME).entries() if entry.done]
    assert [e.previous for e in done[1:]] == [e.version for e in done[:-1]]
    back = [entry for entry in done if entry.intent["action"] == "rollback"]
    assert all(entry.intent["expected"] == entry.previous for entry in back), "nothing else was rolled back"


@pytest.mark.parametrize("what", ["same", "different"])
def test_two_registrations_at_once(mlflow_context, log_model, tmp_path, what):
    models = [log_model("1"), log_model("2")]
    rounds = race(mlflow_context, tmp_path, 5, "register", what, models=models)

    for number, pair in enumerate(rounds):
        registered = RegisteredModel(mlflow_context, f"{what}-{number}")
        found = registered.client.search_model_versions(f"name='{registered.name}'")
        got = [one["version"] for one in pair]
        expected = 1 if what == "same" else 2
        assert len(found) == expected
        assert len(set(got)) == expected
        assert sorted(int(version.version) for version in found) == sorted(set(got))
