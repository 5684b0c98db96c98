"""What one expectation has come to, in words and numbers that give no data away."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from airflow_mlops.core.errors import did_you_mean
from airflow_mlops.core.reports import figure
from airflow_mlops.core.validation.expectations import TYPE_EXPECTATIONS, Expectation, Grade
from airflow_mlops.core.vocabulary import clean

Skew = Literal["schema", "value"]

#: Expectations that speak of the schema; all others speak of values.
SCHEMA_EXPECTATIONS = {
    *TYPE_EXPECTATIONS,
    "expect_column_to_exist",
    "expect_table_column_count_to_be_between",
    "expect_table_column_count_to_equal",
    "expect_table_columns_to_match_ordered_list",
    "expect_table_columns_to_match_set",
}
#: Counts and shares, which say nothing of any one value.
_COUNTS = {
    "expect_table_row_count_to_be_between": "row count",
    "expect_table_row_count_to_equal": "row count",
    "expect_column_unique_value_count_to_be_between": "number of distinct values",
    "expect_column_proportion_of_unique_values_to_be_between": "share of distinct values",
    "expect_column_proportion_of_non_null_values_to_be_between": "share of values that are not null",
}
#: Figures over many values, shown where there are many.
_AGGREGATES = {
    "expect_column_mean_to_be_between": "mean",
    "expect_column_median_to_be_between": "median",
    "expect_column_stdev_to_be_between": "standard deviation",
    "expect_column_sum_to_be_between": "sum",
    "expect_column_quantile_values_to_be_between": "quantiles",
    "expect_column_kl_divergence_to_be_less_than": "divergence",
}
#: Figures that are values of the data themselves.
_VALUES = {
    "expect_column_max_to_be_between": "maximum",
    "expect_column_min_to_be_between": "minimum",
    "expect_column_most_common_value_to_be_in_set": "most common value",
    "expect_column_distinct_values_to_be_in_set": "set of distinct values",
    "expect_column_distinct_values_to_contain_set": "set of distinct values",
    "expect_column_distinct_values_to_equal_set": "set of distinct values",
}
_FIGURES = {**_COUNTS, **_AGGREGATES, **_VALUES}
#: What is the matter with an unexpected value.
_FAULTS = {
    "expect_column_values_to_not_be_null": "are null",
    "expect_column_values_to_be_null": "are not null",
    "expect_column_values_to_be_unique": "are not unique",
    "expect_compound_columns_to_be_unique": "are not unique",
    "expect_column_values_to_be_in_set": "are outside the set",
    "expect_column_pair_values_to_be_in_set": "are outside the set",
    "expect_column_values_to_not_be_in_set": "are in the forbidden set",
    "expect_column_values_to_be_between": "are outside the range",
    "expect_column_value_lengths_to_be_between": "have another length",
    "expect_column_value_lengths_to_equal": "have another length",
    "expect_column_values_to_match_regex": "do not match the pattern",
    "expect_column_values_to_match_regex_list": "do not match the patterns",
    "expect_column_values_to_not_match_regex": "match the forbidden pattern",
    "expect_column_values_to_not_match_regex_list": "match a forbidden pattern",
    "expect_column_pair_values_to_be_equal": "are not equal",
}
#: Below this number of rows an aggregate comes close to the values it is made of.
MIN_AGGREGATED = 10
MAX_EXAMPLES = 20
_MAX_TEXT = 200


@dataclass(frozen=True)
class Outcome:
    """What one expectation has come to.

    :param passed: None where it was not judged, because there are no rows.
    :param grade: what its failure counts as.
    :param skew: what has moved if it failed: the schema, or the values.
    :param unexpected: how many values failed it, of ``total`` that were judged.
    :param observed: the figure that was measured, unless that would show values of the data.
    :param examples: failing values, only where they were asked for.
    """

    expectation: Expectation
    passed: bool | None
    message: str
    grade: Grade
    skew: Skew | None = None
    unexpected: int | None = None
    total: int | None = None
    observed: Any = None
    examples: list[Any] = field(default_factory=list)

    @property
    def share(self) -> float | None:
        """The share of the judged values that failed."""
        return self.unexpected / self.total if self.unexpected is not None and self.total else None

    def summary(self) -> dict[str, Any]:
        """Return what a report's ``failures`` hold of it: never a value, not even an argument."""
        return {
            "type": self.expectation.type,
            "column": self.expectation.subject,
            "severity": self.grade,
            "skew": self.skew,
            "unexpected": self.unexpected,
            "total": self.total,
            "message": self.message,
        }

    def to_dict(self) -> dict[str, Any]:
        """Return everything, for the details."""
        value = self.summary() | {
            "kwargs": self.expectation.kwargs,
            "passed": self.passed,
            "unexpected_share": self.share,
            "observed": self.observed,
        }
        return clean(value | ({"examples": self.examples} if self.examples else {}))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Exposure:
    """What of the data a report may show.

    :param values: whether failing values were asked for.
    :param private: columns whose values are never shown.
    """

    values: bool = False
    private: frozenset[str] = frozenset()

    def of(self, expectation: Expectation) -> bool:
        """Return whether values of the expectation's columns may be shown."""
        return self.values and not self.private & set(expectation.columns)


