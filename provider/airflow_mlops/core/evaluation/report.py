"""The report of an evaluation: the verdict in one line, and everything behind it."""

from __future__ import annotations

from typing import Any

from airflow_mlops.core.evaluation import champion as champions
from airflow_mlops.core.evaluation.evidence import Champion, Evidence
from airflow_mlops.core.evaluation.loading import NoModel
from airflow_mlops.core.evaluation.outcome import Outcome
from airflow_mlops.core.evaluation.pictures import pictures
from airflow_mlops.core.reports import figure as text
from airflow_mlops.core.reports import moment
from airflow_mlops.core.training.metrics import metric
from airflow_mlops.core.vocabulary import Report

#: What the fresh process may have found out; what it did not is null.
PROCESS = ("error", "load_seconds", "latency", "http", "throughput", "requests", "server", "contract", "memory")


def build(evidence: Evidence, outcomes: list[Outcome], names: list[Any]) -> tuple[Report, dict[str, Any]]:
    """Return the report and its details.

    :param outcomes: of every test, in their order.
    :param names: the metrics to state.
    """
    failed = sorted((one for one in outcomes if not one.passed), key=lambda one: one.severity != "error")
    severity = failed[0].severity if failed else "ok"
    figures = {metric(name).name: evidence.figure(evidence.challenger, name)[0] for name in names}
    comparison = champions.table(evidence, evidence.champion, names)
    metrics: dict[str, Any] = dict(figures)
    metrics |= {f"champion_{row['metric']}": row["champion"] for row in comparison}
    if comparison and evidence.champion and evidence.champion.judged:
        compared = len(evidence.champion.judged.rows)
        if compared != len(evidence.challenger.rows):
            # Measured on fewer rows than the model's own figures: state both sides of the comparison.
            metrics |= {f"challenger_{row['metric']}": row["challenger"] for row in comparison}
    metrics |= evidence.extra_metrics
    report = Report(
        report="model_test",
        passed=severity != "error",
        severity=severity,  # type: ignore[arg-type]
        summary=_summary(evidence, outcomes, failed, figures, comparison),
        metrics=metrics,
        checks={"total": len(outcomes), "failed": len(failed)},
        failures=[one.to_failure() for one in failed],
        window=evidence.dataset.window,
        subject=evidence.challenger.copy.ref.digest,
    )
    details = {
        "schema": 1,
        "kind": "model_test",
        "tests": [one.to_dict() for one in outcomes],
        "metrics": metrics,
        "model": _model(evidence),
        "dataset": _dataset(evidence),
        "champion": _champion(evidence.champion, comparison),
        "rivals": _rivals(evidence, names),
        "probation": evidence.release.to_dict() if evidence.release else None,
        "slices": evidence.slices,
        "calibration": evidence.calibration,
        "fairness": evidence.fairness,
        "pictures": pictures(evidence),
        "infrastructure": _infrastructure(evidence),
        "backtest": evidence.backtest,
        "caveats": _caveats(evidence),
        "origin": _origin(evidence),
        "specs": [{k: str(v) if callable(v) else v for k, v in spec.items()} for spec in evidence.specs],
    }
    return report, details


def _summary(
    evidence: Evidence,
    outcomes: list[Outcome],
    failed: list[Outcome],
    figures: dict[str, float | None],
    comparison: list[dict[str, Any]],
) -> str:
    rows = f"{len(evidence.challenger.rows):,} rows"
    if outcomes and evidence.release is not None and not failed and len(evidence.specs) == 1:
        return outcomes[-1].message + "."
    if evidence.backtest is not None:
        rows += f" of a backtest with {len(evidence.backtest)} refits"
    if failed:
        worst = failed[0].brief or failed[0].message
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        warn = "" if failed[0].severity == "error" else " as warnings"
        return f"{len(failed)} of {len(outcomes)} checks failed{warn} on {rows}. {failed[0].name}: {worst}{more}."
    line = f"All {len(outcomes)} checks passed on {rows}"
    first = next((name for name, value in figures.items() if value is not None), None)
    if first:
        line += f": {first} {text(figures[first])}"
        row = next((row for row in comparison if row["metric"] == first and row["champion"] is not None), None)
        if row and row["challenger"] == figures[first]:
            line += f" against the champion's {text(row['champion'])}"
        elif row:
            both = f"{text(row['challenger'])} against the champion's {text(row['champion'])}"
            line += f", and {both} on the rows that neither has seen"
    if evidence.champion is not None and not evidence.champion.exists:
        line += "; no champion yet"
    return line + "."


def _model(evidence: Evidence) -> dict[str, Any]:
    copy = evidence.challenger.copy
    ref = copy.ref.to_dict()
    ref.pop("test_dataset", None)
    return ref | {
        "verified": copy.verified,
        "bytes": copy.bytes,
        "flavors": copy.flavors,
        "inputs": copy.inputs,
    }


