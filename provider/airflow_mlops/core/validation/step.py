"""The step ``validate_data``: a dataset held to expectations, a report on it, and the dataset to go on with."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from airflow_mlops.core.data.dataset import read_table, resolve, write_table
from airflow_mlops.core.errors import SpecError
from airflow_mlops.core.faults import crash_point
from airflow_mlops.core.reports import publish
from airflow_mlops.core.steps import StepContext
from airflow_mlops.core.validation.expectations import Expectation, read_expectations
from airflow_mlops.core.validation.outcome import Exposure
from airflow_mlops.core.validation.quarantine import Limits, Quarantine, set_aside
from airflow_mlops.core.validation.verdict import Validation, validate_frame
from airflow_mlops.core.vocabulary import DatasetRef, Report, role_columns


def validate_data(
    context: StepContext,
    *,
    expectations: Any,
    dataset: Any = None,
    table: str | None = None,
    sql: str | None = None,
    conn_id: str | None = None,
    parameters: dict[str, Any] | None = None,
    columns: dict[str, str] | None = None,
    window: dict[str, Any] | None = None,
    roles: dict[str, Any] | None = None,
    target: str | None = None,
    show_values: bool = False,
    name: str | None = None,
    quarantine: bool | dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Hold a dataset to Great Expectations' expectations and report, schema skew and value skew told apart.

    Severity ``critical`` (the default) fails the report, ``warning`` is a warning, ``info`` is recorded and changes
    no verdict. That a column is missing, or of a type that an expectation cannot work on, is an error whatever the
    severity of the expectations about its values; an ``expect_column_to_exist`` of its own grades its absence.

    :param dataset: a dataset ref, or a path, glob or URI that is read in place.
    :param table: in place of ``dataset``, a table ``schema.name`` in the database that the environment variable
        ``MLOPS_SQL_URL`` names; it is judged there, in one transaction.
    :param sql: in place of ``dataset``, a query on that database, with ``parameters``.
    :param conn_id: what the user calls that database, for messages.
    :param columns: ``{our name: their name}``, where a table's columns are called otherwise in the expectations.
    :param window: with ``table`` or ``sql`` and a time role, only rows inside are judged.
    :param expectations: a list, a suite, a .json or .yaml file, a function, or ``"package.module:function"``.
    :param roles: added to the dataset's own; columns of the role ``private`` are never shown.
    :param target: short for ``roles={"target": ...}``.
    :param show_values: whether the details and the page hold up to 20 failing values of each expectation.
    :param name: what to call a dataset that is read in place.
    :param quarantine: True, or ``{"max_share", "max_rows", "severity"}``: write the rows of a dataset that fail aside,
        and go on with the others; see :mod:`.quarantine`.
    :return: the report, with the ref to go on with under ``dataset``, and under ``quarantine`` that of the rows aside.
    """
    if not isinstance(show_values, bool):
        raise SpecError(f"show_values must be True or False, got {show_values!r}")
    given = [key for key, value in (("dataset", dataset), ("table", table), ("sql", sql)) if value]
    if len(given) != 1:
        raise SpecError(f"validate_data takes one of 'dataset', 'table' and 'sql', got {' and '.join(given) or 'none'}")
    checked, limits = read_expectations(expectations), Limits.of(quarantine)
    if given == ["dataset"]:
        others = {"conn_id": conn_id, "parameters": parameters, "columns": columns, "window": window}
        if wrong := [key for key, value in others.items() if value]:
            raise SpecError(f"{', '.join(map(repr, wrong))} goes with 'table' or 'sql'; a dataset takes none")
        ref = resolve(context.store, dataset, roles=roles, target=target, name=name)
        held = _hold(context, checked, ref, limits, show_values)
    else:
        from airflow_mlops.core.validation.tables import validate_table

        if limits is not None:
            raise SpecError(
                "quarantine needs the rows, and those of a table or query stay in their database: take a snapshot, and "
                "validate that with quarantine"
            )
        found, ref, types = validate_table(
            context,
            checked,
            table=table,
            sql=sql,
            conn_id=conn_id,
            parameters=parameters,
            columns=columns,
            window=window,
            roles=roles,
            target=target,
            name=name,
            show_values=show_values,
        )
        held = _Held(found, types, ref)
    crash_point("validate.measured")
    # A table changes from try to try; its report does not move.
    identity: list[Any] = [
        ref.digest if given == ["dataset"] else [ref.source, window],
        [[e.type, e.kwargs, e.grade] for e in checked],
        show_values,
    ]
    report = publish(
        context,
        _report(held, ref),
        details={
            "dataset": {"name": ref.name, "digest": ref.digest},
            "types": held.types,
            **held.found.to_dict(),
            **({"quarantine": held.aside_details} if limits else {}),
        },
        template="validation.html",
        identity=[*identity, dataclasses.asdict(limits)] if limits else identity,
        title=f"Validation of {ref.name}",
    )
    refs = {"dataset": held.ref.to_dict()}
    return {**report, **refs, **({"quarantine": held.aside.to_dict()} if held.aside else {})}


