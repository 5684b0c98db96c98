"""A table or query held to expectations by its own database: the rows stay there, figures come back.

Great Expectations first says of each expectation only whether it holds: all aggregates in one query. Counts, and
examples where they were asked for, are asked only of what failed. Everything runs on one connection, in one read-only
transaction, so the verdict is about one instant (see :meth:`~airflow_mlops.core.data.sql_connection.Database.reading`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.data.sql_connection import Database
from airflow_mlops.core.data.sql_errors import first_line, translated
from airflow_mlops.core.errors import MlopsError, SpecError, UnsupportedError
from airflow_mlops.core.validation.column_types import ColumnType
from airflow_mlops.core.validation.expectations import Expectation
from airflow_mlops.core.validation.instants import with_python_instants
from airflow_mlops.core.validation.library import great_expectations, quiet
from airflow_mlops.core.validation.measure import exception_of
from airflow_mlops.core.validation.outcome import MAX_EXAMPLES, Exposure, Outcome, measured, unworkable

if TYPE_CHECKING:
    import sqlalchemy

    from airflow_mlops.core.data.sql_types import SqlColumn

_BATCH = "rows"
#: Metrics that bring every different value of a column to the worker, and how many those may be.
_VALUES = {"column.value_counts", "column.distinct_values", "column.distinct_values.missing_from_column"}
#: Of these the verdict takes only the counts, which are metrics of their own.
_TOLD = {"column.distinct_values.missing_from_column", "column.distinct_values.not_in_set"}
#: Beginnings of expectations of which only values could be told beside the verdict.
_ONLY_VALUES = ("expect_column_distinct_values_", "expect_column_most_common_value_")
MAX_VALUES = 100_000


@dataclass(frozen=True)
class SqlSubject:
    """The rows of a statement, as something to hold to expectations.

    :param rows_of: what is selected: columns under the names that expectations use, inside the window.
    :param columns: those columns with their types.
    :param rows: how many rows there are.
    """

    database: Database
    connection: sqlalchemy.Connection
    rows_of: Any
    columns: Sequence[SqlColumn]
    rows: int
    exposure: Exposure

    @cached_property
    def kinds(self) -> dict[str, ColumnType]:
        """The columns' types by their names."""
        from airflow_mlops.core.validation.column_types import sql_type

        return {
            column.name: sql_type(str(column.type) if column.type is not None else None, column.sql)
            for column in self.columns
        }

    def run(self, expectations: dict[int, Expectation]) -> dict[int, Outcome]:
        """Run Great Expectations: whether each holds; what broke again, alone; counts of what failed."""
        kwargs = {n: with_python_instants(e, self._kind(e)) for n, e in expectations.items()}
        engine = _Engine(self, self.rows_of)
        results = engine.results({n: e.built(kwargs[n], n) for n, e in expectations.items()}, "BOOLEAN_ONLY")
        broken: dict[int, str | None] = {}
        for n in [n for n in expectations if n not in results or exception_of(results[n]) is not None]:
            # One that breaks takes along all that share its query.
            alone = engine.results({n: expectations[n].built(kwargs[n], n)}, "BOOLEAN_ONLY")
            results |= alone
            if n not in alone or exception_of(alone[n]) is not None:
                broken[n] = self._reason(expectations[n].built(kwargs[n], n), n)
        failed = [n for n in expectations if n not in broken and not results[n].success]
        details = self._details(engine, {n: expectations[n].built(kwargs[n], n) for n in failed})
        outcomes = {}
        for n, expectation in expectations.items():
            if n in broken:
                outcomes[n] = self._broken(expectation, broken[n])
            else:
                figures = dict((details.get(n) or results[n]).result or {})
                outcomes[n] = measured(
                    expectation, bool(results[n].success), figures, list(self.kinds), self.rows, self.exposure
                )
        return outcomes

    def _kind(self, expectation: Expectation) -> ColumnType | None:
        names = expectation.columns
        return self.kinds[names[0]] if len(names) == 1 else None

    def _details(self, engine: _Engine, built: dict[int, Any]) -> dict[int, Any]:
        """Return results with counts, of those that can be had."""
        if not self.exposure.values:
            built = {n: one for n, one in built.items() if not one.expectation_type.startswith(_ONLY_VALUES)}
        if not built:
            return {}
        examples = MAX_EXAMPLES if self.exposure.values else 0
        found = engine.results(built, "BASIC", examples)
        return {n: result for n, result in found.items() if exception_of(result) is None}

    def _reason(self, built: Any, number: int) -> str | None:
        """Return why an expectation cannot be evaluated, from none of the rows, so that it can quote no value."""
        import sqlalchemy as sa

        probe = _Engine(self, self.rows_of.where(sa.false()))
        found = probe.results({number: built}, "BOOLEAN_ONLY")
        if probe.error is not None:
            return first_line(getattr(probe.error, "orig", None) or probe.error, self.database.secrets)
        text = exception_of(found[number]) if number in found else None
        return text.splitlines()[0] if text else None

    def _broken(self, expectation: Expectation, reason: str | None) -> Outcome:
        if reason and ("PassThroughCondition" in reason or "condition_parser" in reason):
            raise SpecError(
                f'{expectation.type}: in a database a row_condition is written as col("age") > 18, with '
                "condition_parser 'great_expectations'",
                expectation=expectation.type,
            )
        if reason and "No provider found" in reason:
            raise SpecError(
                f"{expectation.type} does not run in a database; take a snapshot, and validate that",
                expectation=expectation.type,
            )
        return unworkable(expectation, {name: self.kinds[name].name for name in expectation.columns}, reason)


