"""The step ``evaluate_model``: test a model, compare it with the champion, write the report."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.core import models
from airflow_mlops.core.errors import EmptyDataError, NotFoundError, SpecError
from airflow_mlops.core.evaluation import answers, inputs, prediction_log, probation, rivals
from airflow_mlops.core.evaluation import backtest as backtests
from airflow_mlops.core.evaluation import champion as champions
from airflow_mlops.core.evaluation.evidence import Champion, Evidence, Judged, judge, take
from airflow_mlops.core.evaluation.kinds import KINDS
from airflow_mlops.core.evaluation.loading import ModelCopy, NoModel, fetch
from airflow_mlops.core.evaluation.outcome import Outcome
from airflow_mlops.core.evaluation.quality import sanity_test
from airflow_mlops.core.evaluation.report import build
from airflow_mlops.core.evaluation.rows import Rows, check_role_columns, leave_out_seen, weights_of
from airflow_mlops.core.evaluation.slices import check_slices
from airflow_mlops.core.evaluation.specs import check_of_backtest, check_of_log, check_tests, identity
from airflow_mlops.core.extras import require
from airflow_mlops.core.faults import crash_point
from airflow_mlops.core.imports import load
from airflow_mlops.core.reports import publish
from airflow_mlops.core.tracking import client, mlflow_errors
from airflow_mlops.core.training.fitting import mapping
from airflow_mlops.core.training.metrics import default_metrics, metric, task_of
from airflow_mlops.core.vocabulary import DatasetRef, ModelRef, role_columns

if TYPE_CHECKING:
    import pandas

    from airflow_mlops.core.steps import StepContext

#: Outcomes of one test that go to the log.
LOGGED = 3


def evaluate_model(
    context: StepContext,
    *,
    model: Any = None,
    predictions: dict[str, Any] | None = None,
    dataset: Any = None,
    table: str | None = None,
    sql: str | None = None,
    conn_id: str | None = None,
    parameters: dict[str, Any] | None = None,
    columns: dict[str, str] | None = None,
    tests: Any = None,
    champion: str | None = None,
    target: str | None = None,
    roles: dict[str, Any] | None = None,
    trust: models.Trust = "recorded",
    name: str | None = None,
    subject: str | None = None,
    show_values: bool = False,
    on: str = "held_out",
    backtest: dict[str, Any] | None = None,
    clock: str | None = None,
) -> dict[str, Any]:
    """Test a model on rows that it was not trained on, or a log of its predictions, and return the report.

    :param model: a model ref, or any MLflow URI; also of a model trained elsewhere.
    :param predictions: in place of ``model``, a description of a prediction log; see
        :mod:`airflow_mlops.core.evaluation.prediction_log`.
    :param dataset: a dataset ref, path, glob or URI; default: the test rows that the model's ref names. Beside
        ``predictions`` with a ``uri``: the labels, joined by the key.
    :param table: in place of ``dataset``, a table in the database of ``MLOPS_SQL_URL``.
    :param sql: in place of ``dataset``, a query there.
    :param conn_id: what the user calls the database, for messages.
    :param parameters: values of the query's ``:name`` parameters.
    :param columns: ``{name that the model uses: name in the data}`` where they differ.
    :param tests: see :mod:`airflow_mlops.core.evaluation.kinds`; default: signature, a fresh process, and, where a
        champion is named, not worse than it on the task's first default metric. Of a log: that it is finite.
    :param champion: ``name@alias`` of the model to compare with; None: none.
    :param target: the target column; default: the dataset's target role, else the model's own target.
    :param roles: added to the dataset's own roles.
    :param trust: ``"recorded"``, or ``"unverified"`` for a model that nothing is on record of.
    :param name: the report's title; default: the model's name.
    :param subject: what a prediction log is of, such as ``churn:7``; default: the digest of the log.
    :param show_values: show the values that name slices by columns of the ``private`` role.
    :param on: ``held_out``: the models, on rows that neither has seen; ``backtest``: what their recipes make of past
        windows; see :mod:`airflow_mlops.core.evaluation.backtest`.
    :param backtest: ``{"origins", "horizon", "gap", "train"}``; see :func:`.backtest.check`.
    :param clock: the present, ISO 8601: rows whose labels are not known by then are left out. Default: that of this
        machine for tests of the kind ``previous``, and none for the others.
    :return: a report of kind ``model_test`` with ``on``, ``champion``, ``champion_version``, ``model_uri``,
        ``model_name`` and ``run_id``; these are None of a log.
    :raises IntegrityError: if the model's files are not those that were logged.
    :raises EmptyDataError: if no row is left to test on.
    :raises SpecError: for a test that needs the model where there is only a log.
    """
    require("pandas", "evaluate_model")
    require("sklearn", "evaluate_model")
    specs = _specs(tests, champion, model)
    if trust not in ("recorded", "unverified"):
        raise SpecError(f"trust must be 'recorded' or 'unverified', got {trust!r}")
    if (model in (None, "")) == (predictions in (None, "", {})):
        raise SpecError("give either model, or predictions: a log of what a model said")
    options = _of_backtest(on, backtest, specs, bool(predictions))
    source = inputs.Source(dataset, table, sql, conn_id, parameters or {})
    source.check()
    given = {"columns": mapping(columns, "columns"), "roles": mapping(roles, "roles"), "target": target or None}
    ref: ModelRef | None = None
    rival: Champion | None = None
    kind = "Model test"
    with context.store.staging() as scratch:
        if predictions:
            if champion:
                raise SpecError("a champion is compared on rows that both models predict: give model, not predictions")
            evidence = _of_log(context, predictions, source, given, specs, subject, scratch)
        else:
            ref = models.resolve(context, model)
            context.log.info("evaluating %s", ref.uri)
            data, frame, wanted = _rows_of(context, ref, source, given)
            rival = rivals.champion(context, champion)
            copy = fetch(context, ref, scratch / "model", trust)
            times = probation.times(context, copy.ref, specs or [], champion or str(model), clock, data.roles)
            evidence = _evidence(context, copy, data, frame, wanted, scratch, seen=options is not None, times=times)
            evidence.champion, evidence.release = rival, times.release
            kind = "Probation" if times.only and times.release else kind
            if times.release and not times.release.settled:
                evidence.newest = answers.newest(frame, data.roles, times.release)
            evidence.rivals = rivals.others(context, specs or [], champion, times.release)
            evidence.hyperparameters, evidence.logged_metrics = _logged(context, ref)
            check_slices([str(column) for column in evidence.frame.columns], specs or [])
            if options is not None:
                _backtest(evidence, options, trust, scratch)
            elif not times.settled and (evidence.rows.count or evidence.newest is not None):
                if evidence.rows.count:
                    truth = evidence.truth(evidence.challenger.rows)
                    judge(evidence.frame, truth, evidence.challenger, evidence.not_features)
                champions.compare(evidence, rival, trust, scratch / "champion")
                rivals.each(evidence, lambda one, where: champions.compare(evidence, one, trust, where), scratch)
        crash_point("evaluate.predicted")
        evidence.show_values = show_values
        evidence.specs = specs if specs is not None else _default_tests(evidence)
        outcomes = _run(evidence)
        report, details = build(evidence, outcomes, _metric_names(evidence) if evidence.judged else [])
    tested = evidence.challenger.copy.ref
    return {
        **publish(
            context,
            report,
            details=details,
            template="model_test.html",
            identity=[
                tested.digest,
                evidence.dataset.digest,
                evidence.target,
                identity(evidence.specs),
                champion,
                *([options] if options else []),
                *([evidence.release.to_dict()] if evidence.release else []),
            ],
            title=f"{kind}: {name or tested.name or (f'a challenger of {rival.alias}' if rival else tested.uri)}",
        ),
        "on": on,
        "champion": rival.alias if rival else None,
        "champion_version": rival.ref.version if rival and rival.exists else None,
        **({"probation": evidence.release.to_dict()} if evidence.release else {}),
        "model_uri": ref.uri if ref else None,
        "model_name": ref.name if ref else None,
        "run_id": ref.run_id if ref else None,
    }


def _specs(tests: Any, champion: str | None, model: Any) -> list[dict[str, Any]] | None:
    if tests is None or tests == "":
        return None
    specs = check_tests(tests)
    compared = [spec["name"] for spec in specs if spec["kind"] in ("champion", "anchor")]
    if compared and not champion:
        raise SpecError(f"the test {compared[0]!r} needs a champion: pass champion='name@alias'")
    served = [spec["name"] for spec in specs if spec["kind"] == "previous"]
    if served and not champion and not (isinstance(model, str) and "@" in model):
        raise SpecError(
            f"the test {served[0]!r} judges what an alias serves: pass model='models:/name@alias', or "
            "champion='name@alias'"
        )
    for spec in specs:
        # Before anything is downloaded: a name that cannot be imported is a mistake of the spec.
        if spec["kind"] == "custom":
            load(spec["function"], f"the function of the test {spec['name']!r}")
        if spec["kind"] == "fairness":
            require("fairlearn", "the test kind 'fairness'")
        if "metric" in spec:
            metric(spec["metric"])
    return specs


def _of_backtest(on: str, options: Any, specs: list[dict[str, Any]] | None, of_log: bool) -> dict[str, Any] | None:
    """Return the options of a backtest, or None if there is to be none."""
    if on not in ("held_out", "backtest"):
        raise SpecError(f"on must be 'held_out' or 'backtest', got {on!r}")
    if on == "held_out":
        if options:
            raise SpecError("the options of backtest= need on='backtest'")
        return None
    if of_log:
        raise SpecError("on='backtest' fits recipes anew: give model, not predictions")
    check_of_backtest(specs or [])
    return backtests.check(options)


def _backtest(evidence: Evidence, options: dict[str, Any], trust: models.Trust, scratch: Path) -> None:
    """Judge what the recipes make of past windows, in the place of the models."""
    import numpy as np

    if evidence.moments is None:
        raise SpecError("on='backtest' needs a dataset with a time role: roles={'time': 'column'}")
    parts = backtests.folds(evidence.moments, options, evidence.roles.get("label_delay"))
    evidence.backtest = [part.to_dict() for part in parts]
    judged = np.zeros(len(evidence.frame), dtype=bool)
    judged[np.concatenate([part.test for part in parts])] = True
    evidence.rows.leave_out(~judged, "before the first origin, or without a time: they only trained")
    evidence.challenger = backtests.judge(
        evidence, evidence.challenger.copy, parts, scratch / "recipe", "the model's recipe"
    )
    if evidence.challenger.problem:
        raise SpecError(f"the model cannot be refitted: {evidence.challenger.problem}")
    champions.backtest(evidence, evidence.champion, trust, parts, scratch / "champion")
    rivals.each(evidence, lambda one, where: champions.backtest(evidence, one, trust, parts, where), scratch)


def _rows_of(
    context: StepContext, ref: ModelRef, source: inputs.Source, given: dict[str, Any]
) -> tuple[DatasetRef, pandas.DataFrame, str]:
    """Return the dataset, its rows and the target."""
    if not source.given:
        if not ref.test_dataset:
            raise SpecError(f"{ref.uri} has no test dataset on record: pass dataset=, or table= with conn_id=")
        source = inputs.Source(dataset=ref.test_dataset)
    data, frame = inputs.read(context, source, **given)
    wanted = data.roles.get("target") or ref.target
    if not wanted:
        raise SpecError("no target: pass target=, or give the dataset the role 'target'")
    return data, frame, str(wanted)


def _of_log(
    context: StepContext,
    predictions: Any,
    source: inputs.Source,
    given: dict[str, Any],
    specs: list[dict[str, Any]] | None,
    subject: str | None,
    scratch: Path,
) -> Evidence:
    """Return the evidence of a log of predictions."""
    check_of_log(specs or [])
    described = prediction_log.check(mapping(predictions, "predictions"))
    data, frame = prediction_log.read(context, described, source, **given)
    wanted = str(data.roles["target"])
    copy = NoModel(subject or data.name, subject or data.digest)
    evidence = _evidence(context, copy, data, frame, wanted, scratch)
    check_slices([str(column) for column in evidence.frame.columns], specs or [])
    judged = evidence.challenger
    truth = evidence.truth(judged.rows)
    rows = evidence.frame.iloc[judged.rows].reset_index(drop=True)
    take(judged, prediction_log.predictions_of(described, rows, truth), truth)
    return evidence


def _evidence(
    context: StepContext,
    copy: ModelCopy,
    data: DatasetRef,
    frame: pandas.DataFrame,
    target: str,
    scratch: Path,
    seen: bool = False,
    times: probation.Times | None = None,
) -> Evidence:
    """Choose the rows that the model is judged on.

    :param seen: leave no row out because the model was trained on it.
    :param times: which rows count by their time.

    :raises EmptyDataError: if none is left.
    """
    check_role_columns(frame, data.roles, target)
    total = len(frame)
    if not total:
        raise EmptyDataError(f"the dataset {data.name!r} has no rows: there is nothing to test the model on")
    labelled = frame[target].notna().to_numpy()
    frame = frame[labelled].reset_index(drop=True)
    if not len(frame):
        raise EmptyDataError(f"all {total:,} rows of the dataset {data.name!r} lack the target {target!r}")
    rows = Rows(kept=frame[target].notna().to_numpy())
    if len(frame) < total:
        rows.left_out.append({"why": f"without a value of the target {target}", "rows": total - len(frame)})
    if times is not None:
        times.leave_out(rows, frame, data.roles)
    if not seen and not isinstance(copy, NoModel):
        leave_out_seen(rows, context.store, copy.ref, frame, data.roles, "the model")
    if not rows.count and not (times and times.only):
        why = "; ".join(f"{entry['rows']:,} {entry['why']}" for entry in rows.left_out)
        raise EmptyDataError(
            f"no row of the dataset {data.name!r} is left to test the model on ({why}); test it on rows that it has "
            "not seen"
        )
    context.log.info("testing on %s of %s rows", f"{rows.count:,}", f"{total:,}")
    return Evidence(
        context=context,
        dataset=data,
        frame=frame,
        target=target,
        roles=data.roles,
        weights=weights_of(frame, data.roles),
        rows=rows,
        challenger=Judged(copy=copy, rows=rows.kept.nonzero()[0]),
        scratch=scratch,
        not_features=[target, *role_columns(data.roles)],
        total_rows=total,
    )


def _logged(context: StepContext, ref: ModelRef) -> tuple[dict[str, Any], dict[str, float]]:
    """Return the parameters and metrics that the model's run logged; none if the run is gone."""
    if not ref.run_id:
        return {}, {}
    mlflow_client = client(context, "reading a run")
    try:
        with mlflow_errors(context.tracking_uri):
            data = mlflow_client.get_run(ref.run_id).data
    except NotFoundError:
        return {}, {}
    return dict(data.params), dict(data.metrics)


