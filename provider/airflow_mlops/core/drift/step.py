"""The step ``detect_drift``: a dataset held against a reference, and a report on it."""

from __future__ import annotations

from typing import Any

from airflow_mlops.core import digests
from airflow_mlops.core.data.dataset import resolve
from airflow_mlops.core.drift import learnt, past
from airflow_mlops.core.drift.choice import DriftTest, drift_test
from airflow_mlops.core.drift.columns import check_columns
from airflow_mlops.core.drift.importance import importance_for
from airflow_mlops.core.drift.measure import Learning, Measured, Options, measure, segments
from airflow_mlops.core.drift.outcome import Drift
from airflow_mlops.core.drift.profile import build
from airflow_mlops.core.drift.reading import Opened, open_dataset
from airflow_mlops.core.drift.references import Reference, check_needs, references_of, settling
from airflow_mlops.core.drift.segments import check_by
from airflow_mlops.core.errors import SpecError
from airflow_mlops.core.faults import crash_point
from airflow_mlops.core.monitoring import history
from airflow_mlops.core.reports import publish
from airflow_mlops.core.steps import StepContext


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
    combine: str = "all",
    sensitivity: str = "normal",
    block: str | None = None,
    by: Any = None,
    predictions: Any = None,
    window: dict[str, Any] | None = None,
    reference_window: dict[str, Any] | None = None,
    roles: dict[str, Any] | None = None,
    target: str | None = None,
    report: str = "never",
    show_values: bool = False,
    importance: Any = None,
    name: str | None = None,
) -> dict[str, Any]:
    """Compare a dataset with a reference, column by column, and report.

    :param current: a dataset ref, or a path, glob or URI that is read in place.
    :param reference: the same; ``"name@alias"``; ``{"offset": "-52w"}``; ``{"history": 8}``; or a list of these.
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
    :param combine: with several references ``"all"`` or ``"any"``.
    :param by: columns to look at segments by.
    :param predictions: columns of what the model said; their drift is an error.
    :param window: only the current rows inside, by the time role.
    :param reference_window: only the rows of a reference dataset inside.
    :param roles: added to those of both datasets.
    :param report: when to write Evidently's own page as well: ``"never"``, ``"drifted"`` or ``"always"``.
    :param show_values: whether new and vanished categories, and private segments, stand in the report.
    :param importance: how much each column matters, ``{column: number}``, or the model to take that from; default: the
        model of a reference ``"name@alias"``. What matters most is told first.
    :return: the report.
    """
    asked, default = check_columns(columns), check_method(method)
    check_shares(drift_share, min_rows)
    for what, value, allowed in (("combine", combine, ("all", "any")), ("report", report, _REPORT)):
        if value not in allowed:
            raise SpecError(f"{what} must be {' or '.join(map(repr, allowed))}, got {value!r}")
    if current in (None, "", [], {}):
        raise SpecError("detect_drift needs 'current': a dataset ref, path, glob or URI")
    check_needs(reference, thresholds, by)
    now = open_dataset(context.store, resolve(context.store, current, roles=roles, target=target, name=name), window)
    window = window or now.ref.window
    references = references_of(
        context,
        reference,
        now,
        subject=subject,
        window=window,
        reference_window=reference_window,
        roles=roles,
        target=target,
    )
    learning = Learning(learnt.check_sensitivity(sensitivity), block, window) if thresholds == "learn" else None
    options = Options(asked, default, None if learning else thresholds, min_rows, show_values, combine, learning)
    found = measure(context, now, references, options)
    crash_point("drift.measured")
    matters, model = importance_for(context, importance, references)
    foretold = tuple(check_by(predictions))
    drift = Drift(
        name=now.ref.name,
        against=" and ".join(one.label for one in references),
        verdicts=found.verdicts,
        findings=found.findings,
        drift_share=drift_share,
        rows=(found.rows[0], found.rows[1]),
        target=str(now.ref.roles.get("target") or "") or None,
        predictions=foretold,
        learnt=learning is not None,
        segments=segments(context, now, references, found, check_by(by), options, drift_share),
        learning=" ".join(one.learning for one in references if one.learning) if not found.judged else None,
        importance=matters,
        model=model,
    )
    details = {
        **drift.to_dict(),
        "current": {"name": now.ref.name, "digest": now.ref.digest},
        "reference": references[0].to_dict(),
        "references": [one.to_dict() for one in references],
        "combine": combine,
        "method": method,
        "thresholds": thresholds,
        "learnt": found.learnt[0] if found.learnt else None,
    }
    # Watched again with other data, a subject's window has one report still.
    identity: list[Any] = [subject or [now.ref.digest, digests.of_json(reference)], window, reference_window, by]
    identity += [asked, method, thresholds, drift_share, min_rows, show_values, combine, report]
    identity += [sensitivity, block] if learning else []
    identity += [importance] if importance else []
    result = publish(
        context,
        drift.report(subject=subject or now.ref.digest, window=window),
        details=details,
        template="drift.html",
        identity=identity,
        title=f"Drift of {now.ref.name}",
    )
    if report == "always" or (report == "drifted" and drift.drifted):
        result["evidently_uri"] = _evidently(context, result, now, found)
    if subject and window:
        _record(context, drift, result, now, found, subject, window, references)
    return result


