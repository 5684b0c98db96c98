"""The comparison with the model that serves now, or an earlier one, on rows that neither of the two was trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from airflow_mlops.core import models
from airflow_mlops.core.errors import MlopsError
from airflow_mlops.core.evaluation import answers
from airflow_mlops.core.evaluation import backtest as backtests
from airflow_mlops.core.evaluation.evidence import Champion, Evidence, Judged, judge
from airflow_mlops.core.evaluation.loading import fetch
from airflow_mlops.core.evaluation.outcome import Outcome, outcome
from airflow_mlops.core.evaluation.paired import difference
from airflow_mlops.core.evaluation.rows import Rows, leave_out_seen
from airflow_mlops.core.evaluation.significance import Difference
from airflow_mlops.core.reports import figure as text
from airflow_mlops.core.training.metrics import metric

#: What reports call them.
CALLED = {"champion": "the champion", "anchor": "the anchor", "previous": "the version before"}


def compare(evidence: Evidence, rival: Champion | None, trust: models.Trust, folder: Path) -> None:
    """Load another version and predict the rows that neither model has seen, once.

    Whatever is wrong with it becomes its problem; only a server that does not answer is raised.
    """
    if rival is None or not rival.exists:
        return
    rows = Rows(kept=evidence.rows.kept.copy(), left_out=list(evidence.rows.left_out))
    try:
        copy = fetch(evidence.context, rival.ref, folder, trust)
    except MlopsError as error:
        if error.retryable:
            raise
        rival.problem = error.message
        return
    rival.ref = copy.ref
    rival.verified = copy.verified
    if copy.ref.digest == evidence.challenger.copy.ref.digest:
        rival.same = True
        return
    leave_out_seen(rows, evidence.context.store, copy.ref, evidence.frame, evidence.roles, CALLED[rival.role])
    rival.rows = rows
    judged = Judged(copy=copy, rows=rows.kept.nonzero()[0])
    if rows.count:
        judge(evidence.frame, evidence.truth(judged.rows), judged, evidence.not_features)
        if judged.problem:
            rival.problem = f"it cannot predict the dataset: {judged.problem}"
        elif judged.bad_predictions:
            rival.problem = f"{judged.bad_predictions:,} of its {rows.count:,} predictions are NaN, infinite or null"
    rival.judged = judged


def backtest(
    evidence: Evidence, rival: Champion | None, trust: models.Trust, parts: list[backtests.Fold], folder: Path
) -> None:
    """Refit another version's recipe at the origins of a backtest, beside the challenger's."""
    if rival is None or not rival.exists:
        return
    copy = fetch(evidence.context, rival.ref, folder, trust)
    rival.ref, rival.verified = copy.ref, copy.verified
    if copy.ref.digest == evidence.challenger.copy.ref.digest:
        rival.same = True
        return
    judged = backtests.judge(evidence, copy, parts, folder.parent / f"{folder.name}-recipe", CALLED[rival.role])
    # What was left out for both stands with the dataset.
    rival.rows = Rows(kept=evidence.rows.kept)
    if judged.problem:
        rival.unclear = f"it cannot be refitted: {judged.problem}"
    elif judged.bad_predictions:
        rival.problem = f"{judged.bad_predictions:,} of {len(judged.rows):,} predictions of its refits are NaN or null"
    rival.judged = judged


def champion_test(evidence: Evidence, spec: dict[str, Any]) -> list[Outcome]:
    """Test that the model is not worse than the champion, or better than it, with a margin."""
    return [_compared(evidence, evidence.champion, spec)]


def anchor_test(evidence: Evidence, spec: dict[str, Any]) -> list[Outcome]:
    """Test the same against the last version that was shown to be better, which margins do not erode."""
    rival, champion = evidence.rivals[spec["name"]], evidence.champion
    threshold = _threshold(spec)
    if not rival.exists:
        message = rival.settled or f"There is no anchor yet at {rival.alias}: the first version that is promoted is one"
        return [outcome(spec, True, message, threshold=threshold)]
    by_champion = any(
        other["kind"] == "champion" and metric(other["metric"]).name == metric(spec["metric"]).name
        for other in evidence.specs
    )
    if champion and champion.exists and champion.ref.version == rival.ref.version and by_champion:
        message = (
            f"The anchor is the champion itself (version {rival.ref.version}, {rival.why}): the test against the "
            "champion speaks for both"
        )
        return [outcome(spec, True, message, threshold=threshold)]
    return [_compared(evidence, rival, spec)]


def previous_test(evidence: Evidence, spec: dict[str, Any]) -> list[Outcome]:
    """Test that the version that served before is not shown to be better than the one that serves now."""
    rival = evidence.rivals[spec["name"]]
    release = evidence.release
    threshold = f"not shown to be more than {spec['margin']:g} worse" if spec["margin"] else "not shown to be worse"
    said = {"threshold": threshold}
    if rival.settled or release is None or release.since is None or release.known is None:
        return [outcome(spec, True, f"{rival.settled}: nothing is compared", **said)]
    since = f"since it was promoted on {release.since.date()}, with labels known before {release.known.date()}"
    if rival.same:
        return [outcome(spec, True, f"It is the same model as version {rival.ref.version}: equal digests", **said)]
    silent = answers.silence(evidence, rival)
    if silent is not None:
        return [outcome(spec, *silent, threshold="answers where the version before does")]
    if not evidence.rows.count:
        return [outcome(spec, True, f"No row {since}: nothing can be said of version {release.version} yet", **said)]
    unclear = rival.problem or rival.unclear or _unclear(evidence, rival, spec)
    if unclear:
        return [outcome(spec, True, f"Cannot tell against version {rival.ref.version}: {unclear}", **said)]
    shared = {**spec, "alpha": spec["alpha"] / spec["looks"]}
    found = _measured(evidence, rival, shared)
    if isinstance(found, str):
        return [outcome(spec, True, f"Cannot tell against version {rival.ref.version}: {found}", **said)]
    figures, measured = found
    sure = measured.pop("difference")
    # Only what is shown takes a version back: a doubt has stood at its promotion, too.
    return [outcome(spec, not sure.below(-spec["margin"]), f"{figures}, {since}; {_by(sure)}", **measured, **said)]


def _compared(evidence: Evidence, rival: Champion | None, spec: dict[str, Any]) -> Outcome:
    threshold = _threshold(spec)
    if rival is None or not rival.exists:
        where = rival.alias if rival else "the model"
        return outcome(spec, True, f"There is no champion yet at {where}: nothing to be worse than")
    if rival.same:
        passed = spec["require"] == "not_worse"
        message = f"It is the same model as {rival.who}: equal digests"
        return outcome(spec, passed, message, value=0.0, threshold=threshold)
    if rival.unclear:
        return _cannot_tell(spec, rival.who, rival.unclear, threshold=threshold)
    if rival.problem:
        message = (
            f"{rival.who} cannot be compared: {rival.problem}. Roll back to a version that loads, or leave this test "
            "out to promote over it"
        )
        return outcome(spec, False, message, threshold=threshold)
    assert rival.judged is not None
    unclear = _unclear(evidence, rival, spec)
    if unclear:
        return _cannot_tell(spec, rival.who, unclear, threshold=threshold)
    return _verdict(evidence, rival, spec, threshold)


def _verdict(evidence: Evidence, rival: Champion, spec: dict[str, Any], threshold: str) -> Outcome:
    assert rival.judged is not None
    rows, wanted = rival.judged.rows, metric(spec["metric"])
    mine, why_mine = evidence.figure(evidence.challenger, spec["metric"], rows)
    its, why_its = evidence.figure(rival.judged, spec["metric"], rows)
    if mine is None or its is None:
        reason = f"of the model cannot be measured: {why_mine}" if mine is None else f"of {rival.who}: {why_its}"
        return outcome(spec, False, f"{wanted.name} {reason}", threshold=threshold)
    told = _measured(evidence, rival, spec)
    if isinstance(told, str):
        return _cannot_tell(spec, rival.who, told, threshold=threshold)
    figures, measured = told
    found = measured.pop("difference")
    measured["threshold"] = threshold
    passed = decided(found, spec["require"], spec["margin"])
    if passed:
        return outcome(spec, True, f"{figures}; {_by(found)}", **measured)
    if passed is False:
        return outcome(spec, False, f"{figures}; {_by(found)}; must be {threshold}", **measured)
    return _cannot_tell(spec, rival.who, f"{figures}; {_by(found)}", **measured)


def decided(found: Difference, require: str, margin: float) -> bool | None:
    """Return whether a difference is shown to keep to a margin; False: shown not to; None: nobody can tell."""
    if require == "not_worse":
        passed, failed = found.equal or found.above(-margin), found.below(-margin)
    else:
        passed, failed = found.above(margin), found.equal or found.below(margin)
    return True if passed else False if failed else None


def _measured(evidence: Evidence, rival: Champion, spec: dict[str, Any]) -> tuple[str, dict[str, Any]] | str:
    """Return what was found in words and as fields of an outcome, or why nobody can tell."""
    assert rival.judged is not None
    rows, wanted = rival.judged.rows, metric(spec["metric"])
    mine, why_mine = evidence.figure(evidence.challenger, spec["metric"], rows)
    its, why_its = evidence.figure(rival.judged, spec["metric"], rows)
    if mine is None or its is None:
        return f"{wanted.name} cannot be measured: {why_mine or why_its}"
    found = difference(evidence, rival, spec["metric"], alpha=spec["alpha"], cluster=spec.get("cluster"))
    if isinstance(found, str):
        return found
    ahead = found.ahead
    how = "equal to" if ahead == 0 else f"{text(abs(ahead))} {'better' if ahead > 0 else 'worse'} than"
    refits = len(evidence.backtest or [])
    where = (
        f"after the training of {refits} refits of each recipe"
        if refits
        else "that neither is known to have been trained on"
    )
    said = f"{wanted.name} is {text(mine)}, {how} {rival.who} with {text(its)}, on {len(rows):,} rows {where}"
    against = {"against": rival.alias, "version": rival.ref.version, "metric": wanted.name}
    return said, {
        "difference": found,
        "value": ahead,
        "interval": [found.low, found.high],
        "comparison": {**found.to_dict(), **against},
    }


def _by(found: Difference) -> str:
    return f"by {found.units:,} {found.unit} {_sure(found)}"


def _sure(found: Difference) -> str:
    if found.equal:
        return "there is no difference"
    return (
        f"the difference is between {text(found.low)} and {text(found.high)} ({found.verdict} at "
        f"{100 * found.alpha:g}%; such data show one from {text(found.detectable)} on)"
    )


def _cannot_tell(spec: dict[str, Any], who: str, why: str, **measured: Any) -> Outcome:
    passed = spec["on_unclear"] == "promote"
    then = "promotes all the same" if passed else "keeps the champion"
    message = f"Cannot tell against {who}: {why}. on_unclear={spec['on_unclear']!r} {then}"
    return outcome(spec, passed, message, **measured)


def _threshold(spec: dict[str, Any]) -> str:
    margin = spec["margin"]
    if spec["require"] == "not_worse":
        return f"at most {margin:g} worse" if margin else "not worse"
    return f"more than {margin:g} better" if margin else "better"


def _unclear(evidence: Evidence, champion: Champion, spec: dict[str, Any]) -> str | None:
    """Return why the rows that neither model has seen cannot settle it, or None."""
    import pandas

    assert champion.judged is not None
    rows = champion.judged.rows
    if len(rows) < spec["min_rows"]:
        return f"{len(rows):,} rows that neither was trained on are too few (min_rows is {spec['min_rows']:,})"
    if metric(spec["metric"]).task != frozenset({"regression"}):
        classes = pandas.unique(pandas.Series(evidence.truth(rows)))
        has_classes = evidence.challenger.predictions is not None and evidence.challenger.predictions.classes
        if has_classes and len(classes) < 2:
            return f"all {len(rows):,} rows that neither was trained on are of one class"
    return None


def table(evidence: Evidence, rival: Champion | None, names: list[str]) -> list[dict[str, Any]]:
    """Return the figures of both models on the rows that neither has seen: ``metric, challenger, champion, ahead``."""
    if rival is None or rival.judged is None or rival.problem or rival.unclear or not len(rival.judged.rows):
        return []
    found = []
    for name in names:
        wanted = metric(name)
        mine, _ = evidence.figure(evidence.challenger, name, rival.judged.rows)
        its, _ = evidence.figure(rival.judged, name, rival.judged.rows)
        ahead = None
        if mine is not None and its is not None:
            ahead = mine - its if wanted.greater_is_better else its - mine
        found.append(
            {
                "metric": wanted.name,
                "challenger": mine,
                "champion": its,
                "ahead": ahead,
                "greater_is_better": wanted.greater_is_better,
            }
        )
    return found