def missing(expectation: Expectation, columns: list[str], absent: list[str], grade: Grade) -> Outcome:
    """Return the outcome of an expectation about columns that are not there."""
    return Outcome(expectation, False, absence(absent, columns), grade, skew="schema")


def absence(absent: list[str], columns: list[str]) -> str:
    """Say which columns are missing, with what they may be called now."""
    if len(absent) == 1:
        alike = [name for name in columns if name.casefold() == absent[0].casefold()]
        near = f"; did you mean {alike[0]!r}?" if alike else did_you_mean(absent[0], columns)
        return f"the column {absent[0]!r} is missing{near}"
    return f"the columns {', '.join(map(repr, absent))} are missing"


def unjudged(expectation: Expectation) -> Outcome:
    """Return the outcome of an expectation about values where there is no row."""
    return Outcome(expectation, None, "not judged: there are no rows", expectation.grade)


def unworkable(expectation: Expectation, types: dict[str, str], reason: str | None) -> Outcome:
    """Return the outcome of an expectation that broke on the type of its columns.

    :param types: column -> type, of the columns it speaks of.
    :param reason: why, from a run without rows, so that it can quote no value.
    """
    what = ", ".join(f"{name!r} of type {kind}" for name, kind in types.items())
    message = f"it cannot be evaluated on {what or 'this table'}" + (f": {reason}" if reason else "")
    # Its grade speaks of its values; that it cannot be evaluated at all is another matter.
    return Outcome(expectation, False, message, "error", skew="schema")


def typed(expectation: Expectation, wanted: list[str], actual: str, answers: bool) -> Outcome:
    """Return the outcome of an expectation about a column's type."""
    names = " or ".join(wanted)
    message = f"the type is {actual}" + ("" if answers else f", expected {names}")
    skew: Skew | None = None if answers else "schema"
    return Outcome(expectation, answers, message, expectation.grade, skew=skew, observed=actual)


def measured(
    expectation: Expectation, success: bool, result: dict[str, Any], columns: list[str], rows: int, exposure: Exposure
) -> Outcome:
    """Return the outcome of an expectation from Great Expectations' result.

    :param result: of format ``BASIC``.
    """
    total = result.get("element_count")
    if total is not None:
        total = int(total) - int(result.get("missing_count") or 0)
    unexpected = result.get("unexpected_count")
    shown = exposure.of(expectation)
    raw = result.get("observed_value")
    # Messages go to XCom and logs, where values do not belong even if they were asked for.
    told = "not finite" if _is_not_finite(raw) else _observed(expectation, raw, rows, False)
    observed = _observed(expectation, raw, rows, shown)
    examples = [_short(v) for v in (result.get("partial_unexpected_list") or [])[:MAX_EXAMPLES]] if shown else []
    skew: Skew | None = None
    if not success:
        skew = "schema" if expectation.type in SCHEMA_EXPECTATIONS else "value"
    return Outcome(
        expectation,
        success,
        _message(expectation, success, unexpected, total, told, columns),
        expectation.grade,
        skew=skew,
        unexpected=None if unexpected is None else int(unexpected),
        total=total,
        observed=observed,
        # That a null is null says nothing.
        examples=[] if success or expectation.type == "expect_column_values_to_not_be_null" else examples,
    )


