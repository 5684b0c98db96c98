"""Hold data against a reference, in anybody's DAG."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperatorLink

from airflow_mlops.core import digests
from airflow_mlops.core.drift.columns import check_columns
from airflow_mlops.core.drift.importance import check_importance, is_model
from airflow_mlops.core.drift.references import check_needs, is_champion
from airflow_mlops.core.drift.step import check_method, check_shares
from airflow_mlops.core.errors import SpecError
from airflow_mlops.core.vocabulary import Window, check_roles
from airflow_mlops.links.model import ReportLink
from airflow_mlops.operators.base import LONG_FIELDS, GateOperator, add_outlet
from airflow_mlops.operators.paths import resolve_path
from airflow_mlops.operators.window import DATA_INTERVAL, window_of

if TYPE_CHECKING:
    from airflow.sdk import Asset, Context


class DetectDriftOperator(GateOperator):
    """Compare a dataset with a reference, column by column, in bounded memory, and publish the verdict of each window.

    Returns a report of kind ``drift``: ``passed``, ``severity``, ``summary``, ``metrics`` (``drift_share``,
    ``drifted_columns``, ``compared_columns``, ``missing_shifts``, ``category_changes``, ``broken_columns``, rows),
    ``checks``, ``failures``, ``window``, ``subject``, ``report_uri`` (HTML), ``details_uri`` (JSON with every column).
    No value of the data is in it.

    Drift of the dataset is a ``warning``; so are missing values or categories that changed. Columns that are missing,
    empty or of another type, and drift of the predictions, are an ``error``. Any two datasets will do: no model, no
    registry. A subject's window that is judged again, in a retry or a cleared task, has one report and one point in the
    history.

    :param current: the data to look at: a dataset ref, such as ``snapshot.output``, or a path, glob or URI, which is
        read in place. (templated)
    :param reference: what it is held against: a dataset ref, path, glob or URI; ``"name@alias"``: the profile that is
        bound to the model version which the alias points at; ``{"offset": "-52w"}``: the same data so much earlier,
        by the time role; ``{"history": 8}``: the subject's own last accepted windows; or a list of these, with
        ``combine``. (templated)
    :param columns: names, or ``{"age": {"kind": "numeric", "test": "psi", "threshold": 0.2}}``; default: all columns of
        the reference that are no key, time, weight or group. (templated)
    :param method: ``"evidently"``: for each column the test that Evidently takes by default; or the name of a test, for
        all columns that it is defined for: ``wasserstein``, ``ks``, ``psi``, ``jensenshannon``, ``kl_div``,
        ``hellinger``, ``chisquare``, ``z``, ``tvd``. (templated)
    :param thresholds: ``"evidently"``: those of the tests; a number for all columns; ``{column: number}``; or
        ``"learn"``: from blocks inside the reference, quiet on the user's own data; not against a history, of which
        only profiles are kept. (templated)
    :param sensitivity: of learnt thresholds: ``low``, ``normal`` or ``high``. (templated)
    :param block: how long the blocks are that thresholds are learnt from, such as ``"7d"``; default: as long as the
        window. (templated)
    :param subject: what is watched, such as ``"churn:7"``; default: the digest of the current data. (templated)
    :param drift_share: share of the compared columns from which on the dataset has drifted.
    :param min_rows: a column with fewer values on a side is not judged: few rows look like drift.
    :param combine: with several references: ``"all"``: a column has drifted if it is unlike each of them; ``"any"``.
        (templated)
    :param by: columns to look at segments by: each value of them is judged by itself too; not against a history, of
        which only profiles are kept. (templated)
    :param predictions: columns of what the model said; their drift is an error. (templated)
    :param target: short for ``roles={"target": ...}``. (templated)
    :param roles: what columns mean, added to those of the dataset. (templated)
    :param window: ``{"start", "end"}`` or ``{"end", "length"}``; with a time role only the rows inside are compared.
        ``"data_interval"`` takes the run's. Default: as for ``SnapshotDataOperator``, where there is a time role.
        (templated)
    :param report: when to write Evidently's own HTML beside ours (``evidently_uri``), on about 10,000 rows a side that
        are drawn with the seed 0: ``"never"``, ``"drifted"``, or
        ``"always"``; it needs the extra ``evidently``. (templated)
    :param importance: how much each column matters, ``{column: number}``, or the model to take that from (a ref,
        ``"name@alias"`` or URI); default: the model of a reference ``"name@alias"``, whose training put it on record.
        What matters most is told first. (templated)
    :param show_values: whether new and vanished categories and segments stand in the report. They may be personal data.
    :param outlet: an asset; it is added to the task's outlets, and its event's extra has the verdict under ``report``,
        its ``window`` and a stable ``id``.
    :param fail_on: from which severity on the task fails: ``error``, ``warning`` or ``never`` (the default: a task that
        fails publishes no event). (templated)
    :raises ValueError: in the constructor, for what no run could use.
    """

    step = "detect_drift"
    step_arguments = (
        *("current", "reference", "columns", "method", "thresholds", "subject", "drift_share", "min_rows", "combine"),
        *("sensitivity", "block"),
        *("by", "predictions", "target", "roles", "window", "report", "show_values", "importance"),
    )
    path_arguments = ("current",)
    operator_extra_links: Collection[BaseOperatorLink] = (ReportLink(),)
    template_fields: Sequence[str] = (
        *(name for name in step_arguments if name not in ("show_values", "drift_share", "min_rows")),
        "fail_on",
        *LONG_FIELDS,
    )
    template_fields_renderers = dict.fromkeys(
        ("current", "reference", "columns", "thresholds", "roles", "window", "importance"), "json"
    )

    def __init__(
        self,
        *,
        current: Any,
        reference: Any,
        columns: list[str] | dict[str, Any] | None = None,
        method: str = "evidently",
        thresholds: str | float | dict[str, float] = "evidently",
        subject: str | None = None,
        drift_share: float = 0.5,
        min_rows: int = 30,
        combine: str = "all",
        sensitivity: str = "normal",
        block: str | None = None,
        by: str | list[str] | None = None,
        predictions: str | list[str] | None = None,
        target: str | None = None,
        roles: dict[str, Any] | None = None,
        window: dict[str, Any] | str | None = None,
        report: str = "never",
        show_values: bool = False,
        importance: dict[str, Any] | str | None = None,
        outlet: Asset | None = None,
        fail_on: str = "never",
        **kwargs: Any,
    ) -> None:
        add_outlet(kwargs, outlet)
        super().__init__(fail_on=fail_on, **kwargs)
        try:
            if isinstance(columns, (dict, list)) and "{{" not in str(columns):
                check_columns(columns)
            if "{" not in str(method):
                check_method(method)
            check_shares(drift_share, min_rows)
            if "{{" not in str(importance):
                check_importance(importance)
            check_needs(reference, thresholds, by)
            if isinstance(roles, dict):
                check_roles(roles)
            if isinstance(window, dict) and "{" not in str(list(window.values())):
                Window.of(window)
        except SpecError as error:
            raise ValueError(error.message) from None
        for name, value, allowed in (
            ("combine", combine, ("all", "any")),
            ("report", report, ("never", "drifted", "always")),
            ("sensitivity", sensitivity, ("low", "normal", "high")),
        ):
            if value not in allowed and "{" not in str(value):
                raise ValueError(f"{name} must be {' or '.join(map(repr, allowed))}, got {value!r}")
        if not isinstance(show_values, bool):
            raise ValueError(f"show_values must be True or False, got {show_values!r}")
        self.current = current
        self.reference = reference
        self.columns = columns
        self.method = method
        self.thresholds = thresholds
        self.subject = subject
        self.drift_share = drift_share
        self.min_rows = min_rows
        self.combine = combine
        self.sensitivity = sensitivity
        self.block = block
        self.by = by
        self.predictions = predictions
        self.target = target
        self.roles = roles
        self.window = window
        self.report = report
        self.show_values = show_values
        self.importance = importance
        self.outlet = outlet

    @property
    def needs_mlflow(self) -> bool:  # type: ignore[override]
        """Whether a model's alias has to be looked up; two datasets need no registry."""
        several = self.reference if isinstance(self.reference, (list, tuple)) else [self.reference]
        return any(is_champion(one) for one in several) or is_model(self.importance)

    def arguments(self, context: Context) -> dict[str, Any]:
        """Return the step's arguments, with the window that the run speaks of, and paths resolved."""
        brought = self.current.get("roles") if isinstance(self.current, dict) else None
        roles = {**(brought or {}), **(self.roles or {})}
        asked = self.window == DATA_INTERVAL or self.window or roles.get("time")
        window = window_of(context, self.window) if asked else None
        return {**super().arguments(context), "window": window, "reference": _resolved(context, self.reference)}

    def conclude(self, context: Context, result: dict[str, Any]) -> Any:
        """Put the verdict on the asset event, then decide."""
        if self.outlet is not None:
            window = result.get("window")
            told = {key: value for key, value in result.items() if key != "failures"}
            told["failures"] = result.get("failures", [])[:5]
            identity = digests.of_json([result["kind"], result.get("subject"), window, result.get("digest")])
            context["outlet_events"][self.outlet].extra.update({"id": identity, "report": told, "window": window})
        return super().conclude(context, result)


def _resolved(context: Context, reference: Any) -> Any:
    if isinstance(reference, (list, tuple)):
        return [_resolved(context, one) for one in reference]
    return reference if is_champion(reference) else resolve_path(context, reference)
