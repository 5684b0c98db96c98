"""The step ``detect_drift``: a dataset compared with a reference, and a report on it."""

from __future__ import annotations

from typing import Any

from airflow_mlops.core.data.dataset import resolve
from airflow_mlops.core.drift import learnt
from airflow_mlops.core.drift.choice import drift_test
from airflow_mlops.core.drift.columns import check_columns, check_threshold, plan
from airflow_mlops.core.drift.compare import Side, compare
from airflow_mlops.core.drift.findings import find
from airflow_mlops.core.drift.outcome import Drift
from airflow_mlops.core.drift.reading import Opened, open_dataset
from airflow_mlops.core.drift.summarize import summarize
from airflow_mlops.core.errors import EmptyDataError, SpecError
from airflow_mlops.core.faults import crash_point
from airflow_mlops.core.reports import publish
from airflow_mlops.core.steps import StepContext
from airflow_mlops.core.vocabulary import role_columns


def detect_drift(
    context: StepContext,
    *,
    current: Any,
    reference: Any,
    columns: Any = None,
    method: str = "evidently",
    thresholds: Any = "evidently",
    subject: str | None = None,
    drift_share: float = 0.5,
    min_rows: int = 30,
    sensitivity: str = "normal",
    block: str | None = None,
    window: dict[str, Any] | None = None,
    reference_window: dict[str, Any] | None = None,
    roles: dict[str, Any] | None = None,
    target: str | None = None,
    show_values: bool = False,
    name: str | None = None,
) -> dict[str, Any]:
    """Compare a dataset with a reference, column by column, and report.

    :param current: a dataset ref, or a path, glob or URI that is read in place.
    :param reference: the same.
    :param columns: names, or ``{name: {"kind", "test", "threshold"}}``; default: all columns of the reference that are
        no key, time, weight or group.
    :param method: ``"evidently"``: for each column the test that Evidently takes by default; or the name of a test, for
        all columns that it is defined for.
    :param thresholds: ``"evidently"``: those of the tests; a number for all columns; ``{column: number}``; or
        ``"learn"``: from blocks inside the reference, see :mod:`.learn`.
    :param subject: what is watched, such as ``"churn:7"``; default: the digest of the current data.
    :param drift_share: share of the compared columns from which on the dataset has drifted.
    :param min_rows: a column with fewer values on a side is not judged.
    :param sensitivity: of learnt thresholds: ``low``, ``normal`` or ``high``.
    :param block: how long the blocks are that thresholds are learnt from; default: as long as the window.
    :param window: only the current rows inside, by the time role.
    :param reference_window: only the rows of the reference inside.
    :param roles: added to those of both datasets.
    :param show_values: whether new and vanished categories stand in the report.
    :return: the report.
    """
    asked = check_columns(columns)
    default = None if method == "evidently" else drift_test(method)
    check_shares(drift_share, min_rows)
    now = _open(context, current, roles=roles, target=target, name=name, window=window, what="current")
    was = _open(context, reference, roles=roles, target=target, name=None, window=reference_window, what="reference")
    learning = thresholds == "learn"
    asked_thresholds = None if learning else check_thresholds(thresholds, was.schema.names)
    planned = plan(
        was.schema, now.schema, asked=asked, roles={**was.ref.roles, **now.ref.roles}, test=default, where=was.ref.name
    )
    planned = [with_threshold(one, asked_thresholds) for one in planned]
    kinds = {one.name: one.kind for one in planned if one.kind is not None}
    context.log.info("%s: %d columns against %s", now.ref.name, len(kinds), was.ref.name)
    sides = []
    for opened in (was, now):
        summaries = summarize(opened, kinds)
        opened.check_unchanged()
        rows = next((one.rows for one in summaries.values()), opened.rows)
        sides.append(Side(rows, summaries, opened))
    if not sides[0].rows:
        raise EmptyDataError(f"the reference {was.ref.name!r} has no rows{' in its window' if was.window else ''}")
    crash_point("drift.measured")
    verdicts = compare(planned, *sides, default_test=default, min_rows=min_rows)
    findings = find(
        verdicts,
        sides[0].summaries,
        sides[1].summaries,
        show_values=show_values,
        private=role_columns({**was.ref.roles, **now.ref.roles}, "private"),
    )
    learned = None
    if learning:
        learned = learnt.learn_from(
            was,
            planned,
            rows=sides[0].rows,
            block=block,
            window=window or now.ref.window,
            sensitivity=learnt.check_sensitivity(sensitivity),
        )
        verdicts, broken, _ = learnt.judge(learned, now, verdicts)
        named = {one.column for one in broken}
        # What the reference itself shows is no finding; what is beyond it is one already.
        findings = [*broken, *(one for one in findings if one.kind == "column" and one.column not in named)]
    drift = Drift(
        name=now.ref.name,
        against=was.ref.name,
        verdicts=verdicts,
        findings=findings,
        drift_share=drift_share,
        rows=(sides[0].rows, sides[1].rows),
        target=str(now.ref.roles.get("target") or was.ref.roles.get("target") or "") or None,
    )
    # Watched again with other data, a subject's window has one report still.
    identity: list[Any] = [subject or [now.ref.digest, was.ref.digest], window or now.ref.window, reference_window]
    identity += [asked, method, thresholds, drift_share, min_rows, show_values]
    identity += [sensitivity, block] if learning else []
    return publish(
        context,
        drift.report(subject=subject or now.ref.digest, window=window or now.ref.window),
        details={
            **drift.to_dict(),
            "current": {"name": now.ref.name, "digest": now.ref.digest},
            "reference": {"name": was.ref.name, "digest": was.ref.digest, "window": reference_window or was.ref.window},
            "method": method,
            "thresholds": "learn" if learning else thresholds,
            "learnt": None if learned is None else {"blocks": learned.blocks, "unit": learned.unit},
        },
        template="drift.html",
        identity=identity,
        title=f"Drift of {now.ref.name}",
    )


