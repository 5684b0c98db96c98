"""Watch how a model server answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_mlops.core import digests
from airflow_mlops.core.errors import MlopsError, SpecError
from airflow_mlops.observability import emit
from airflow_mlops.operators.base import LONG_FIELDS, GateOperator
from airflow_mlops.operators.window import window_of

if TYPE_CHECKING:
    from airflow.sdk import Asset, Context


class MonitorServiceOperator(GateOperator):
    """Measure how many requests a model server answered in a window, how many it failed, and how long they took.

    The counters of the gateway and of each server behind it are read once a run, at the end of its window, and kept in
    the store; a window is the difference to the reading before. Servers that somebody else started are read where they
    expose their metrics for Prometheus.

    Returns a report of kind ``service``, with the figures ``requests``, ``error_share``, ``throughput`` (requests a
    second), ``latency_p50_ms``, ``latency_p95_ms`` and ``latency_p99_ms`` in ``metrics``, and those of each server in
    ``servers``. The first run only reads, and passes. A service that does not answer is an ``error``.

    :param server: name of a server that ``DeployModelOperator`` deploys to; of servers of somebody else any name, by
        default that of the connection. (templated)
    :param thresholds: what a figure may be: ``{"latency_p95_ms": 200, "error_share": 0.01, "throughput": {"min": 1}}``;
        a number is the most that errors and latencies may be, and the least of requests and throughput. (templated)
    :param subject: what the history is of; default: the server's name. (templated)
    :param window: the run's period as ``{"start", "end"}`` or ``{"end", "length": "1h"}``, or ``"data_interval"``;
        default: that of the triggering event or the partition key, else what is since the last reading. (templated)
    :param series: of servers of somebody else: which exposed series mean what: ``{"requests": "http_requests_total",
        "code": "status", "errors": ..., "latency": "http_request_duration_seconds", "where": {"path": "/predict"}}``;
        see :class:`airflow_mlops.core.serving.exposition.Series`. Default: what is known by name. (templated)
    :param server_conn_id: connection of type ``model_server``; None: the configuration's back end. With ``metrics`` in
        its extra (a URL, a path, or a list of them) it is of servers that somebody else started. (templated)
    :param outlet: asset that gets an event with the verdict, whatever it is.
    :raises ValueError: in the constructor, for thresholds or series that cannot be.
    """

    step = "monitor_service"
    step_arguments = ("server", "thresholds", "subject", "window")

    template_fields: Sequence[str] = (*step_arguments, "series", "server_conn_id", "fail_on", *LONG_FIELDS)
    template_fields_renderers = {"thresholds": "json", "window": "json", "series": "json"}  # noqa: RUF012

    def __init__(
        self,
        *,
        server: str | None = None,
        thresholds: dict[str, Any] | None = None,
        subject: str | None = None,
        window: dict[str, Any] | str | None = None,
        series: dict[str, Any] | None = None,
        server_conn_id: str | None = None,
        outlet: Asset | None = None,
        fail_on: str = "never",
        **kwargs: Any,
    ) -> None:
        if outlet is not None:
            others = kwargs.get("outlets") or []
            kwargs["outlets"] = [*(others if isinstance(others, (list, tuple)) else [others]), outlet]
        super().__init__(fail_on=fail_on, **kwargs)
        from airflow_mlops.core.monitoring.service import check_thresholds
        from airflow_mlops.core.serving.exposition import Series

        try:
            if "{{" not in str(thresholds) and isinstance(thresholds, (dict, type(None))):
                check_thresholds(thresholds)
            if "{{" not in str(series) and isinstance(series, (dict, type(None))):
                Series.of(series)
        except MlopsError as error:
            raise ValueError(error.message) from None
        self.server = server
        self.thresholds = thresholds
        self.subject = subject
        self.window = window
        self.series = series
        self.server_conn_id = server_conn_id
        self.outlet = outlet

    def arguments(self, context: Context) -> dict[str, Any]:
        """Return the step's arguments: where the server is, or what somebody else's server has counted."""
        from airflow_mlops.core.serving.exposition import Series
        from airflow_mlops.hooks.model_server import ModelServerHook

        hook = ModelServerHook(self.server_conn_id or None)
        found = {**super().arguments(context), "window": window_of(context, self.window)}
        if hook.metrics:
            counted, missing = hook.counted(Series.of(self.series))
            server = self.server or str(hook.connection.conn_id)  # type: ignore[union-attr]
            return {**found, "server": server, "counted": counted, "missing": missing}
        if not self.server:
            raise SpecError("MonitorServiceOperator needs server, or a connection with 'metrics' in its extra")
        return {**found, "place": hook.place.to_dict()}

    def conclude(self, context: Context, result: dict[str, Any]) -> Any:
        """Send the figures as metrics, give the asset its event, and let ``fail_on`` decide."""
        subject = str(result["subject"])
        emit(subject, "service", result["metrics"], version=result["version"], severity=result["severity"])
        for one in result["servers"]:
            emit(subject, "server", one["figures"], version=one["version"])
        if self.outlet is not None:
            told = {**result, "failures": []}
            context["outlet_events"][self.outlet].extra.update({"id": digests.of_json(told), **told})
        return super().conclude(context, result)
