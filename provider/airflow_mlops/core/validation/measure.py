"""Data held to expectations by Great Expectations, every expectation with an outcome of its own.

Great Expectations runs in memory and writes nothing: no project, no working files, no telemetry, no progress bars. It
is asked for counts alone unless values are to be shown, so that none can slip into a message or a log.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from airflow_mlops.core.errors import SpecError
from airflow_mlops.core.validation.column_types import ColumnType, column_type
from airflow_mlops.core.validation.expectations import TYPE_EXPECTATIONS, Expectation, Grade
from airflow_mlops.core.validation.instants import with_instants
from airflow_mlops.core.validation.library import great_expectations, quiet
from airflow_mlops.core.validation.outcome import (
    MAX_EXAMPLES,
    SCHEMA_EXPECTATIONS,
    Exposure,
    Outcome,
    measured,
    missing,
    typed,
    unjudged,
    unworkable,
)

if TYPE_CHECKING:
    import pandas

_ROWS = "expect_table_row_count_to_be_between"


def evaluate(
    frame: pandas.DataFrame,
    expectations: Sequence[Expectation],
    *,
    types: dict[str, str] | None = None,
    exposure: Exposure | None = None,
) -> list[Outcome]:
    """Return the outcome of every expectation, in their order.

    An expectation whose column is missing, or of a type that it cannot work on, has an outcome like any other and
    keeps none of the rest from theirs. Of a frame without rows only the schema is judged, and one more outcome says
    that it is empty.

    :param types: Arrow's types of the columns, where they are known.
    :param exposure: what may be shown; by default no values.
    :raises SpecError: if two columns have one name, or an expectation runs on databases only.
    """
    frame = _with_text_names(frame)
    kinds = {name: column_type(frame[name], (types or {}).get(name)) for name in frame.columns}
    return judge(_Frame(frame, kinds, exposure or Exposure()), expectations)


class Subject(Protocol):
    """What is held to expectations: a frame, or a table in a database."""

    @property
    def kinds(self) -> dict[str, ColumnType]:
        """The columns' types by their names, in their order."""

    @property
    def rows(self) -> int:
        """The number of rows."""

    def run(self, expectations: dict[int, Expectation]) -> dict[int, Outcome]:
        """Return the outcomes of expectations whose columns are there."""


def judge(subject: Subject, expectations: Sequence[Expectation]) -> list[Outcome]:
    """Return the outcome of every expectation; see :func:`evaluate`."""
    kinds = subject.kinds
    lenient = _grades_of_absence(expectations)
    outcomes: dict[int, Outcome] = {}
    left: dict[int, Expectation] = {}
    for number, expectation in enumerate(expectations):
        absent = [name for name in expectation.columns if name not in kinds]
        if absent:
            grade = expectation.grade if expectation.type in SCHEMA_EXPECTATIONS else _worst(absent, lenient)
            outcomes[number] = missing(expectation, list(kinds), absent, grade)
        elif expectation.type in TYPE_EXPECTATIONS:
            outcomes[number] = _typed(expectation, kinds)
        elif not subject.rows and not _judges_empty(expectation):
            outcomes[number] = unjudged(expectation)
        else:
            left[number] = expectation
    outcomes |= subject.run(left) if left else {}
    found = [outcomes[number] for number in range(len(expectations))]
    if not subject.rows and not any(
        o.expectation.type.startswith("expect_table_row_count") and not o.passed for o in found
    ):
        found.append(_no_rows())
    return found


def _with_text_names(frame: pandas.DataFrame) -> pandas.DataFrame:
    """Return the frame with column names as text, as expectations have them, and each only once."""
    names = [str(name) for name in frame.columns]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise SpecError(
            f"the data has more than one column called {', '.join(map(repr, repeated))}; rename them where the data "
            "is made, for an expectation could mean either",
            columns=repeated,
        )
    if names == list(frame.columns):
        return frame
    renamed: pandas.DataFrame = frame.set_axis(names, axis="columns")
    return renamed


def _grades_of_absence(expectations: Sequence[Expectation]) -> dict[str, Grade]:
    """Return what the absence of a column counts as where ``expect_column_to_exist`` says so; else it is an error."""
    return {str(e.kwargs.get("column")): e.grade for e in expectations if e.type == "expect_column_to_exist"}


def _worst(absent: list[str], grades: dict[str, Grade]) -> Grade:
    order: tuple[Grade, ...] = ("info", "warning", "error")
    return max((grades.get(name, "error") for name in absent), key=order.index)


def _judges_empty(expectation: Expectation) -> bool:
    return expectation.type in SCHEMA_EXPECTATIONS or _counts_rows(expectation)


def _counts_rows(expectation: Expectation) -> bool:
    return expectation.type.startswith("expect_table_row_count")


def _no_rows() -> Outcome:
    rows = Expectation(_ROWS, {"min_value": 1})
    return Outcome(rows, False, "there are no rows", "error", skew="value", observed=0)