def _dataset(evidence: Evidence) -> dict[str, Any]:
    data = evidence.dataset
    return {
        "name": data.name,
        "uri": data.uri,
        "digest": data.digest,
        "window": data.window,
        "roles": data.roles,
        "target": evidence.target,
        "rows": evidence.total_rows,
        "judged": evidence.rows.count,
        "left_out": evidence.rows.left_out,
        "weighted": evidence.weights is not None,
    }


def _champion(champion: Champion | None, comparison: list[dict[str, Any]]) -> dict[str, Any] | None:
    if champion is None:
        return None
    ref = champion.ref
    rows = champion.rows
    return {
        "alias": champion.alias,
        "exists": champion.exists,
        "name": ref.name if ref else None,
        "version": ref.version if ref else None,
        "digest": ref.digest if ref else None,
        "uri": ref.uri if ref else None,
        "trained": (ref.training or {}).get("window") if ref else None,
        "same": champion.same,
        "verified": champion.verified,
        "problem": champion.problem,
        "rows": rows.count if rows else None,
        "left_out": rows.left_out if rows else [],
        "comparison": comparison,
    }


def _rivals(evidence: Evidence, names: list[Any]) -> list[dict[str, Any]]:
    """Return the other versions that were compared with, each once, with the tests that did."""
    tests: dict[int, list[str]] = {}
    for name, rival in evidence.rivals.items():
        tests.setdefault(id(rival), []).append(name)
    return [
        {
            **(_champion(rival, champions.table(evidence, rival, names)) or {}),
            "role": rival.role,
            "why": rival.why,
            "settled": rival.settled,
            "tests": tests[key],
        }
        for key, rival in {id(one): one for one in evidence.rivals.values()}.items()
    ]


def _infrastructure(evidence: Evidence) -> dict[str, Any]:
    process = evidence.infrastructure.get("process")
    return {
        "signature": evidence.infrastructure.get("signature"),
        "process": {**dict.fromkeys(PROCESS), **process} if process else None,
        "bytes": evidence.challenger.copy.bytes,
    }


def _origin(evidence: Evidence) -> list[dict[str, Any]]:
    """Return where the model comes from, as rows for the page; what is not known has no row."""
    ref, data = evidence.challenger.copy.ref, evidence.dataset
    training = ref.training or {}
    rows = training.get("rows")
    found = [
        ("Model", ref.uri, not isinstance(evidence.challenger.copy, NoModel)),
        ("MLflow run", ref.run_id, True),
        ("Adopted from", (ref.code or {}).get("adopted_from"), True),
        ("Trained on", f"{rows:,} rows" if isinstance(rows, int) else None if training else "not on record", False),
        ("Training window", _period(training.get("window")), False),
        ("Training dataset", training.get("dataset_digest"), True),
        ("Split", _listed(training.get("split")), False),
        ("Hyperparameters", _listed(evidence.hyperparameters), False),
        ("Code", _listed(ref.code), True),
        ("Environment", _listed(ref.environment), True),
        ("Tested on", data.name, False),
        ("Test window", _period(data.window), False),
        ("Test dataset", data.digest, True),
    ]
    return [{"what": what, "value": value, "code": code} for what, value, code in found if value]


def _period(window: Any) -> str | None:
    return (
        f"{moment(window['start'])} to {moment(window['end'])}"
        if isinstance(window, dict) and "start" in window
        else None
    )


def _listed(value: Any) -> str | None:
    if not isinstance(value, dict):
        return None
    plain = {k: v for k, v in value.items() if v is not None and not isinstance(v, (dict, list))}
    return ", ".join(f"{key} {item}" for key, item in plain.items()) or None


def _caveats(evidence: Evidence) -> list[str]:
    found = list(evidence.rows.caveats)
    if evidence.backtest is not None:
        count = len(evidence.backtest)
        found.insert(
            0,
            f"A backtest: both recipes were fitted anew at {count} origin{'s' * (count != 1)} and judged on what came "
            "after. It speaks of what the recipes make, not of the model's own file, which has seen these rows.",
        )
    if not evidence.challenger.copy.verified:
        found.insert(
            0,
            "The model's files were not verified: nothing is on record of them, and trust='unverified' let that pass.",
        )
    if isinstance(evidence.challenger.copy, NoModel):
        found.insert(0, "Measured on a log of predictions: the model itself was not at hand.")
    origin = evidence.challenger.copy.ref.code or {}
    if origin.get("trust") in ("unverified", "pickle"):
        found.insert(
            0,
            f"The model was trained elsewhere and adopted with trust={origin['trust']!r} from "
            f"{origin.get('adopted_from')}: its files are those of that moment, and nobody here knows what made them.",
        )
    for rival in {id(one): one for one in (evidence.champion, *evidence.rivals.values()) if one}.values():
        if rival.rows:
            found += rival.rows.caveats
        if rival.verified is False:
            called = champions.CALLED[rival.role].removeprefix("the ")
            found.append(f"The {called}'s files were not verified: nothing is on record of them.")
    return list(dict.fromkeys(found))
