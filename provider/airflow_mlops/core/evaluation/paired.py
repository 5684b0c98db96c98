"""From the predictions of two models on the same rows to how far the challenger is ahead, and how sure that is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from airflow_mlops.core.errors import MissingColumnError, SpecError, did_you_mean
from airflow_mlops.core.evaluation import significance
from airflow_mlops.core.evaluation.parts import of_parts, scores_of
from airflow_mlops.core.evaluation.significance import BOOTSTRAP_ROWS, MIN_CLUSTERS, Difference
from airflow_mlops.core.training.metrics import Metric, metric
from airflow_mlops.core.training.predictions import Predictions
from airflow_mlops.core.vocabulary import role_columns

if TYPE_CHECKING:
    import numpy as np

    from airflow_mlops.core.evaluation.evidence import Champion, Evidence
    from airflow_mlops.core.evaluation.parts import OfParts

    Array: TypeAlias = np.ndarray[Any, Any]


def difference(
    evidence: Evidence, rival: Champion, name: Any, *, alpha: float, cluster: str | None = None
) -> Difference | str:
    """Return how far the challenger is ahead of another on the rows that neither has seen, or why nobody can tell.

    :param name: the metric; both models have a value of it on these rows.
    :param alpha: the one-sided level.
    :param cluster: ``day``, or the column that says which rows depend on each other; default: the group role, else the
        day of the time role, else each row stands for itself.
    :raises MissingColumnError: if there is no such column.
    """
    import numpy as np

    assert rival.judged is not None
    rows = rival.judged.rows
    mine, its = evidence.challenger.at(rows), rival.judged.at(rows)
    assert mine is not None
    assert its is not None
    truth, wanted = evidence.truth(rows), metric(name)
    weights = None if evidence.weights is None else evidence.weights[rows]
    found = clusters_of(evidence, rows, cluster)
    if found is None and weights is None and (one := _of_rows(wanted, truth, mine, its, alpha)):
        return one
    ahead = _ahead(name, wanted, truth, mine, its, weights)
    if found is not None:
        clusters, unit = found
        count = int(clusters.max()) + 1
        if count < MIN_CLUSTERS:
            return f"{count} {unit} are too few to say how much {unit} differ ({MIN_CLUSTERS} are needed)"
        told = significance.jackknife(ahead, clusters, unit=unit, alpha=alpha)
    elif len(rows) > BOOTSTRAP_ROWS:
        told = significance.jackknife(ahead, np.arange(len(rows)), unit="rows", alpha=alpha)
    else:
        told = significance.bootstrap(ahead, len(rows), alpha=alpha)
    return told or f"without some of these rows {wanted.name} has no value"


def clusters_of(evidence: Evidence, rows: Array, cluster: str | None) -> tuple[Array, str] | None:
    """Return the number of each row's cluster and what clusters are called, or None: each row stands for itself."""
    import pandas

    groups, times = role_columns(evidence.roles, "group"), role_columns(evidence.roles, "time")
    column = cluster or (groups[0] if groups else "day" if times else None)
    if column is None:
        return None
    moments = evidence.moments if column == "day" else None
    if moments is not None:
        values, unit = moments.iloc[rows].dt.floor("D"), "days"
    else:
        names = [str(one) for one in evidence.frame.columns]
        if column not in names:
            if column == "day":
                raise SpecError("cluster='day' needs a dataset with a time role: roles={'time': 'column'}")
            near = did_you_mean(column, names)
            raise MissingColumnError(f"the dataset has no column {column!r} to cluster by{near}", column=column)
        values, unit = evidence.frame[column].iloc[rows], f"values of {column}"
    codes, _ = pandas.factorize(values, use_na_sentinel=False)
    return codes, unit


def _of_rows(wanted: Metric, truth: Array, mine: Predictions, its: Predictions, alpha: float) -> Difference | None:
    """Return what the test made for a metric says, or None if there is none."""
    if wanted.name == "accuracy":
        return significance.mcnemar(mine.labels == truth, its.labels == truth, alpha=alpha)
    if wanted.name == "roc_auc" and (pair := _two_scores(truth, mine, its)):
        positive = pair[0]
        # With one row of a class there is no variance among that class.
        if min(positive.sum(), (~positive).sum()) > 1:
            return significance.delong(*pair, alpha=alpha)
    return None


def _two_scores(truth: Array, mine: Predictions, its: Predictions) -> tuple[Array, Array, Array] | None:
    """Return where the positive class is, and both models' scores of it, if it is one class against another."""
    first, second = scores_of(mine), scores_of(its)
    if mine.classes is None or mine.classes != its.classes or first is None or second is None:
        return None
    return truth == mine.classes[-1], first, second


def _ahead(
    name: Any, wanted: Metric, truth: Array, mine: Predictions, its: Predictions, weights: Array | None
) -> OfParts:
    first, second = (of_parts(name, truth, one, weights) for one in (mine, its))
    return apart(first, second, 1 if wanted.greater_is_better else -1)


def apart(first: OfParts, second: OfParts, sign: int = 1) -> OfParts:
    """Return how far the first figure is ahead of the second, as a function of the rows that count."""

    def ahead(rows: Array) -> float | None:
        mine, its = first(rows), second(rows)
        return None if mine is None or its is None else sign * (mine - its)

    return ahead
