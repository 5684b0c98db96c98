"""The comparison with the model that serves now, on rows that neither of the two was trained on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.core import models
from airflow_mlops.core.errors import MlopsError, SpecError
from airflow_mlops.core.evaluation import backtest as backtests
from airflow_mlops.core.evaluation.evidence import Champion, Evidence, Judged, judge
from airflow_mlops.core.evaluation.loading import fetch
from airflow_mlops.core.evaluation.outcome import Outcome, outcome
from airflow_mlops.core.evaluation.paired import difference
from airflow_mlops.core.evaluation.rows import Rows, leave_out_seen
from airflow_mlops.core.evaluation.significance import Difference
from airflow_mlops.core.reports import figure as text
from airflow_mlops.core.training.metrics import metric

if TYPE_CHECKING:
    from airflow_mlops.core.steps import StepContext


def find(context: StepContext, champion: Any) -> Champion | None:
    """Return the champion of an argument, or None if none was asked for.

    :param champion: ``name@alias``; an alias or a model that does not exist yet is a champion without a ref.
    :raises SpecError: for another form.
    """
    if champion is None or champion == "" or champion == "None":
        return None
    name, at, alias = str(champion).removeprefix("models:/").rpartition("@")
    if not isinstance(champion, str) or not at or not name or not alias:
        raise SpecError(f"champion must be 'name@alias', like 'churn@champion', got {champion!r}")
    if models.version_by_alias(context, name, alias) is None:
        return Champion(alias=f"{name}@{alias}")
    return Champion(alias=f"{name}@{alias}", ref=models.resolve(context, f"models:/{name}@{alias}"))


def compare(evidence: Evidence, trust: models.Trust, folder: Path) -> None:
    """Load the champion and predict the rows that neither model has seen, once.

    Whatever is wrong with the champion becomes its problem; only a server that does not answer is raised.
    """
    champion = evidence.champion
    if champion is None or not champion.exists:
        return
    rows = Rows(kept=evidence.rows.kept.copy(), left_out=list(evidence.rows.left_out))
    try:
        copy = fetch(evidence.context, champion.ref, folder, trust)
    except MlopsError as error:
        if error.retryable:
            raise
        champion.problem = error.message
        return
    champion.ref = copy.ref
    champion.verified = copy.verified
    if copy.ref.digest == evidence.challenger.copy.ref.digest:
        champion.same = True
        return
    leave_out_seen(rows, evidence.context.store, copy.ref, evidence.frame, evidence.roles, "the champion")
    champion.rows = rows
    judged = Judged(copy=copy, rows=rows.kept.nonzero()[0])
    if rows.count:
        judge(evidence.frame, evidence.truth(judged.rows), judged, evidence.not_features)
        if judged.problem:
            champion.problem = f"it cannot predict the dataset: {judged.problem}"
        elif judged.bad_predictions:
            champion.problem = f"{judged.bad_predictions:,} of its {rows.count:,} predictions are NaN, infinite or null"
    champion.judged = judged


def backtest(evidence: Evidence, trust: models.Trust, parts: list[backtests.Fold], folder: Path) -> None:
    """Refit the champion's recipe at the origins of a backtest, beside the challenger's."""
    champion = evidence.champion
    if champion is None or not champion.exists:
        return
    copy = fetch(evidence.context, champion.ref, folder, trust)
    champion.ref, champion.verified = copy.ref, copy.verified
    if copy.ref.digest == evidence.challenger.copy.ref.digest:
        champion.same = True
        return
    judged = backtests.judge(evidence, copy, parts, folder.parent / "champion-recipe", "the champion")
    # What was left out for both stands with the dataset.
    champion.rows = Rows(kept=evidence.rows.kept)
    if judged.problem:
        champion.unclear = f"it cannot be refitted: {judged.problem}"
    elif judged.bad_predictions:
        champion.problem = (
            f"{judged.bad_predictions:,} of {len(judged.rows):,} predictions of its refits are NaN or null"
        )
    champion.judged = judged


def champion_test(evidence: Evidence, spec: dict[str, Any]) -> list[Outcome]:
    """Test that the model is not worse than the champion, or better than it, with a margin."""
    champion = evidence.champion
    threshold = _threshold(spec)
    if champion is None or not champion.exists:
        where = champion.alias if champion else "the model"
        return [outcome(spec, True, f"There is no champion yet at {where}: nothing to be worse than")]
    who = _who(champion)
    if champion.same:
        passed = spec["require"] == "not_worse"
        return [outcome(spec, passed, f"It is the same model as {who}: equal digests", value=0.0, threshold=threshold)]
    if champion.unclear:
        return [_cannot_tell(spec, who, champion.unclear, threshold=threshold)]
    if champion.problem:
        message = (
            f"{who} cannot be compared: {champion.problem}. Roll back to a version that loads, or leave this test out "
            "to promote over it"
        )
        return [outcome(spec, False, message, threshold=threshold)]
    assert champion.judged is not None
    unclear = _unclear(evidence, champion, spec)
    if unclear:
        return [_cannot_tell(spec, who, unclear, threshold=threshold)]
    return [_verdict(evidence, champion, spec, who, threshold)]


def _verdict(evidence: Evidence, champion: Champion, spec: dict[str, Any], who: str, threshold: str) -> Outcome:
    assert champion.judged is not None
    rows, wanted = champion.judged.rows, metric(spec["metric"])
    mine, why_mine = evidence.figure(evidence.challenger, spec["metric"], rows)
    its, why_its = evidence.figure(champion.judged, spec["metric"], rows)
    if mine is None or its is None:
        reason = f"of the model cannot be measured: {why_mine}" if mine is None else f"of {who}: {why_its}"
        return outcome(spec, False, f"{wanted.name} {reason}", threshold=threshold)
    found = difference(evidence, spec["metric"], alpha=spec["alpha"], cluster=spec.get("cluster"))
    if isinstance(found, str):
        return _cannot_tell(spec, who, found, threshold=threshold)
    ahead = found.ahead
    how = "equal to" if ahead == 0 else f"{text(abs(ahead))} {'better' if ahead > 0 else 'worse'} than"
    refits = len(evidence.backtest or [])
    where = (
        f"after the training of {refits} refits of each recipe"
        if refits
        else "that neither is known to have been trained on"
    )
    figures = f"{wanted.name} is {text(mine)}, {how} {who} with {text(its)}, on {len(rows):,} rows {where}"
    measured = {
        "value": ahead,
        "threshold": threshold,
        "interval": [found.low, found.high],
        "comparison": found.to_dict(),
    }
    margin = spec["margin"]
    if spec["require"] == "not_worse":
        passed, failed = found.equal or found.above(-margin), found.below(-margin)
    else:
        passed, failed = found.above(margin), found.equal or found.below(margin)
    sure = f"by {found.units:,} {found.unit} {_sure(found)}"
    if passed:
        return outcome(spec, True, f"{figures}; {sure}", **measured)
    if failed:
        return outcome(spec, False, f"{figures}; {sure}; must be {threshold}", **measured)
    return _cannot_tell(spec, who, f"{figures}; {sure}", **measured)


def _sure(found: Difference) -> str:
    if found.equal:
        return "there is no difference"
    return (
        f"the difference is between {text(found.low)} and {text(found.high)} ({found.verdict} at {found.alpha:.0%}; "
        f"such data show one from {text(found.detectable)} on)"
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


def _who(champion: Champion) -> str:
    return f"the champion {champion.alias} (version {champion.ref.version})"


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


def table(evidence: Evidence, names: list[str]) -> list[dict[str, Any]]:
    """Return the figures of both models on the rows that neither has seen: ``metric, challenger, champion, ahead``."""
    champion = evidence.champion
    if (
        champion is None
        or champion.judged is None
        or champion.problem
        or champion.unclear
        or not len(champion.judged.rows)
    ):
        return []
    found = []
    for name in names:
        wanted = metric(name)
        mine, _ = evidence.figure(evidence.challenger, name, champion.judged.rows)
        its, _ = evidence.figure(champion.judged, name, champion.judged.rows)
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
