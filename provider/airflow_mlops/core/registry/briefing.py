"""What a person has to know to approve a release: gathered from the evidence, MLflow and the records; as Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_mlops.core import models
from airflow_mlops.core.errors import IntegrityError, NotFoundError
from airflow_mlops.core.markdown import code, plain, table, value
from airflow_mlops.core.plain import clean
from airflow_mlops.core.registry.evidence import Proof
from airflow_mlops.core.registry.versions import version_record
from airflow_mlops.core.reports import figure, moment
from airflow_mlops.core.tracking import client, mlflow_errors
from airflow_mlops.core.vocabulary import ModelRef

if TYPE_CHECKING:
    from airflow_mlops.core.steps import StepContext

#: Rows that a table of the briefing has; the reports have all.
WORST_SLICES = 8
MOST_WARNINGS = 8
MOST_COLUMNS = 8
MOST_PARAMETERS = 20


def facts(
    context: StepContext,
    ref: ModelRef,
    proofs: list[Proof],
    *,
    name: str,
    alias: str,
    serving: int | None,
    drift: list[dict[str, Any]],
) -> dict[str, Any]:
    """Return what is known of a release as plain JSON.

    :param serving: the version that ``name@alias`` has now.
    :param drift: reports that are shown and decide nothing.
    """
    champion = _recorded(context, name, serving) if serving is not None else None
    tested = [proof.details for proof in proofs if proof.report["kind"] == "model_test"]
    return {
        **clean(
            {
                "model": _model(ref),
                "target": {"name": name, "alias": alias},
                "champion": {"alias": f"{name}@{alias}", "version": serving, **(_model(champion) if champion else {})},
                "reports": [_report(proof.report) for proof in proofs],
                "caveats": [text for details in tested for text in details.get("caveats") or []],
                "metrics": [row for details in tested for row in metrics(details)],
                "compared": [one for proof in proofs for one in proof.compared()],
                "anchored": [one for proof in proofs for one in proof.anchored()],
                "slices": [row for details in tested for row in _slices(details)],
                "drift": [_drift(context, report) for report in drift],
                "hyperparameters": differences(parameters(context, ref), parameters(context, champion)),
                "origin": differences(_origin(ref), _origin(champion), all_of=True),
            }
        )
    }


def _recorded(context: StepContext, name: str, version: int) -> ModelRef:
    """Return the ref of a version with all that was registered with it."""
    record = version_record(context, name, version)
    return ModelRef.from_dict(record["ref"]) if record else models.resolve(context, f"models:/{name}/{version}")


def _model(ref: ModelRef) -> dict[str, Any]:
    return {"name": ref.name, "version": ref.version, "uri": ref.uri, "digest": ref.digest, "run_id": ref.run_id}


def _report(report: dict[str, Any]) -> dict[str, Any]:
    kept = ("kind", "passed", "severity", "summary", "digest", "report_uri", "checks")
    warnings = [
        {"name": one.get("name") or one.get("type"), "message": one.get("message")}
        for one in (report.get("failures") or [])[:MOST_WARNINGS]
    ]
    return {key: report.get(key) for key in kept} | {"warnings": warnings}


def metrics(details: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the model's metrics beside the champion's, with how sure the difference is where it was tested."""
    champion = details.get("champion") or {}
    specs = {spec.get("name"): spec.get("metric") for spec in details.get("specs") or []}
    sure = {
        specs.get(test["name"]): test["comparison"]
        for test in details.get("tests") or []
        if test.get("comparison") and test.get("kind", "champion") == "champion"
    }
    compared = champion.get("comparison") or []
    if not compared:
        mine = {
            key: value
            for key, value in (details.get("metrics") or {}).items()
            if not key.startswith(("champion_", "challenger_"))
        }
        return (
            [{"metric": key, "model": value, "rows": details["dataset"]["judged"]} for key, value in mine.items()]
            if ("dataset" in details)
            else []
        )
    return [
        {
            "metric": row["metric"],
            "model": row["challenger"],
            "champion": row["champion"],
            "ahead": row["ahead"],
            "rows": champion.get("rows"),
            "certainty": sure.get(row["metric"]),
        }
        for row in compared
    ]


