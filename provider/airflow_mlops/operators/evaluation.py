"""Test a model before it is registered, promoted or served."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.errors import MlopsError, SpecError
from airflow_mlops.core.evaluation.specs import check_of_backtest, check_of_log, check_tests
from airflow_mlops.hooks.sql import SqlHook
from airflow_mlops.links.model import MLflowRunLink, ReportLink
from airflow_mlops.operators.base import LONG_FIELDS, GateOperator
from airflow_mlops.operators.models import resolve_model
from airflow_mlops.operators.paths import resolve_path

if TYPE_CHECKING:
    from airflow.sdk import Context


class EvaluateModelOperator(GateOperator):
    """Test a model on rows that it was not trained on, and against the champion on rows that neither was trained on.

    The model, the rows and the log of predictions may all be somebody else's: ``columns`` says what is what.

    Returns a report of kind ``model_test``: ``passed``, ``severity``, ``summary``, ``metrics`` (the champion's as
    ``champion_<metric>``), ``checks``, ``failures``, ``subject`` (the model's digest), ``report_uri`` (HTML),
    ``details_uri`` (JSON), ``model_uri``, ``model_name`` and ``champion_version``, the version that the evidence was
    measured against. It is pushed before the task fails.

    :param model: a model ref, such as ``train.output``, or any MLflow URI (``models:/name@alias``, ``models:/name/3``,
        ``runs:/<run>/model``), also of a model trained elsewhere. It is downloaded once and verified. (templated)
    :param predictions: in place of ``model``, a log of what a model said, which anybody may have written:
        ``{"uri": "s3://...", "format": "parquet", "columns": {"key": ..., "prediction": ..., "probability": ...,
        "label": ...}}``. ``format`` is ``parquet``, ``csv`` or ``jsonl``, by default what the name says; a
        ``probability`` column speaks of the class ``positive`` (default: the last), or ``{class: column}``. Without a
        ``uri`` the log is ``table`` or ``sql``. Tests that need no model can be asked of it: ``metric``, ``slices``,
        ``calibration``, ``fairness``, ``predictions``. (templated)
    :param dataset: a dataset ref, or a path, glob or URI; default: the test rows that the model was held out from.
        Beside ``predictions``: the labels, joined by the key. (templated)
    :param table: in place of ``dataset``, ``name`` or ``schema.name`` of a table in a database, which is read as it is
        now. (templated)
    :param sql: in place of ``dataset``, a query, or the path of a ``.sql`` file. (templated)
    :param conn_id: Airflow's connection to the database of ``table`` or ``sql``. (templated)
    :param parameters: values of the query's ``:name`` parameters, bound by the driver. (templated)
    :param columns: where the data calls columns otherwise: ``{name that the model uses: name in the data}``. Tests,
        roles and the target go by the model's names. (templated)
    :param tests: a list of dicts, each with a ``kind`` and, if wanted, ``name`` and ``severity`` (``error`` or
        ``warning``): ``metric``, ``champion``, ``anchor``, ``previous``, ``slices``, ``calibration``, ``fairness``,
        ``predictions``, ``overfit``, ``leakage``, ``robustness``, ``invariance``, ``directional``, ``signature``,
        ``load``, ``contract``, ``latency``, ``throughput``, ``memory``, ``size``, ``custom``; the page on model tests
        has their options. Default: the signature, the load, and not worse than the champion where one is named.
        (templated)
    :param champion: ``name@alias`` of the model to compare with. While there is no such model or alias, tests against
        it pass and say so. (templated)
    :param target: the target column; default: the dataset's target role, else the target that the model was trained
        for. (templated)
    :param roles: what the dataset's columns mean, added to the roles that it brings. (templated)
    :param trust: ``"recorded"``: only a model whose files are on record; ``"unverified"``: also one that this project
        has never seen, which the report then says. (templated)
    :param report_name: title of the report; default: the model's name. (templated)
    :param subject: what a prediction log is of, such as ``churn:7``; default: the digest of the log. (templated)
    :param show_values: show the values of columns of the ``private`` role where slices or groups are made by them.
    :param on: ``held_out``: the models, on rows that neither was trained on. ``backtest``: where there are too few of
        these, both recipes are fitted anew at rolling origins of ``dataset`` and judged on what came after each; for
        models that ``TrainModelOperator`` made with an importable ``trainer``, and tests of the kinds ``metric`` and
        ``champion``. (templated)
    :param backtest: ``{"origins": 4, "horizon": "28d", "gap": "30d", "train": "180d"}``: how many origins, how long
        after each is judged (default: the last half of the period, divided), how long before it no row trains
        (default: the dataset's ``label_delay``), and how far back rows train (default: all). (templated)
    :param clock: the present, ISO 8601: rows whose labels are not known by then (``label_delay`` of the roles) are left
        out. Needed where months are replayed; default: the worker's clock for tests of the kind ``previous``, and no
        such limit for others. (templated)
    :param fail_on: from which severity on the task fails: ``error``, ``warning`` or ``never``. (templated)
    :raises ValueError: in the constructor, unless one of ``model`` and ``predictions`` is given, for ``table`` or
        ``sql`` without ``conn_id``, and for a mistake in ``tests`` or ``predictions`` that can be seen before anything
        is rendered.
    """

    step = "evaluate_model"
    step_arguments = (
        *("model", "predictions", "dataset", "table", "sql", "conn_id", "parameters", "columns"),
        *("tests", "champion", "target", "roles", "trust", "subject", "show_values", "on", "backtest", "clock"),
    )
    needs_mlflow = True
    operator_extra_links = (ReportLink(), MLflowRunLink())

    template_fields: Sequence[str] = (
        *(name for name in step_arguments if name != "show_values"),
        "report_name",
        "fail_on",
        *LONG_FIELDS,
    )
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers = {  # noqa: RUF012
        **dict.fromkeys(("model", "predictions", "dataset", "columns", "tests", "roles", "backtest"), "json"),
        "sql": "sql",
    }

    def __init__(
        self,
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
        trust: str = "recorded",
        report_name: str | None = None,
        subject: str | None = None,
        show_values: bool = False,
        on: str = "held_out",
        backtest: dict[str, Any] | None = None,
        clock: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if (model is None) == (predictions is None):
            raise ValueError("give either model, or predictions: a log of what a model said")
        if sum(one is not None for one in (dataset, table, sql)) > 1:
            raise ValueError("give one of dataset, table and sql")
        if (table is not None or sql is not None) and conn_id is None:
            raise ValueError("table and sql need conn_id: the connection to their database")
        if isinstance(predictions, dict):
            _check_log(predictions)
        if isinstance(tests, (list, tuple)):
            try:
                specs = check_tests(tests, rendered=False)
            except SpecError as error:
                raise ValueError(error.message) from None
            if champion is None and (asked := {spec["kind"] for spec in specs} & {"champion", "anchor"}):
                raise ValueError(f"a test of kind {min(asked)!r} needs champion='name@alias'")
            if predictions is not None:
                _checked(check_of_log, specs)
            if on == "backtest":
                _checked(check_of_backtest, specs)
        if on not in ("held_out", "backtest") and "{" not in str(on):
            raise ValueError(f"on must be 'held_out' or 'backtest', got {on!r}")
        if trust not in ("recorded", "unverified") and "{" not in str(trust):
            raise ValueError(f"trust must be 'recorded' or 'unverified', got {trust!r}")
        self.model = model
        self.predictions = predictions
        self.dataset = dataset
        self.table = table
        self.sql = sql
        self.conn_id = conn_id
        self.parameters = parameters
        self.columns = columns
        self.tests = tests
        self.champion = champion
        self.target = target
        self.roles = roles
        self.trust = trust
        self.report_name = report_name
        self.subject = subject
        self.show_values = show_values
        self.on = on
        self.backtest = backtest
        self.clock = clock

    def arguments(self, context: Context) -> dict[str, Any]:
        """Return the step's arguments, with paths resolved."""
        predictions = self.predictions
        if isinstance(predictions, dict):
            predictions = {**predictions, "uri": resolve_path(context, predictions.get("uri"))}
        resolved = {"model": resolve_model(context, self.model), "predictions": predictions}
        return {**super().arguments(context), **resolved, "name": self.report_name}

    def variables(self, context: Context) -> dict[str, str]:
        """Return the variable with the database's URL, where there is a table or query."""
        return SqlHook(self.conn_id).environment if self.conn_id else {}


def _check_log(predictions: dict[str, Any]) -> None:
    """Refuse a description of a log that no run could use.

    :raises ValueError: naming what is wrong.
    """
    from airflow_mlops.core.evaluation import prediction_log

    if "{{" in str(predictions.get("format")):
        predictions = {**predictions, "format": None}
    try:
        prediction_log.check(predictions)
    except MlopsError as error:
        raise ValueError(error.message) from None


def _checked(check: Callable[[list[dict[str, Any]]], None], specs: list[dict[str, Any]]) -> None:
    """Refuse tests that cannot be asked.

    :raises ValueError: naming the test.
    """
    try:
        check(specs)
    except SpecError as error:
        raise ValueError(error.message) from None
