"""Which columns are compared, as what, and why the others are not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from airflow_mlops.core.drift.choice import DriftTest, drift_test
from airflow_mlops.core.errors import MissingColumnError, SpecError, did_you_mean
from airflow_mlops.core.vocabulary import role_columns

#: Roles whose columns are no features: they are skipped unless they are named.
APART = ("key", "time", "available_at", "weight", "group")
_OPTIONS = ("kind", "test", "threshold")


@dataclass(frozen=True)
class Column:
    """A column to compare.

    :param kind: ``numeric`` or ``categorical``; None where it is skipped.
    :param test: the one asked for, or None.
    :param threshold: the one asked for, or None.
    :param skipped: why it is not compared, or None.
    :param broken: whether what is wrong with it is a fault of the current data, not a property of the column.
    """

    name: str
    kind: str | None
    test: DriftTest | None = None
    threshold: float | None = None
    skipped: str | None = None
    broken: bool = False


def kind_of(arrow_type: Any) -> str | None:
    """Return what columns of a type are compared as: ``numeric``, ``categorical``, ``time``; None: not at all."""
    import pyarrow as pa

    types = pa.types
    if types.is_boolean(arrow_type) or types.is_string(arrow_type):
        return "categorical"
    if types.is_integer(arrow_type) or types.is_floating(arrow_type) or types.is_decimal(arrow_type):
        return "numeric"
    if types.is_time(arrow_type) or types.is_duration(arrow_type):
        return "numeric"
    return "time" if types.is_timestamp(arrow_type) or types.is_date(arrow_type) else None


def check_columns(columns: Any) -> dict[str, dict[str, Any]] | None:
    """Return the columns asked for with their options, or None for all.

    :raises SpecError: for another form, an unknown option, kind or test, or a threshold that is no number.
    """
    if columns is None or columns == "":
        return None
    if isinstance(columns, (list, tuple)) and all(isinstance(name, str) for name in columns):
        columns = {name: {} for name in columns}
    if not isinstance(columns, dict) or not columns:
        raise SpecError(
            "columns is a list of names, or {'age': {'kind': 'numeric', 'test': 'psi', 'threshold': 0.2}}; "
            f"got {columns!r}"
        )
    for name, options in columns.items():
        if not isinstance(options, dict):
            raise SpecError(f"columns: the options of {name!r} are a dict of {', '.join(_OPTIONS)}, got {options!r}")
        for option in options:
            if option not in _OPTIONS:
                raise SpecError(f"columns: {name!r} has no option {option!r}{did_you_mean(option, _OPTIONS)}")
        if options.get("kind") not in (None, "numeric", "categorical"):
            raise SpecError(f"columns: the kind of {name!r} is 'numeric' or 'categorical', got {options['kind']!r}")
        if options.get("test") is not None:
            drift_test(options["test"])
        check_threshold(options.get("threshold"), f"columns: the threshold of {name!r}")
    return {str(name): dict(options) for name, options in columns.items()}


def check_threshold(value: Any, what: str) -> None:
    """Make sure that a threshold is a number from 0 on.

    :raises SpecError: if it is not.
    """
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        raise SpecError(f"{what} is a number of at least 0, got {value!r}")


def plan(
    reference: Any,
    current: Any,
    *,
    asked: dict[str, dict[str, Any]] | None,
    roles: dict[str, Any],
    test: DriftTest | None = None,
    where: str = "the reference",
) -> list[Column]:
    """Return every column of both sides: how it is compared, or why not.

    :param reference: its Arrow schema in normal form.
    :param current: the other's.
    :param asked: the columns that the user named, or None for all.
    :param test: for all columns that it is defined for, where a column has none of its own.
    :param where: what the reference is, for messages.
    :raises MissingColumnError: if a column that was named is not in the reference.
    :raises SpecError: if one was named with a kind or test that its type cannot have.
    """
    for name in asked or {}:
        if name not in reference.names:
            raise MissingColumnError(
                f"there is no column {name!r} in {where}{did_you_mean(name, reference.names)}", column=name
            )
    apart = {name: role for role in APART for name in role_columns(roles, role)}
    result = []
    for name in (
        asked if asked is not None else [*reference.names, *(n for n in current.names if n not in reference.names)]
    ):
        options = asked[name] if asked is not None else {}
        if asked is None and name in apart:
            result.append(Column(name, None, skipped=f"its role is {apart[name]!r}"))
        elif name not in reference.names:
            result.append(Column(name, None, skipped="it is new: the reference does not have it"))
        elif name not in current.names:
            near = did_you_mean(name, [n for n in current.names if n not in reference.names])
            result.append(Column(name, None, skipped=f"it is missing in the current data{near}", broken=True))
        else:
            types = reference.field(name).type, current.field(name).type
            result.append(_planned(name, *types, options, test, named=asked is not None))
    return result


def _planned(name: str, was: Any, now: Any, options: dict[str, Any], test: DriftTest | None, *, named: bool) -> Column:
    import pyarrow as pa

    if pa.types.is_null(was):
        return Column(name, None, skipped="it is empty in the reference")
    if pa.types.is_null(now):
        return Column(name, None, skipped="it is empty in the current data", broken=True)
    kinds = [kind_of(one) for one in (was, now)]
    if None in kinds:
        one = was if kinds[0] is None else now
        return Column(name, None, skipped=f"values of the type {one} are not compared", broken=kinds[0] is not None)
    if kinds[0] != kinds[1] or (kinds[0] == "time" and _zoned(was) != _zoned(now)):
        return Column(name, None, skipped=f"its type has changed from {was} to {now}", broken=True)
    kind = options.get("kind")
    if kinds[0] == "time":
        if not named:
            return Column(name, None, skipped="a time moves by itself; name it in columns to compare it")
        kind = kind or "numeric"
    if kind == "numeric" and pa.types.is_string(was):
        raise SpecError(f"columns: {name!r} holds text ({was}); its kind cannot be 'numeric'")
    kind = kind or str(kinds[0])
    wanted = drift_test(options["test"]) if options.get("test") is not None else None
    if wanted is not None and kind not in wanted.kinds:
        raise SpecError(
            f"columns: the test {wanted.name!r} is not defined for {name!r}, which is {kind}; "
            f"give it another test, or kind: {wanted.kinds[0]!r}"
        )
    if wanted is None and test is not None and kind in test.kinds:
        wanted = test
    return Column(name, kind, test=wanted, threshold=options.get("threshold"))


def _zoned(one: Any) -> bool:
    return getattr(one, "tz", None) is not None


def with_threshold(column: Column, thresholds: dict[str, float] | float | None) -> Column:
    """Return a column with its threshold; one of its own wins."""
    wanted = thresholds.get(column.name) if isinstance(thresholds, dict) else thresholds
    return column if column.threshold is not None or wanted is None else replace(column, threshold=wanted)