def _open(context: StepContext, dataset: Any, *, window: Any, what: str, **meaning: Any) -> Opened:
    if dataset in (None, "", [], {}):
        raise SpecError(f"detect_drift needs {what!r}: a dataset ref, path, glob or URI")
    return open_dataset(context.store, resolve(context.store, dataset, **meaning), window)


def check_shares(drift_share: Any, min_rows: Any) -> None:
    """Make sure that the share and the rows can be.

    :raises SpecError: if they cannot.
    """
    if isinstance(drift_share, bool) or not isinstance(drift_share, (int, float)) or not 0 < drift_share <= 1:
        raise SpecError(f"drift_share is above 0 and at most 1, got {drift_share!r}")
    if isinstance(min_rows, bool) or not isinstance(min_rows, int) or min_rows < 1:
        raise SpecError(f"min_rows is a whole number from 1 on, got {min_rows!r}")


def check_thresholds(thresholds: Any, names: list[str]) -> dict[str, float] | float | None:
    """Return thresholds by column, one for all, or None for those of the tests.

    :raises SpecError: for another form, or a column that is not there.
    """
    from airflow_mlops.core.data.reading import check_columns as check_names

    if thresholds in (None, "", "evidently"):
        return None
    if isinstance(thresholds, dict):
        check_names(list(thresholds), names, "the reference")
        for name, value in thresholds.items():
            check_threshold(value, f"thresholds: that of {name!r}")
        return thresholds
    if isinstance(thresholds, str):
        raise SpecError(f"thresholds is 'evidently', 'learn', a number, or {{column: number}}, got {thresholds!r}")
    check_threshold(thresholds, "thresholds")
    return float(thresholds)


def with_threshold(column: Any, thresholds: dict[str, float] | float | None) -> Any:
    """Return a column with its threshold; one of its own wins."""
    import dataclasses

    wanted = thresholds.get(column.name) if isinstance(thresholds, dict) else thresholds
    return column if column.threshold is not None or wanted is None else dataclasses.replace(column, threshold=wanted)