class _Engine:
    """Great Expectations' engine for SQL, on a connection and in a transaction that are not its own."""

    def __init__(self, subject: SqlSubject, rows_of: Any) -> None:
        great_expectations()
        from great_expectations.execution_engine import SqlAlchemyExecutionEngine
        from great_expectations.execution_engine.sqlalchemy_batch_data import SqlAlchemyBatchData

        self.subject = subject
        #: The last exception of the database.
        self.error: BaseException | None = None
        #: What ends the step, whatever the library makes of it.
        self._fatal: MlopsError | None = None
        self._decides = True
        self._types = [
            {"name": c.name, "type": _sqlalchemy_type(c.type), "nullable": True, "primary_key": False}
            for c in subject.columns
        ]
        with quiet():
            engine = self.engine = SqlAlchemyExecutionEngine(engine=subject.database.engine, create_temp_table=False)
            # Metrics are looked up by the class's name, so it cannot be a subclass.
            self._resolve = engine.resolve_metrics
            engine.resolve_metrics = self._resolve_metrics
            engine.execute_query = self._execute
            engine.load_batch_data(
                _BATCH, SqlAlchemyBatchData(execution_engine=engine, selectable=rows_of, create_temp_table=False)
            )

    def results(self, built: dict[int, Any], kind: str, examples: int = 0) -> dict[int, Any]:
        """Return Great Expectations' result for each expectation that gave one.

        :raises CannotReachError: if the database was lost meanwhile.
        """
        from great_expectations.validator.validator import Validator

        wanted: dict[str, Any] = {"result_format": kind}
        if kind != "BOOLEAN_ONLY":
            wanted["partial_unexpected_count"] = examples
        self.error, self._decides = None, kind == "BOOLEAN_ONLY"
        with quiet():
            validator = Validator(execution_engine=self.engine)
            validator._metrics_calculator.show_progress_bars = False
            found = validator.graph_validate(
                configurations=[one.configuration for one in built.values()],
                runtime_configuration={"result_format": wanted},
            )
        if self._fatal is not None:
            raise self._fatal from None
        return {result.expectation_config.meta["number"]: result for result in found}

    def _execute(self, query: Any) -> Any:
        if self._fatal is not None:
            raise self._fatal
        connection = self.subject.connection
        try:
            # What fails must not take the transaction, and with it the instant, along.
            with connection.begin_nested():
                return connection.execute(query)
        except Exception as error:
            self.error = error
            known = translated(error, self.subject.database.where, self.subject.database.secrets)
            # The library swallows it, and would ask for the next figure.
            self._fatal = known if known.retryable else None
            raise

    def _resolve_metrics(
        self, metrics_to_resolve: Iterable[Any], metrics: Any = None, runtime_configuration: Any = None
    ) -> dict[Any, Any]:
        """Resolve metrics, of which the types are known: the library would look the statement up as a table."""
        asked = list(metrics_to_resolve)
        known: dict[Any, Any] = {one.id: self._types for one in asked if one.metric_name == "table.column_types"}
        if self._decides:
            known |= {one.id: [] for one in asked if one.metric_name in _TOLD}
        for one in asked:
            if one.metric_name in _VALUES and one.id not in known:
                self._check_values(one.metric_domain_kwargs)
        rest = [one for one in asked if one.id not in known]
        found = self._resolve(rest, metrics, runtime_configuration) if rest else {}
        return {**found, **known}

    def _check_values(self, domain: Any) -> None:
        """Refuse to bring more values to the worker than it can hold.

        :raises UnsupportedError: naming the column.
        """
        import sqlalchemy as sa

        name = domain["column"]
        found = self.engine.get_domain_records(domain_kwargs=dict(domain))
        rows = found.subquery() if isinstance(found, sa.Select) else found
        some = sa.select(sa.column(name)).select_from(rows).distinct().limit(MAX_VALUES + 1).subquery()
        if self._execute(sa.select(sa.func.count()).select_from(some)).scalar() > MAX_VALUES:
            error = UnsupportedError(
                f"column {name!r} has more than {MAX_VALUES:,} different values, and an expectation about all of them "
                "would bring them to the worker; use expect_column_values_to_be_in_set or "
                "expect_column_unique_value_count_to_be_between, or validate a snapshot",
                column=name,
            )
            # Without them a verdict cannot be had; examples can be done without.
            self._fatal = error if self._decides else None
            raise error


def _sqlalchemy_type(kind: Any) -> Any:
    import pyarrow as pa
    import sqlalchemy as sa

    types = pa.types
    if kind is None:
        return sa.types.NullType()
    for test, made in (
        (types.is_boolean, sa.Boolean()),
        (types.is_integer, sa.BigInteger()),
        (types.is_floating, sa.Double()),
        (types.is_decimal, sa.Numeric()),
        (types.is_date, sa.Date()),
        (types.is_time, sa.Time()),
        (types.is_binary, sa.LargeBinary()),
        (types.is_string, sa.Text()),
    ):
        if test(kind):
            return made
    return sa.TIMESTAMP(timezone=kind.tz is not None) if types.is_timestamp(kind) else sa.types.NullType()
