"""Whether a version on probation answers at all, where the one before it does: nobody waits for labels to know that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_mlops.core.evaluation.evidence import Champion, Evidence, Judged, not_finite
from airflow_mlops.core.evaluation.loading import features, said
from airflow_mlops.core.evaluation.rows import times_of
from airflow_mlops.core.training.metrics import predict

if TYPE_CHECKING:
    import pandas

    from airflow_mlops.core.evaluation.probation import Release

#: Rows since the promotion that both versions are asked for, the newest ones, labelled or not.
NEWEST = 10_000


def newest(frame: pandas.DataFrame, roles: dict[str, Any], release: Release) -> pandas.DataFrame:
    """Return the newest rows since a promotion, up to the present."""
    moments, found = times_of(frame, roles), frame
    if moments is not None:
        since = moments[(moments >= release.since) & (moments < release.clock)].sort_values(kind="stable")
        found = frame.loc[since.index[-NEWEST:]]
    numbered: pandas.DataFrame = found.reset_index(drop=True)
    return numbered


def silence(evidence: Evidence, rival: Champion) -> tuple[bool, str] | None:
    """Return that the version on probation does not answer, and whether the one before does no better.

    :return: None if it answers; else whether to stay with it, and a sentence.
    """
    mine = _silent(evidence, evidence.challenger)
    if mine is None:
        return None
    its = rival.problem or (_silent(evidence, rival.judged) if rival.judged else "it was not asked")
    who = f"version {rival.ref.version}"
    if its is not None:
        return (
            True,
            f"Cannot tell against {who}: it does not answer either ({its}), and version {_number(evidence)}: {mine}",
        )
    return (
        False,
        f"Version {_number(evidence)} does not answer: {mine}; {who}, which served before it, answers all of them",
    )


def _number(evidence: Evidence) -> int | None:
    return evidence.release.version if evidence.release else None


def _silent(evidence: Evidence, judged: Judged) -> str | None:
    """Return what is wrong with the answers of a model to rows since the promotion, or None."""
    if judged.problem:
        return judged.problem
    if judged.bad_predictions:
        return f"{judged.bad_predictions:,} of {len(judged.rows):,} predictions are NaN, infinite or null"
    frame = evidence.newest
    if frame is None or not len(frame):
        return None
    with judged.copy.code():
        try:
            judged.model = judged.model or judged.copy.load()
            predictions = predict(judged.model, features(judged.copy, frame, evidence.not_features))
        except Exception as error:
            return f"of the {len(frame):,} newest rows, {said(error, frame)}"
    bad = not_finite(predictions)
    if len(predictions.labels) != len(frame):
        return f"it returns {len(predictions.labels):,} predictions for the {len(frame):,} newest rows"
    return f"{bad:,} of its predictions of the {len(frame):,} newest rows are NaN, infinite or null" if bad else None