_REPORT = ("never", "drifted", "always")


def _evidently(context: StepContext, result: dict[str, Any], now: Opened, found: Measured) -> str | None:
    """Write Evidently's page beside ours; what it cannot do costs no verdict."""
    from airflow_mlops.core.drift.evidently_page import page
    from airflow_mlops.core.errors import MissingExtraError

    opened = found.judged[0].opened or settling(context, found.judged[0]) if found.judged else None
    if opened is None or not found.rows[1]:
        return None
    try:
        html = page(opened, now, found.verdicts)
    except MissingExtraError:
        raise
    except Exception as error:
        context.log.warning("Evidently made no page: %s", type(error).__name__)
        return None
    key = f"{str(context.store.key_of(result['report_uri'])).rpartition('/')[0]}/evidently.html"
    context.store.put_bytes(key, html)
    return context.store.uri_of(key)


def _record(
    context: StepContext,
    drift: Drift,
    result: dict[str, Any],
    now: Opened,
    found: Measured,
    subject: str,
    window: dict[str, Any],
    references: list[Reference],
) -> None:
    """Put the window into the subject's history, and where that is a reference, keep what it was like."""
    if any(one.label.startswith("the last ") for one in references) and drift.rows[1]:
        profile = build(now, found.current.summaries, keep=False)
        past.remember(context.store, subject, window, profile, accepted=drift.passed)
        crash_point("drift.remembered")
    scores = {f"score.{one.name}": one.score for one in drift.drifted[:20]}
    history.record(
        context.store,
        subject,
        window,
        {**drift.metrics, **scores},
        "drift",
        severity=drift.severity,
        summary=result["summary"],
        report_uri=result["report_uri"],
        details_uri=result["details_uri"],
        run=context.run,
    )
    crash_point("drift.recorded")


def check_method(method: Any) -> DriftTest | None:
    """Return the test for all columns, or None for Evidently's choice.

    :raises SpecError: if there is no such test.
    """
    return None if method in (None, "", "evidently") else drift_test(method)


def check_shares(drift_share: Any, min_rows: Any) -> None:
    """Make sure that the share and the rows can be.

    :raises SpecError: if they cannot.
    """
    if isinstance(drift_share, bool) or not isinstance(drift_share, (int, float)) or not 0 < drift_share <= 1:
        raise SpecError(f"drift_share is above 0 and at most 1, got {drift_share!r}")
    if isinstance(min_rows, bool) or not isinstance(min_rows, int) or min_rows < 1:
        raise SpecError(f"min_rows is a whole number from 1 on, got {min_rows!r}")
