"""Predict a dataset in batches, into a prediction log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_mlops.core import digests
from airflow_mlops.observability import emit
from airflow_mlops.operators.base import LONG_FIELDS, LongOperator, add_outlet
from airflow_mlops.operators.models import resolve_model
from airflow_mlops.operators.window import window_of

if TYPE_CHECKING:
    from airflow.sdk import Asset, Context


class BatchPredictOperator(LongOperator):
    """Predict a dataset batch by batch, in memory that does not grow with it, and keep what the model said.

    Returns the dataset ref of the window's rows in the prediction log, with ``log``, ``model`` (name, version, digest),
    ``figures`` and ``destination_uri`` beside it; :class:`MonitorPerformanceOperator`, ``EvaluateModelOperator`` and
    ``DetectDriftOperator`` take it as it is. A window that is predicted again takes the place of the one before, at
    once and whole. Killed at any instant and tried again there is one log. With nothing changed (model, rows,
    arguments) nothing is predicted, and the same log comes back.

    :param model: ref of a model, such as ``register.output``, or any MLflow URI (``models:/name@champion``), of any
        flavour. (templated)
    :param dataset: a dataset ref, or a path, glob or URI of Parquet, CSV or JSON lines. (templated)
    :param log_name: the log's name; default: the registered model's, else the dataset's. (templated)
    :param destination: a folder or ``s3://`` URI that gets a copy for others to read, as
        ``window=<start>--<end>/predictions.parquet``; default: the store alone. (templated)
    :param key: column or columns that identify a row, by which labels are joined later; default: the dataset's key
        role; neither: the row's number. (templated)
    :param roles: what the dataset's columns mean, added to the roles that it brings. (templated)
    :param columns: columns that go into the log beside those of the roles key, time, available_at, weight and group,
        such as those that slices are made by. (templated)
    :param window: the period as ``{"start", "end"}`` or ``{"end", "length": "7d"}``, or ``"data_interval"``; with a
        time role only rows inside it are predicted. Default: that of the triggering event or the partition key, else
        what the rows span. (templated)
    :param trust: ``"recorded"``: only a model whose files are on record; ``"unverified"``: also another. (templated)
    :param batch_rows: rows that are predicted at a time.
    :param reuse: whether a window that was predicted with nothing changed is taken as it is.
    :param outlet: asset that gets an event with log, window and rows.
    """

    step = "batch_predict"
    step_arguments = (
        *("model", "dataset", "log_name", "destination", "key", "roles", "columns", "window"),
        *("trust", "batch_rows", "reuse"),
    )
    path_arguments = ("dataset", "destination")
    needs_mlflow = True

    template_fields: Sequence[str] = (
        *(name for name in step_arguments if name not in ("batch_rows", "reuse")),
        *LONG_FIELDS,
    )
    template_fields_renderers = {"model": "json", "dataset": "json", "roles": "json", "window": "json"}  # noqa: RUF012

    def __init__(
        self,
        *,
        model: Any,
        dataset: Any,
        log_name: str | None = None,
        destination: str | None = None,
        key: str | list[str] | None = None,
        roles: dict[str, Any] | None = None,
        columns: list[str] | None = None,
        window: dict[str, Any] | str | None = None,
        trust: str = "recorded",
        batch_rows: int = 65_536,
        reuse: bool = True,
        outlet: Asset | None = None,
        **kwargs: Any,
    ) -> None:
        add_outlet(kwargs, outlet)
        super().__init__(**kwargs)
        if batch_rows < 1:
            raise ValueError(f"batch_rows must be above 0, got {batch_rows!r}")
        if trust not in ("recorded", "unverified") and "{" not in str(trust):
            raise ValueError(f"trust must be 'recorded' or 'unverified', got {trust!r}")
        self.model = model
        self.dataset = dataset
        self.log_name = log_name
        self.destination = destination
        self.key = key
        self.roles = roles
        self.columns = columns
        self.window = window
        self.trust = trust
        self.batch_rows = batch_rows
        self.reuse = reuse
        self.outlet = outlet

    def arguments(self, context: Context) -> dict[str, Any]:
        """Return the step's arguments, with the window that the run speaks of."""
        resolved = {"model": resolve_model(context, self.model), "window": window_of(context, self.window)}
        return {**super().arguments(context), **resolved}

    def conclude(self, context: Context, result: dict[str, Any]) -> Any:
        """Send the figures as metrics, give the asset its event, and return the result."""
        model = result.get("model") or {}
        emit(str(result["log"]), "predictions", result.get("figures") or {}, version=model.get("version"))
        if self.outlet is not None:
            ref = {**result, "columns": None}
            context["outlet_events"][self.outlet].extra.update(
                {"id": digests.of_json(ref), "dataset": ref, "window": result.get("window")}
            )
        return result