def _default_tests(evidence: Evidence) -> list[dict[str, Any]]:
    if isinstance(evidence.challenger.copy, NoModel):
        return []
    tests: list[dict[str, Any]] = [{"kind": "signature"}, {"kind": "load"}] if evidence.backtest is None else []
    if evidence.champion is not None:
        names = _default_metrics(evidence)
        tests.append({"kind": "champion", "metric": names[0]})
    return check_tests(tests) if tests else []


def _default_metrics(evidence: Evidence) -> list[str]:
    truth = evidence.truth(evidence.challenger.rows)
    return default_metrics(task_of(truth, evidence.challenger.predictions))


def _metric_names(evidence: Evidence) -> list[Any]:
    """Return the metrics of the report: those that the tests name first, then the task's own."""
    named = [spec["metric"] for spec in evidence.specs if "metric" in spec]
    found: dict[str, Any] = {}
    for name in [*named, *_default_metrics(evidence)]:
        found.setdefault(metric(name).name, name)
    return list(found.values())


def _run(evidence: Evidence) -> list[Outcome]:
    outcomes = sanity_test(evidence) if evidence.judged else []
    for spec in evidence.specs:
        run = load(KINDS[spec["kind"]].run, f"the kind {spec['kind']!r}")
        found = run(evidence, spec)
        outcomes += found
        _log(evidence.context.log, found)
    return outcomes


def _log(log: logging.Logger, found: list[Outcome]) -> None:
    failed = [one for one in found if not one.passed]
    for one in (failed or found)[:LOGGED]:
        word = "passed" if one.passed else "failed"
        log.info("%s %s: %s", word, one.name, one.brief or one.message)
    more = len(failed or found) - LOGGED
    if more > 0:
        log.info("... and %d more of %s; the report has them all", more, found[0].name)
