"""Operators for data: take a version of it, and validate it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_mlops.core import digests
from airflow_mlops.core.errors import SpecError
from airflow_mlops.core.vocabulary import Window, check_roles
from airflow_mlops.operators.base import BACKEND_FIELDS, MlopsOperator
from airflow_mlops.operators.window import DATA_INTERVAL, window_of

if TYPE_CHECKING:
    from airflow.sdk import Asset, Context


class SnapshotDataOperator(MlopsOperator):
    """Copy a source into the store as one immutable, content-addressed Parquet file.

    Returns a dataset ref: ``name``, ``uri``, ``digest`` (of schema and values, however they lie in files), ``rows``,
    ``columns``, ``window``, ``roles``, ``source``. The source is streamed in bounded memory; nothing is stored unless
    all of it was read and it did not change meanwhile. The same rows are stored once, and taking the same snapshot
    again, in a retry or a cleared task, returns the same ref.

    :param source: path, folder, glob or ``file://`` URI of Parquet, CSV (``.csv``, ``.csv.gz``) or JSON lines
        (``.jsonl``, ``.ndjson``), or a list of these. A relative one is looked up in the DAG bundle, then beside the
        DAG's file. Files are read in the order of their paths. (templated)
    :param name: what the dataset is called; default: after the file or its folder. (templated)
    :param roles: what columns mean: ``key``, ``time``, ``available_at``, ``target``, ``weight``, ``group``,
        ``private`` (a column or a list of columns) and ``label_delay``. They travel in the ref. (templated)
    :param window: ``{"start", "end"}`` or ``{"end", "length": "7d"}``, half-open; with a time role only rows inside
        are kept. ``"data_interval"`` takes the run's. Default: the ``window`` of the asset events that triggered the
        run, else a partition key that is a month, day or hour, else all rows, and the window recorded is the one that
        the time role spans. (templated)
    :param columns: only these columns, in this order; default all. (templated)
    :param schema: ``{column: type}``, where the types found or inferred are not wanted, such as
        ``{"zip": "string"}``. (templated)
    :param outlet: an asset; it is added to the task's outlets, and its event's extra has the ref under ``dataset``
        (without ``columns``), its ``window`` and a stable ``id``.
    :raises ValueError: in the constructor, for a role or window that cannot be.
    """

    step = "snapshot_data"
    step_arguments = ("source", "name", "roles", "window", "columns", "schema")
    template_fields: Sequence[str] = (*step_arguments, *BACKEND_FIELDS)
    template_fields_renderers = {"roles": "json", "window": "json", "schema": "json"}  # noqa: RUF012

    def __init__(
        self,
        *,
        source: str | list[str],
        name: str | None = None,
        roles: dict[str, Any] | None = None,
        window: dict[str, Any] | str | None = None,
        columns: list[str] | None = None,
        schema: dict[str, str] | None = None,
        outlet: Asset | None = None,
        **kwargs: Any,
    ) -> None:
        if outlet is not None:
            others = kwargs.get("outlets") or []
            kwargs["outlets"] = [*(others if isinstance(others, (list, tuple)) else [others]), outlet]
        super().__init__(**kwargs)
        try:
            if isinstance(roles, dict):
                check_roles(roles)
            if isinstance(window, dict) and "{" not in str(list(window.values())):
                Window.of(window)
        except SpecError as error:
            raise ValueError(error.message) from None
        if isinstance(window, str) and window not in ("", DATA_INTERVAL) and "{" not in window:
            raise ValueError(
                f"window must be {{'start', 'end'}}, {{'end', 'length'}} or 'data_interval', got {window!r}"
            )
        self.source = source
        self.name = name
        self.roles = roles
        self.window = window
        self.columns = columns
        self.schema = schema
        self.outlet = outlet

    def arguments(self, context: Context) -> dict[str, Any]:
        """Return the step's arguments, with the window that the run speaks of."""
        return {**super().arguments(context), "window": window_of(context, self.window)}

    def conclude(self, context: Context, result: dict[str, Any]) -> dict[str, Any]:
        """Put the ref on the asset event and return it."""
        if self.outlet is not None:
            ref = {**result, "columns": None}
            context["outlet_events"][self.outlet].extra.update(
                {"id": digests.of_json(ref), "dataset": ref, "window": result.get("window")}
            )
        return result
