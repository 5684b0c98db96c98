"""Watch how right a model is in production."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperatorLink

from airflow_mlops.core import digests
from airflow_mlops.core.errors import MlopsError
from airflow_mlops.links.model import ReportLink
from airflow_mlops.observability import emit, emit_report
from airflow_mlops.operators.base import LONG_FIELDS, GateOperator, add_outlet
from airflow_mlops.operators.paths import resolve_path
from airflow_mlops.operators.window import window_of

if TYPE_CHECKING:
    from airflow.sdk import Asset, Context


class MonitorPerformanceOperator(GateOperator):
    """Measure predictions against labels that come later, and estimate them until then.

    Each run puts its window on record, and settles every window whose labels have had ``label_delay`` to come; nothing
    waits in a slot. Neither registry nor model is needed.

    Returns a report of kind ``performance`` of the newest window that was settled, with ``baseline``, ``settled`` (the
    verdict on each window that was), ``estimate`` (of the run's own window, while it waits) and ``pending``. Where no
    window was settled, ``estimated`` is true and the report passes: an estimate is no reason to act.

    :param predictions: name of a prediction log of ours (``"churn"``), the output of ``BatchPredictOperator``, or a
        description of somebody else's: ``{"uri": "s3://...", "format": "parquet" | "csv" | "jsonl" | "sagemaker" |
        "kserve", "columns": {"key": ..., "time": ..., "prediction": ..., "probability": ..., "label": ..., "group":
        ...}}``. (templated)
    :param labels: a dataset ref, path, glob or URI, joined by the key; it may hold labels for windows to come. Default:
        the log's own column ``label``. (templated)
    :param label_delay: how long after its end a window has all its labels, such as ``"30d"``; default: the role
        label_delay, else none. (templated)
    :param metrics: scikit-learn's names, or ``"pkg.mod:function"``; the first one is judged by slice; default: the
        task's own. (templated)
    :param baseline: the level at promotion: ``{"roc_auc": 0.81}``, or a report of the model's test; default: what is on
        record of the version. (templated)
    :param max_drop: how much worse than the baseline a metric may get: a number, or ``{metric: number}``. (templated)
    :param thresholds: what a metric must reach, ``{"roc_auc": 0.7}`` or ``{"log_loss": {"max": 0.6}}``. (templated)
    :param subject: what the history is of, such as ``"churn:7"``; default: the log's name. (templated)
    :param window: the run's period as ``{"start", "end"}`` or ``{"end", "length": "7d"}``, or ``"data_interval"``;
        default: that of the triggering event or the partition key, else of the predictions. (templated)
    :param as_of: the instant by which windows must have matured; default: the end of ``window``, else now. (templated)
    :param slices: columns, or lists of columns, of the log or the labels. (templated)
    :param min_rows: labelled rows that a slice needs to be judged.
    :param cluster: ``"day"``, or the column that says which rows depend on each other; default: the group role, else
        the day. (templated)
    :param estimated: whether windows without labels are estimated.
    :param target: the labels' column. (templated)
    :param roles: what the labels' columns mean: ``key``, ``available_at``, ``label_delay``; and ``group`` and
        ``weight`` of the predictions. (templated)
    :param outlet: asset that gets an event with the verdict, whatever it is.
    """

    step = "monitor_performance"
    step_arguments = (
        *("predictions", "labels", "label_delay", "metrics", "baseline", "max_drop", "thresholds", "subject", "window"),
        *("as_of", "slices", "min_rows", "cluster", "estimated", "target", "roles"),
    )
    path_arguments = ("labels",)
    operator_extra_links: Collection[BaseOperatorLink] = (ReportLink(),)

    template_fields: Sequence[str] = (
        *(name for name in step_arguments if name not in ("min_rows", "estimated")),
        "fail_on",
        *LONG_FIELDS,
    )
    template_fields_renderers = dict.fromkeys(
        ("predictions", "labels", "baseline", "thresholds", "window", "roles"), "json"
    )

    def __init__(
        self,
        *,
        predictions: Any,
        labels: Any = None,
        label_delay: str | None = None,
        metrics: list[Any] | None = None,
        baseline: Any = None,
        max_drop: Any = None,
        thresholds: dict[str, Any] | None = None,
        subject: str | None = None,
        window: dict[str, Any] | str | None = None,
        as_of: str | None = None,
        slices: Any = None,
        min_rows: int = 200,
        cluster: str | None = None,
        estimated: bool = True,
        target: str | None = None,
        roles: dict[str, Any] | None = None,
        outlet: Asset | None = None,
        fail_on: str = "never",
        **kwargs: Any,
    ) -> None:
        add_outlet(kwargs, outlet)
        super().__init__(fail_on=fail_on, **kwargs)
        if isinstance(predictions, dict) and "{{" not in str(predictions):
            from airflow_mlops.core.evaluation import prediction_log

            try:
                prediction_log.check(predictions)
            except MlopsError as error:
                raise ValueError(error.message) from None
        self.predictions = predictions
        self.labels = labels
        self.label_delay = label_delay
        self.metrics = metrics
        self.baseline = baseline
        self.max_drop = max_drop
        self.thresholds = thresholds
        self.subject = subject
        self.window = window
        self.as_of = as_of
        self.slices = slices
        self.min_rows = min_rows
        self.cluster = cluster
        self.estimated = estimated
        self.target = target
        self.roles = roles
        self.outlet = outlet

    def arguments(self, context: Context) -> dict[str, Any]:
        """Return the step's arguments, with paths resolved and the window that the run speaks of."""
        predictions = self.predictions
        if isinstance(predictions, dict) and isinstance(predictions.get("uri"), str) and "kind" not in predictions:
            predictions = {**predictions, "uri": resolve_path(context, predictions["uri"])}
        window = window_of(context, self.window)
        return {**super().arguments(context), "predictions": predictions, "window": window}

    def conclude(self, context: Context, result: dict[str, Any]) -> Any:
        """Send the figures as metrics, give the asset its event, and let ``fail_on`` decide."""
        subject = str(result["subject"])
        if result.get("estimated"):
            emit(subject, "estimate", result.get("metrics") or {}, version=result.get("version"))
        elif result.get("settled"):
            emit_report(result, f"{subject}:{result['version']}" if result.get("version") else subject)
        if self.outlet is not None:
            told = {**result, "failures": [], "pending": []}
            # The task again has the same id: who acts on events acts once.
            same = {name: value for name, value in told.items() if name != "created_at"}
            context["outlet_events"][self.outlet].extra.update({"id": digests.of_json(same), **told})
        return super().conclude(context, result)