def _is_not_finite(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _observed(expectation: Expectation, value: Any, rows: int, shown: bool) -> Any:
    """Return the measured figure if it may be shown: an aggregate over a few rows is as good as a value."""
    value = clean(value)
    if value is None or isinstance(value, bool):
        return value
    if expectation.type in _COUNTS or expectation.type in SCHEMA_EXPECTATIONS:
        return value
    if shown:
        return _short(value)
    if expectation.type not in _AGGREGATES or rows < MIN_AGGREGATED or expectation.kwargs.get("row_condition"):
        return None
    if isinstance(value, dict):
        return _inner_quantiles(value, rows)
    return value if isinstance(value, (int, float)) else None


def _inner_quantiles(value: dict[str, Any], rows: int) -> dict[str, Any]:
    """Return quantiles without those so far out that they are values of single rows."""
    half = MIN_AGGREGATED / 2
    quantiles = [q for q in value.get("quantiles", []) if isinstance(q, (int, float))]
    values = value.get("values", [])
    return {
        "quantiles": quantiles,
        "values": [v if min(q, 1 - q) * rows >= half else None for q, v in zip(quantiles, values, strict=False)],
    }


def _short(value: Any) -> Any:
    if _is_not_finite(value):
        # JSON has no word for it, and null would be another thing.
        return str(float(value))
    if isinstance(value, (list, tuple)):
        return [_short(v) for v in value[:MAX_EXAMPLES]]
    value = clean(value)
    if isinstance(value, str):
        return value if len(value) <= _MAX_TEXT else value[:_MAX_TEXT] + "…"
    if isinstance(value, dict):
        return {k: _short(v) for k, v in list(value.items())[:MAX_EXAMPLES]}
    return value


def _message(
    expectation: Expectation, success: bool, unexpected: Any, total: int | None, observed: Any, columns: list[str]
) -> str:
    kind, kwargs = expectation.type, expectation.kwargs
    if kind in SCHEMA_EXPECTATIONS:
        return "as expected" if success else _schema_message(expectation, columns)
    if unexpected is not None and total is not None:
        share = f" ({_percent(unexpected / total)})" if total and unexpected else ""
        fault = _FAULTS.get(kind, "are not as expected")
        mostly = kwargs.get("mostly")
        allowed = f"; up to {_percent(1 - mostly)} may be" if isinstance(mostly, (int, float)) and mostly < 1 else ""
        return f"{unexpected:,} of {total:,} values{share} {fault}{allowed}"
    name = _FIGURES.get(kind)
    if name is None:
        return "as expected" if success else "not as expected"
    bounds = _bounds(kwargs)
    subject = f"the {name} {'are' if name == 'quantiles' else 'is'}"
    if observed == "not finite":
        return f"{subject} not a finite number" + (f", expected {bounds}" if bounds else "")
    if isinstance(observed, (int, float)) and not isinstance(observed, bool):
        return f"{subject} {figure(observed)}" + (f", expected {bounds}" if bounds else "")
    return f"{subject} {'' if success else 'not '}as expected" + (f" ({bounds})" if bounds else "")


def _percent(share: float) -> str:
    if share and share < 0.001:
        return "less than 0.1%"
    return f"{share:.1%}"


def _bounds(kwargs: dict[str, Any]) -> str:
    low, high = kwargs.get("min_value"), kwargs.get("max_value")
    if low is not None and high is not None:
        return f"{_bound(low)} to {_bound(high)}"
    if low is not None:
        return f"at least {_bound(low)}"
    if high is not None:
        return f"at most {_bound(high)}"
    for key, words in (("value", "{}"), ("threshold", "less than {}")):
        if kwargs.get(key) is not None:
            return words.format(_bound(kwargs[key]))
    return ""


def _bound(value: Any) -> str:
    # As the user wrote it: 0.35 and 20130101 are not figures to be rounded.
    return f"{value:,}" if isinstance(value, int) and abs(value) >= 10_000 else str(value)


def _schema_message(expectation: Expectation, columns: list[str]) -> str:
    kwargs = expectation.kwargs
    if expectation.type == "expect_column_to_exist":
        name = str(kwargs.get("column"))
        if name in columns:
            return f"the column {name!r} is number {columns.index(name)}, expected number {kwargs.get('column_index')}"
        return absence([name], columns)
    wanted = [str(name) for name in kwargs.get("column_set") or kwargs.get("column_list") or []]
    if not wanted:
        return f"there are {len(columns)} columns, expected {_bounds(kwargs)}"
    lacking = [name for name in wanted if name not in columns]
    extra = [name for name in columns if name not in wanted]
    parts = [absence(lacking, extra)] if lacking else []
    if extra and kwargs.get("exact_match") is not False:
        parts.append(f"not expected: {', '.join(map(repr, extra))}")
    if not parts:
        first = next((i for i, (a, b) in enumerate(zip(wanted, columns, strict=False)) if a != b), 0)
        parts.append(f"the order is another one: number {first} is {columns[first]!r}, expected {wanted[first]!r}")
    return "; ".join(parts)
