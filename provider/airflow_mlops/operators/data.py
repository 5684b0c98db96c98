"""Operators for data: take a version of it, and validate it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_mlops.core import digests
from airflow_mlops.core.errors import SpecError
from airflow_mlops.core.vocabulary import Window, check_roles
from airflow_mlops.hooks.sql import SqlHook
from airflow_mlops.operators.base import LONG_FIELDS, GateOperator, LongOperator, add_outlet
from airflow_mlops.operators.paths import resolve_path
from airflow_mlops.operators.window import DATA_INTERVAL, window_of

if TYPE_CHECKING:
    from airflow.sdk import Asset, Context


class SnapshotDataOperator(LongOperator):
    """Copy files or the rows of a query into the store as one immutable, content-addressed Parquet file.

    Returns a dataset ref: ``name``, ``uri``, ``digest`` (of schema and values, however they lie in files), ``rows``,
    ``columns``, ``window``, ``roles``, ``source``. The source is streamed in bounded memory; nothing is stored unless
    all of it was read and it did not change meanwhile. The same rows are stored once, and taking the same snapshot
    again, in a retry or a cleared task, returns the same ref.

    :param source: path, folder, glob, ``file://`` or ``s3://`` URI of Parquet, CSV (``.csv``, ``.csv.gz``) or JSON
        lines (``.jsonl``, ``.ndjson``), or a list of these. A relative one is looked up in the DAG bundle, then beside
        the DAG's file. Files are read in the order of their paths. (templated)
    :param sql: in place of ``source``, one query, or the path of a ``.sql`` file as Airflow finds templates. It is read
        through a server-side cursor, in a transaction that changes nothing and, on Postgres, sees one instant.
        (templated)
    :param conn_id: Airflow's connection to the database of ``sql``, of any type whose provider reads by SQL.
        (templated)
    :param order_by: column or columns that give the rows of ``sql`` one order, such as its key; needed with ``sql``,
        because the same rows in another order are another version. (templated)
    :param parameters: values of the query's ``:name`` parameters. The driver binds them; what comes from outside the
        DAG belongs here and not into the text. (templated)
    :param name: what the dataset is called; default: after the file or its folder, or the query's first table.
        (templated)
    :param roles: what columns mean: ``key``, ``time``, ``available_at``, ``target``, ``weight``, ``group``,
        ``private`` (a column or a list of columns) and ``label_delay``. They travel in the ref. (templated)
    :param window: ``{"start", "end"}`` or ``{"end", "length": "7d"}``, half-open; with a time role only rows inside
        are kept; a query is filtered by the database. ``"data_interval"`` takes the run's. Default: the ``window`` of
        the asset events that triggered the run, else a partition key that is a month, day or hour, else all rows, and
        the window recorded is the one that the time role spans. (templated)
    :param columns: only these columns, in this order; default all. (templated)
    :param schema: ``{column: type}``, where the types found or inferred are not wanted, such as
        ``{"zip": "string"}``. (templated)
    :param outlet: an asset; it is added to the task's outlets, and its event's extra has the ref under ``dataset``
        (without ``columns``), its ``window`` and a stable ``id``.
    :raises ValueError: in the constructor, for a role or window that cannot be, for both or neither of ``source`` and
        ``sql``, and for ``sql`` without ``conn_id`` or ``order_by``.
    """

    step = "snapshot_data"
    step_arguments = (
        *("source", "sql", "conn_id", "order_by", "parameters"),
        *("name", "roles", "window", "columns", "schema"),
    )
    template_fields: Sequence[str] = (*step_arguments, *LONG_FIELDS)
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers = {"sql": "sql", "roles": "json", "window": "json", "schema": "json"}  # noqa: RUF012

    def __init__(
        self,
        *,
        source: str | list[str] | None = None,
        sql: str | None = None,
        conn_id: str | None = None,
        order_by: str | list[str] | None = None,
        parameters: dict[str, Any] | None = None,
        name: str | None = None,
        roles: dict[str, Any] | None = None,
        window: dict[str, Any] | str | None = None,
        columns: list[str] | None = None,
        schema: dict[str, str] | None = None,
        outlet: Asset | None = None,
        **kwargs: Any,
    ) -> None:
        add_outlet(kwargs, outlet)
        super().__init__(**kwargs)
        if (source is None) == (sql is None):
            raise ValueError("give either source (files) or sql (a query)")
        if sql is not None and (conn_id is None or not order_by):
            raise ValueError(
                "sql needs conn_id, and order_by: the same rows in another order would be another version of the data"
            )
        _check(roles, window)
        self.source = source
        self.sql = sql
        self.conn_id = conn_id
        self.order_by = order_by
        self.parameters = parameters
        self.name = name
        self.roles = roles
        self.window = window
        self.columns = columns
        self.schema = schema
        self.outlet = outlet

    def arguments(self, context: Context) -> dict[str, Any]:
        """Return the step's arguments, with the window that the run speaks of."""
        return {**super().arguments(context), "window": window_of(context, self.window)}

    def variables(self, context: Context) -> dict[str, str]:
        """Return the variable with the database's URL, where there is a query."""
        return SqlHook(self.conn_id).environment if self.conn_id else {}

    def conclude(self, context: Context, result: dict[str, Any]) -> dict[str, Any]:
        """Put the ref on the asset event and return it."""
        if self.outlet is not None:
            ref = {**result, "columns": None}
            context["outlet_events"][self.outlet].extra.update(
                {"id": digests.of_json(ref), "dataset": ref, "window": result.get("window")}
            )
        return result


