"""The reference DAG of level 4 by ``airflow dags test``: a challenger that wins, one that loses, a run that waits."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from servers.serve_command import served

ROOT = Path(__file__).resolve().parents[2]
WHY = "Retrain, because it was asked for."
#: What makes a model fail where it is served, and nowhere else, as a file of another machine would.
NOT_SERVED = (
    "    frame = raw.copy()\n",
    """    import sys

    if sys.argv[0].endswith("serving/server.py"):
        raise FileNotFoundError("routes.csv")
    frame = raw.copy()
""",
)


def test_the_file_is_short_enough_to_be_read() -> None:
    assert len((ROOT / "dags" / "mlops_level_4.py").read_text().splitlines()) < 180


@pytest.mark.timeout(1200)
def test_a_better_challenger_is_released_and_a_worse_one_is_kept_with_the_reason(
    airflow_test: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "dags"))
    from flights.source import land

    for level in (1, 4):
        shutil.copy(ROOT / "dags" / f"mlops_level_{level}.py", airflow_test.dags)
    shutil.copytree(ROOT / "dags" / "flights", airflow_test.dags / "flights")

    def run(dag: str, **conf: Any) -> str:
        done = airflow_test.cli("dags", "test", dag, "--conf", json.dumps(conf))
        assert done.returncode == 0, done.stdout[-4000:]
        text: str = done.stdout
        return text

    def told(*words: str) -> list[dict[str, Any]]:
        done = airflow_test.cli("mlops", *words, "--output", "json")
        assert done.returncode == 0, done.stdout
        found: list[dict[str, Any]] = json.loads(done.stdout[done.stdout.index("[") : done.stdout.rindex("]") + 1])
        return found

    run("mlops_level_1", start="2013-01-01", end="2013-03-01", max_iter=20)
    promoted = airflow_test.cli("mlops", "promote", "flights_late", "1", "--reason", "first")
    assert promoted.returncode == 0, promoted.stdout
    # March to July have come since; the labels of July have not.
    land("2013-03-01", "2013-08-01", str(airflow_test.home / "flights"))

    # The first challenger wins, but does not answer where it is served: its release is stopped with the reason.
    features = airflow_test.dags / "flights" / "features.py"
    good = features.read_text()
    features.write_text(good.replace(*NOT_SERVED))
    monkeypatch.setenv("MLOPS_SERVER", "flights")
    monkeypatch.setenv("MLOPS_P95_MS", "60000")
    with served(airflow_test):
        stopped = run("mlops_level_4", clock="2013-08-01", force=True)
    said = [line for line in stopped.splitlines() if "promote" in line or "deploy" in line]
    assert "flights_late version 2 is not promoted: the deployment did not pass: " in stopped, said
    monkeypatch.delenv("MLOPS_SERVER")
    features.write_text(good)

    won = run("mlops_level_4", clock="2013-08-01", force=True)
    assert "Hyperparameters of flights_late@champion (version 1): {'max_iter': 20}" in won
    lost = run("mlops_level_4", clock="2013-08-02", force=True, hyperparameters={"max_iter": 1})
    assert "is not promoted: " in lost
    run("mlops_level_4", clock="2013-08-03")

    ledger = told("history", "flights_late")
    told_of = [(entry["action"], str(entry["version"])) for entry in ledger]
    assert told_of == [("promote", "1"), ("canary", "2"), ("refused", "2"), ("promote", "3"), ("refused", "4")]
    assert ledger[2]["reason"].startswith(f"{WHY} Not promoted: the deployment did not pass: ")
    assert ledger[2]["evidence"] == "model_test passed, deployment failed"
    assert ledger[3]["reason"] == WHY
    kept = json.loads((airflow_test.home / "mlops/store/versions/flights_late/4.json").read_text())
    assert "roc_auc" in kept["refused"], "what lost is kept, with the reason"
    decisions = told("decide", "flights_late")
    assert [one["action"] for one in decisions] == ["retrain", "retrain", "retrain", "wait"]