def _slices(details: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the slices that are furthest below the whole; their values are as the report shows them."""
    judged = [row for row in details.get("slices") or [] if row.get("value") is not None]
    judged.sort(key=lambda row: (row["passed"], -(row.get("gap") or 0)))
    return [
        {key: row.get(key) for key in ("metric", "by", "slice", "rows", "value", "overall", "gap", "passed")}
        for row in judged[:WORST_SLICES]
    ]


def _drift(context: StepContext, report: dict[str, Any]) -> dict[str, Any]:
    columns: list[dict[str, Any]] = []
    key = context.store.key_of(report["details_uri"]) if report.get("details_uri") else None
    if key is not None:
        try:
            columns = [one for one in context.store.get_json(key).get("columns") or [] if one.get("drifted")]
        except (IntegrityError, NotFoundError):
            context.log.warning("the details of the drift report are gone; it is shown by its summary")
    kept = [{key: one.get(key) for key in ("name", "test", "score", "threshold")} for one in columns[:MOST_COLUMNS]]
    return _report(report) | {"window": report.get("window"), "columns": kept, "drifted": len(columns)}


def parameters(context: StepContext, ref: ModelRef | None) -> dict[str, Any]:
    """Return the hyperparameters that a model's run logged; none if there is no run, or it is gone."""
    if ref is None or not ref.run_id:
        return {}
    mlflow_client = client(context, "reading a run")
    try:
        with mlflow_errors(context.tracking_uri):
            return dict(mlflow_client.get_run(ref.run_id).data.params)
    except NotFoundError:
        return {}


def differences(mine: dict[str, Any], its: dict[str, Any], *, all_of: bool = False) -> list[dict[str, Any]]:
    """Return what differs between two dicts as rows; with ``all_of`` also what is equal."""
    names = [*mine, *(name for name in its if name not in mine)]
    return [
        {"name": name, "model": mine.get(name), "champion": its.get(name)}
        for name in names
        if all_of or mine.get(name) != its.get(name)
    ]


def _origin(ref: ModelRef | None) -> dict[str, Any]:
    """Return what a model was made from: data and code."""
    if ref is None:
        return {}
    training, code = ref.training or {}, ref.code or {}
    window = training.get("window")
    found = {
        "Training data": training.get("dataset_digest"),
        "Training window": f"{moment(window['start'])} to {moment(window['end'])}"
        if isinstance(window, dict)
        else None,
        "Training rows": training.get("rows"),
        "Code": code.get("sha") or code.get("git_sha") or code.get("bundle_version") or code.get("adopted_from"),
    }
    if code.get("dirty"):
        found["Code"] = f"{found['Code']}, with changes that were not committed"
    return {name: value for name, value in found.items() if value is not None}


def markdown(known: dict[str, Any], links: dict[str, Any] | None = None, note: str | None = None) -> str:
    """Return the facts as Markdown for the approval page.

    :param links: ``{"reports": {report URI: address}, "mlflow": address of MLflow's pages or None}``.
    :param note: a sentence that stands below the question.
    """
    links = links or {}
    parts = [_question(known, links.get("mlflow"))]
    if note:
        parts.append(f"_{plain(note)}_")
    parts += [_reports(known["reports"], links.get("reports") or {}), _caveats(known["caveats"]), _metrics_table(known)]
    parts += [_slices_table(known["slices"]), *(_drift_part(one, links.get("reports") or {}) for one in known["drift"])]
    champion = known["champion"]["version"]
    parts.append(_table("Hyperparameters that differ from the champion's", known["hyperparameters"], champion))
    parts.append(_table("Data and code", known["origin"], champion))
    return "\n\n".join(part for part in parts if part)


def _question(known: dict[str, Any], mlflow: str | None) -> str:
    model, target, champion = known["model"], known["target"], known["champion"]["version"]
    what = f"{model['name']} version {model['version']}" if model["name"] else model["uri"]
    if mlflow and model["name"]:
        page = f"{mlflow}/#/models/{model['name'].replace(' ', '%20')}/versions/{model['version']}"
        shown = f"[{plain(what)}]({page})"
    else:
        shown = f"**{plain(what)}**"
    now = f"version {champion} now" if champion is not None else "which no version has yet"
    run = f" · [MLflow run]({mlflow}/#/runs/{model['run_id']})" if mlflow and model["run_id"] else ""
    digest = f" · {code(str(model['digest'])[:19] + '…')}" if model["digest"] else ""
    return f"Release {shown} as {code(target['name'] + '@' + target['alias'])} ({now})?{run}{digest}"


def _reports(reports: list[dict[str, Any]], links: dict[str, str]) -> str:
    lines = []
    for one in reports:
        lines.append(f"- {_verdict(one)} {_title(one, links)}: {plain(one['summary'])}")
        lines += [f"    - {plain(w['name'])}: {plain(w['message'])}" for w in one["warnings"] if w["message"]]
    return "\n".join(["### Evidence", "", *lines]) if lines else "### Evidence\n\n**None was given.**"


def _caveats(caveats: list[str]) -> str:
    return "\n".join(["### Read this with care", "", *(f"- {plain(one)}" for one in caveats)]) if caveats else ""


def _title(report: dict[str, Any], links: dict[str, str]) -> str:
    words = str(report["kind"]).replace("_", " ")
    address = links.get(report.get("report_uri") or "")
    return f"[{words}]({address})" if address else words


def _verdict(report: dict[str, Any]) -> str:
    return {"ok": "✅", "warning": "⚠️"}.get(report["severity"], "❌")


def _metrics_table(known: dict[str, Any]) -> str:
    rows = known["metrics"]
    if not rows:
        return ""
    if "champion" not in rows[0]:
        found = table(["Metric", ">Model"], [[code(row["metric"]), figure(row["model"])] for row in rows])
        return f"### Metrics on {figure(rows[0]['rows'])} rows\n\n{found}"
    compared = [
        [
            code(row["metric"]),
            figure(row["model"]),
            figure(row["champion"]),
            ("+" if row["ahead"] is not None and row["ahead"] > 0 else "") + figure(row["ahead"]),
            _certainty(row.get("certainty")),
        ]
        for row in rows
    ]
    found = table(["Metric", ">Model", ">Champion", ">Better by", "Certainty"], compared)
    return f"### Against the champion, on the same {figure(rows[0]['rows'])} rows\n\n{found}"


def _certainty(sure: dict[str, Any] | None) -> str:
    if not sure:
        return "not tested"
    bounds = f"{figure(sure['low'])} to {figure(sure['high'])}"
    return f"**{sure['verdict']}**: {bounds} by {figure(sure['units'])} {sure['unit']}"


def _slices_table(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return ""
    found = [
        [
            "✅" if row["passed"] else "❌",
            code(row["by"]),
            plain(row["slice"]),
            *(figure(row[key]) for key in ("rows", "value", "overall")),
        ]
        for row in rows
    ]
    return "### Weakest slices\n\n" + table(["", "By", "Slice", ">Rows", ">Value", ">All rows"], found)


def _drift_part(one: dict[str, Any], links: dict[str, str]) -> str:
    head = f"### Drift\n\n{_verdict(one)} {_title(one, links)}: {plain(one['summary'])}"
    if not one["columns"]:
        return head
    rows = [
        [code(column["name"]), plain(column["test"]), figure(column["score"]), figure(column["threshold"])]
        for column in one["columns"]
    ]
    return f"{head}\n\n" + table(["Column", "Test", ">Score", ">Threshold"], rows)


def _table(title: str, rows: list[dict[str, Any]], champion: int | None) -> str:
    if champion is None:
        title = title.partition(" that")[0]
    if not rows:
        return f"### {title}\n\nNone." if champion is not None else ""
    keys = ["model", "champion"] if champion is not None else ["model"]
    shown = [[plain(row["name"]), *(value(row[key]) for key in keys)] for row in rows[:MOST_PARAMETERS]]
    found = f"### {title}\n\n" + table(["", *(key.capitalize() for key in keys)], shown)
    if len(rows) > MOST_PARAMETERS:
        found += f"\n\n{len(rows) - MOST_PARAMETERS} more; MLflow's page of the run has them all."
    return found