@dataclass(frozen=True)
class _Held:
    """A dataset that was held to expectations.

    :param ref: what to go on with.
    :param aside: the rows in quarantine.
    """

    found: Validation
    types: dict[str, str]
    ref: DatasetRef
    aside: DatasetRef | None = None
    quarantine: Quarantine | None = None
    aside_details: dict[str, Any] | None = None


def _hold(
    context: StepContext, checked: list[Expectation], ref: DatasetRef, limits: Limits | None, show_values: bool
) -> _Held:
    """Read a dataset into a frame and hold that to the expectations."""
    context.log.info(
        "%s: %d expectations on %s rows", ref.name, len(checked), ref.rows if ref.rows is not None else "?"
    )
    table = read_table(context.store, ref)
    types = {field.name: str(field.type) for field in table.schema}
    private = role_columns(ref.roles, "private")
    frame = table.to_pandas()
    if limits is None:
        del table
        return _Held(validate_frame(frame, checked, types=types, private=private, show_values=show_values), types, ref)
    exposure = Exposure(values=show_values, private=frozenset(private))
    split = set_aside(frame.reset_index(drop=True), checked, limits, types=types, exposure=exposure)
    found = Validation(rows=len(frame), columns=[str(name) for name in frame.columns], outcomes=split.outcomes)
    del frame
    details = split.to_dict(limits)
    if not split.splits:
        return _Held(found, types, ref, quarantine=split, aside_details=details)
    clean, rest = split.split(table)
    meaning: dict[str, Any] = {"roles": ref.roles, "window": ref.window, "source": ref.uri}
    aside = write_table(context.store, rest, name=f"{ref.name}.quarantine", **meaning)
    crash_point("validate.quarantined")
    kept = write_table(context.store, clean, name=ref.name, **meaning)
    crash_point("validate.cleaned")
    context.log.warning("%s: %s of %s rows are in quarantine: %s", ref.name, aside.rows, found.rows, aside.uri)
    return _Held(found, types, kept, aside, split, {**details, "uri": aside.uri, "digest": aside.digest})


def _report(held: _Held, ref: DatasetRef) -> Report:
    found, split = held.found, held.quarantine
    summary = found.summary(ref.name)
    if split is not None and split.rows:
        share = f"{split.rows:,} of {found.rows:,} rows ({split.share:.2%})"
        told = f"{share} are in quarantine" if split.splits else f"{share} fail, too many for quarantine"
        summary = f"{summary} {told}{f': {split.refused}' if split.refused else ''}."
    return Report(
        report="validation",
        passed=found.passed,
        severity=found.severity,
        summary=summary,
        metrics={**found.metrics, **(split.metrics if split else {})},
        checks={"total": len(found.outcomes), "failed": len(found.failed)},
        failures=[outcome.summary() for outcome in found.failed],
        window=ref.window,
        subject=held.ref.digest,
    )