class ValidateDataOperator(GateOperator):
    """Hold a dataset, or a table where it is, to expectations, and tell schema skew from value skew.

    Returns a report of kind ``validation``: ``passed``, ``severity``, ``summary``, ``metrics`` (``schema_skew``,
    ``value_skew``, ``rows``, ``columns``, ``expectations``), ``checks``, ``failures``, ``subject`` (the dataset's
    digest), ``report_uri`` (HTML), ``details_uri`` (JSON) and ``dataset``: the ref to go on with. It is pushed before
    the task fails. No value of the data is in it.

    Severity ``critical`` (the default of an expectation) fails the report, ``warning`` is a warning, ``info`` is
    recorded only. A column that is missing, or of a type that an expectation cannot work on, is schema skew and an
    error whatever the severity of the expectations about its values; ``expect_column_to_exist`` grades its absence.
    Types answer to Arrow's, pandas' and Python's names, whichever version of pandas runs.

    A ``table`` or ``sql`` is judged by its database: first whether each expectation holds, then counts of what failed.
    The worker's memory does not grow with it. Its ref says where it was read, not which rows: take a snapshot to go on
    with the rows.

    :param dataset: a dataset ref, such as ``snapshot.output``, or a path, glob or URI that is read in place.
        (templated)
    :param table: in place of ``dataset``, a table ``name`` or ``schema.name``. (templated)
    :param sql: in place of ``dataset``, one query, or the path of a ``.sql`` file. (templated)
    :param conn_id: Airflow's connection to the database of ``table`` or ``sql``. (templated)
    :param parameters: values of the query's ``:name`` parameters, bound by the driver. (templated)
    :param columns: ``{our name: their name}``, where a table or query calls columns otherwise than expectations and
        roles do. (templated)
    :param window: with ``table`` or ``sql`` and a time role, only rows inside are judged; as for
        ``SnapshotDataOperator``. (templated)
    :param expectations: a list of ``{"type", "kwargs", "severity"}`` as Great Expectations writes it, a suite as a dict
        with ``expectations``, the path of a ``.json``, ``.yaml`` or ``.yml`` file with either, relative to the DAG
        bundle or the DAG's file, a function without arguments that returns a list, or its
        ``"package.module:function"``. (templated)
    :param roles: what columns mean, added to the dataset's own; ``private`` ones never show a value. (templated)
    :param target: short for ``roles={"target": ...}``. (templated)
    :param name: what to call a dataset that is read in place; default: after the file or its folder. (templated)
    :param show_values: put up to 20 failing values of each expectation into the report's page and details. They may be
        personal data.
    :param quarantine: True, or ``{"max_share": 0.05, "max_rows": 1000, "severity": "error"}``: rows of a ``dataset``
        that fail an expectation about single rows are written aside, with the reasons of each, as the dataset under
        ``quarantine``; ``dataset`` is the others, judged again. The report is then a warning. Beyond ``max_share`` (by
        default 0.05 of the rows) or ``max_rows`` nothing is set aside and the report fails. ``severity``: from which
        severity of an expectation on, ``error`` or ``warning``. (templated)
    :param fail_on: from which severity on the task fails: ``error``, ``warning`` or ``never``. (templated)
    :raises ValueError: in the constructor, for an empty list, for none or several of ``dataset``, ``table`` and
        ``sql``, and for a role, window, ``quarantine`` or ``show_values`` that cannot be.
    """

    step = "validate_data"
    step_arguments = (
        *("dataset", "table", "sql", "conn_id", "parameters", "columns", "window"),
        *("expectations", "roles", "target", "name", "quarantine", "show_values"),
    )
    template_fields: Sequence[str] = (
        *(name for name in step_arguments if name != "show_values"),
        "fail_on",
        *LONG_FIELDS,
    )
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers = {  # noqa: RUF012
        **dict.fromkeys(("dataset", "expectations", "roles", "window", "columns", "quarantine"), "json"),
        "sql": "sql",
    }

    def __init__(
        self,
        *,
        dataset: dict[str, Any] | str | None = None,
        table: str | None = None,
        sql: str | None = None,
        conn_id: str | None = None,
        parameters: dict[str, Any] | None = None,
        columns: dict[str, str] | None = None,
        window: dict[str, Any] | str | None = None,
        expectations: Any,
        roles: dict[str, Any] | None = None,
        target: str | None = None,
        name: str | None = None,
        quarantine: bool | dict[str, Any] | None = None,
        show_values: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if sum(one is not None for one in (dataset, table, sql)) != 1:
            raise ValueError("give one of dataset, table and sql")
        if dataset is None and conn_id is None:
            raise ValueError("table and sql need conn_id: the connection to their database")
        if dataset is None and quarantine:
            raise ValueError("quarantine needs the rows: take a snapshot of the table, and validate that")
        if isinstance(expectations, (list, tuple, dict)) and not expectations:
            raise ValueError("expectations is empty: a validation that checks nothing passes everything")
        if not isinstance(show_values, bool):
            raise ValueError(f"show_values must be True or False, got {show_values!r}")
        _check(roles, window)
        self.dataset = dataset
        self.table = table
        self.sql = sql
        self.conn_id = conn_id
        self.parameters = parameters
        self.columns = columns
        self.window = window
        # Airflow would call a callable in a template field, with the context; what it shows is the name.
        self.expectations_function = expectations if callable(expectations) else None
        self.expectations = _name_of(expectations) if callable(expectations) else expectations
        self.roles = roles
        self.target = target
        self.name = name
        self.quarantine = quarantine
        self.show_values = show_values

    def arguments(self, context: Context) -> dict[str, Any]:
        """Return the step's arguments, with the function itself or where its file is."""
        expectations = self.expectations_function or self.expectations
        if isinstance(expectations, str) and expectations.lower().endswith((".json", ".yaml", ".yml")):
            expectations = resolve_path(context, expectations)
        # A dataset has its window; a table or query is given one, where its rows have times.
        timed = self.dataset is None and (self.window or (self.roles or {}).get("time"))
        window = window_of(context, self.window) if timed else self.window
        return {**super().arguments(context), "expectations": expectations, "window": window}

    def variables(self, context: Context) -> dict[str, str]:
        """Return the variable with the database's URL, where there is a table or query."""
        return SqlHook(self.conn_id).environment if self.conn_id else {}


def _check(roles: Any, window: Any) -> None:
    """Refuse roles and windows that no run could use.

    :raises ValueError: naming what is wrong.
    """
    try:
        if isinstance(roles, dict):
            check_roles(roles)
        if isinstance(window, dict) and "{" not in str(list(window.values())):
            Window.of(window)
    except SpecError as error:
        raise ValueError(error.message) from None
    if isinstance(window, str) and window not in ("", DATA_INTERVAL) and "{" not in window:
        raise ValueError(f"window must be {{'start', 'end'}}, {{'end', 'length'}} or 'data_interval', got {window!r}")


def _name_of(function: Any) -> str:
    return f"{function.__module__}:{getattr(function, '__qualname__', type(function).__name__)}"