def _typed(expectation: Expectation, kinds: dict[str, ColumnType]) -> Outcome:
    wanted = expectation.kwargs.get(TYPE_EXPECTATIONS[expectation.type])
    kind = kinds[expectation.columns[0]]
    if wanted is None:
        return typed(expectation, [], kind.name, True)
    names = [wanted] if isinstance(wanted, str) else [str(name) for name in wanted]
    return typed(expectation, names, kind.name, kind.answers_to(names))


@dataclass(frozen=True)
class _Frame:
    """A frame, for Great Expectations' own engine for pandas."""

    frame: pandas.DataFrame
    kinds: dict[str, ColumnType]
    exposure: Exposure

    @property
    def rows(self) -> int:
        return len(self.frame)

    def run(self, expectations: dict[int, Expectation]) -> dict[int, Outcome]:
        """Run Great Expectations once over the frame, and once over none of its rows for what broke."""
        frame, kinds = self.frame, self.kinds
        built = {
            number: expectation.built(with_instants(expectation, frame, kinds), number)
            for number, expectation in expectations.items()
        }
        results = _results(frame, built, MAX_EXAMPLES if self.exposure.values else 0)
        broken = [number for number in expectations if number not in results or exception_of(results[number])]
        reasons: dict[int, str | None] = {}
        if broken:
            probe = _results(frame.head(0), {n: expectations[n].built(number=n) for n in broken}, 0)
            reasons = {n: exception_of(probe[n]) if n in probe else None for n in broken}
        outcomes = {}
        for number, expectation in expectations.items():
            if number in reasons:
                outcomes[number] = _broken(expectation, kinds, reasons[number])
                continue
            result = results[number]
            outcomes[number] = measured(
                expectation, bool(result.success), dict(result.result or {}), list(kinds), len(frame), self.exposure
            )
        return outcomes


def unexpected_rows(
    frame: pandas.DataFrame, expectation: Expectation, types: dict[str, str] | None = None
) -> list[int] | None:
    """Return the numbers of the rows that fail a row-level expectation, or None if they cannot be had.

    :param frame: with a fresh index.
    """
    gx = great_expectations()
    frame = _with_text_names(frame)
    kinds = {name: column_type(frame[name], (types or {}).get(name)) for name in expectation.columns}
    built = expectation.built(with_instants(expectation, frame, kinds))
    with quiet(), _batch(gx, frame) as batch:
        result = batch.validate(
            built, result_format={"result_format": "COMPLETE", "return_unexpected_index_query": False}
        )
    found = (result.result or {}).get("unexpected_index_list")
    return None if found is None or exception_of(result) is not None else [int(row) for row in found]


def _broken(expectation: Expectation, kinds: dict[str, ColumnType], reason: str | None) -> Outcome:
    if reason and "No provider found" in reason:
        raise SpecError(
            f"{expectation.type} runs on databases only; this dataset is read into a data frame",
            expectation=expectation.type,
        )
    return unworkable(expectation, {name: kinds[name].name for name in expectation.columns}, reason)


def _results(frame: pandas.DataFrame, built: dict[int, Any], examples: int) -> dict[int, Any]:
    """Return Great Expectations' result for each expectation that gave one."""
    gx = great_expectations()
    result_format = {"result_format": "BASIC", "partial_unexpected_count": examples}
    with quiet(), _batch(gx, frame) as batch:
        try:
            # One call for all: what several expectations need is computed once.
            results = batch.validate(
                gx.ExpectationSuite(name="expectations", expectations=list(built.values())), result_format=result_format
            ).results
        except MemoryError:
            raise
        except Exception:
            results = list(_one_by_one(batch, built.values(), result_format))
    return {result.expectation_config.meta["number"]: result for result in results}


def _one_by_one(batch: Any, built: Any, result_format: dict[str, Any]) -> Iterator[Any]:
    """Yield what can be had when one expectation has brought down the call for all."""
    for expectation in built:
        with contextlib.suppress(Exception):
            yield batch.validate(expectation, result_format=result_format)


@contextlib.contextmanager
def _batch(gx: Any, frame: pandas.DataFrame) -> Iterator[Any]:
    """Give the frame as a batch, in a project that is in memory only and forgets the frame afterwards."""
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
        ProgressBarsConfig,
    )

    context = gx.get_context(
        mode="ephemeral",
        project_config=DataContextConfig(
            # Without this it makes a folder for a docs site in the temporary folder.
            store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
            progress_bars=ProgressBarsConfig(globally=False, metric_calculations=False),
        ),
    )
    asset = context.data_sources.add_pandas("frames").add_dataframe_asset("frame")
    try:
        yield asset.add_batch_definition_whole_dataframe("whole").get_batch(batch_parameters={"dataframe": frame})
    finally:
        # The library keeps its last project, and with it the frame.
        context.data_sources.delete("frames")


def exception_of(result: Any) -> str | None:
    """Return the first exception in a result, or None; it comes flat, or by the metric that raised it."""
    info = result.exception_info or {}
    for each in [info, *(value for value in info.values() if isinstance(value, dict))]:
        if each.get("raised_exception"):
            return str(each.get("exception_message") or "").strip() or "it raised an exception"
    return None
