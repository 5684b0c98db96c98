"""The step ``validate_data``: a dataset held to expectations, a report on it, and the dataset to go on with."""

from __future__ import annotations

from typing import Any

from airflow_mlops.core.data.dataset import read_table, resolve
from airflow_mlops.core.errors import SpecError
from airflow_mlops.core.faults import crash_point
from airflow_mlops.core.reports import publish
from airflow_mlops.core.steps import StepContext
from airflow_mlops.core.validation.expectations import read_expectations
from airflow_mlops.core.validation.verdict import Validation, validate_frame
from airflow_mlops.core.vocabulary import DatasetRef, Report, role_columns


def validate_data(
    context: StepContext,
    *,
    dataset: Any,
    expectations: Any,
    roles: dict[str, Any] | None = None,
    target: str | None = None,
    show_values: bool = False,
    name: str | None = None,
) -> dict[str, Any]:
    """Hold a dataset to Great Expectations' expectations and report, schema skew and value skew told apart.

    Severity ``critical`` (the default) fails the report, ``warning`` is a warning, ``info`` is recorded and changes
    no verdict. That a column is missing, or of a type that an expectation cannot work on, is an error whatever the
    severity of the expectations about its values; an ``expect_column_to_exist`` of its own grades its absence.

    :param dataset: a dataset ref, or a path, glob or URI that is read in place.
    :param expectations: a list, a suite, a .json or .yaml file, a function, or ``"package.module:function"``.
    :param roles: added to the dataset's own; columns of the role ``private`` are never shown.
    :param target: short for ``roles={"target": ...}``.
    :param show_values: whether the details and the page hold up to 20 failing values of each expectation.
    :param name: what to call a dataset that is read in place.
    :return: the report, with the dataset's ref under ``dataset``.
    """
    if not isinstance(show_values, bool):
        raise SpecError(f"show_values must be True or False, got {show_values!r}")
    checked = read_expectations(expectations)
    ref = resolve(context.store, dataset, roles=roles, target=target, name=name)
    context.log.info(
        "%s: %d expectations on %s rows", ref.name, len(checked), ref.rows if ref.rows is not None else "?"
    )
    table = read_table(context.store, ref)
    types = {field.name: str(field.type) for field in table.schema}
    frame = table.to_pandas()
    del table
    private = role_columns(ref.roles, "private")
    found = validate_frame(frame, checked, types=types, private=private, show_values=show_values)
    del frame
    crash_point("validate.measured")
    identity = [ref.digest, [[e.type, e.kwargs, e.grade] for e in checked], show_values]
    report = publish(
        context,
        _report(found, ref),
        details={"dataset": {"name": ref.name, "digest": ref.digest}, "types": types, **found.to_dict()},
        template="validation.html",
        identity=identity,
        title=f"Validation of {ref.name}",
    )
    return {**report, "dataset": ref.to_dict()}


def _report(found: Validation, ref: DatasetRef) -> Report:
    return Report(
        report="validation",
        passed=found.passed,
        severity=found.severity,
        summary=found.summary(ref.name),
        metrics=dict(found.metrics),
        checks={"total": len(found.outcomes), "failed": len(found.failed)},
        failures=[outcome.summary() for outcome in found.failed],
        window=ref.window,
        subject=ref.digest,
    )
