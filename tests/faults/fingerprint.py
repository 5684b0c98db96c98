"""What a loop left behind, without times, ids and places: equal for two loops that did the same."""

from __future__ import annotations

from typing import Any

from airflow_mlops.core.monitoring import history
from airflow_mlops.core.policy.record import Decisions
from airflow_mlops.core.registry.ledger import Ledger
from airflow_mlops.core.registry.versions import RegisteredModel, version_record
from airflow_mlops.core.steps import StepContext
from faults.parts import Parts


def fingerprint(context: StepContext, name: str) -> dict[str, Any]:
    """Return what stands in registry, ledger, store and policy memory about a model."""
    return {
        **_registry(context, name),
        "ledger": [_entry(one) for one in Ledger(context.store, name).entries()],
        "policy": _policy(context, name),
        "history": _history(context, name),
        "predictions": _predictions(context, name),
        "objects": _objects(context, name),
        "runs": _runs(context, name),
        "staged": len(list((context.store.root / ".staging").glob("*"))),
    }


def _registry(context: StepContext, name: str) -> dict[str, Any]:
    registered = RegisteredModel(context, name)
    versions = {}
    for version in registered.versions():
        number = int(version.version)
        record = version_record(context, name, number) or {}
        ref = record.get("ref", record)
        versions[number] = {
            "metrics": ref.get("metrics"),
            "rows": (ref.get("training") or {}).get("rows"),
            "reason": version.tags.get("reason"),
        }
    return {"versions": versions, "aliases": dict(registered.aliases())}


def _entry(entry: Any) -> dict[str, Any]:
    kept = ("action", "version", "previous_version", "alias", "reason")
    return {"seq": entry.seq, "state": entry.state, **{one: entry.intent.get(one) for one in kept}}


def _policy(context: StepContext, name: str) -> dict[str, Any]:
    """Return the memory, and the decisions that changed something.

    How many runs Airflow makes of two events that come close together is a matter of their timing, so a decision that
    retrains nothing may be there once or twice.
    """
    decisions = Decisions(context.store, name)
    records = [decisions.read(seq) for seq in decisions.numbers()]
    memory = decisions.memory(len(records)).to_dict()
    retrained = [one["decision"] for one in records if one["decision"]["action"] == "retrain"]
    return {
        "retrained": [(one["rule"], one["reason"]) for one in retrained],
        "runs": len(memory["runs"]),
        "windows": {
            kind: [(one["start"], one["end"], _plain(one["facts"])) for one in some]
            for kind, some in memory["windows"].items()
        },
        "rows": memory["rows"],
        "labels": memory["labels"],
        "counted": len(memory["seen"]),
    }


def _plain(facts: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in facts.items() if not key.endswith("_uri")}


def _history(context: StepContext, name: str) -> list[Any]:
    points = history.read(context.store, name)
    timed = ("seconds", "rows_per_second")
    return [
        (
            one.series,
            one.version,
            one.window,
            {key: value for key, value in one.figures.items() if key not in timed},
            one.severity,
        )
        for one in points
    ]


def _predictions(context: StepContext, name: str) -> dict[str, int]:
    found = {}
    for key in context.store.keys(f"predictions/{name}"):
        value = context.store.get_json(key)
        found[key.rpartition("/")[2]] = value["dataset"]["rows"]
    return found


def _objects(context: StepContext, name: str) -> dict[str, int]:
    """Return how many objects of each kind speak of the model: one more is one too many."""
    found: dict[str, int] = {}
    for key in context.store.keys(""):
        first, *others = key.split("/")
        if first != "retraining" and any(name in one for one in others):
            found[first] = found.get(first, 0) + 1
    return dict(sorted(found.items()))


def _runs(context: StepContext, name: str) -> dict[str, int]:
    """Return the runs and models of the model's experiments by their state."""
    client = RegisteredModel(context, name).client
    experiments = [one.experiment_id for one in client.search_experiments() if name in one.name]
    found: dict[str, int] = {}
    for run in client.search_runs(experiments) if experiments else []:
        found[f"run {run.info.status}"] = found.get(f"run {run.info.status}", 0) + 1
    for model in client.search_logged_models(experiment_ids=experiments) if experiments else []:
        found[f"model {model.status}"] = found.get(f"model {model.status}", 0) + 1
    return found


def of_airflow(parts: Parts, dags: list[str]) -> dict[str, Any]:
    """Return how the runs of DAGs ended."""
    marks = ",".join("?" * len(dags))
    states = parts.rows(f"select dag_id, state from dag_run where dag_id in ({marks})", *dags)
    tasks = parts.rows(
        f"select distinct dag_id, task_id, state from task_instance where dag_id in ({marks}) "
        "and state not in ('success', 'skipped')",
        *dags,
    )
    return {"states": sorted({state for _, state in states}), "wrong": tasks}
