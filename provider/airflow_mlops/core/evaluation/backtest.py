"""Backtest: what the recipes of two models make of the past, where there are no rows that neither model has seen.

Both recipes are fitted anew at rolling origins, each on the rows before the origin alone, and judged on the rows after
it (Tashman 2000, rolling-origin evaluation). So no row is judged by a model that was trained on it, and both are
judged on the same rows. It speaks of the recipes, not of the two models' files.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.errors import EmptyDataError, MlopsError, SpecError
from airflow_mlops.core.evaluation.evidence import Evidence, Judged, take
from airflow_mlops.core.evaluation.loading import ModelCopy
from airflow_mlops.core.training import flavours, packaging, recipes, rows
from airflow_mlops.core.training.fitting import mapping
from airflow_mlops.core.training.predictions import Predictions, predict
from airflow_mlops.core.vocabulary import parse_duration

if TYPE_CHECKING:
    import numpy as np
    import pandas

#: Refits of each recipe.
ORIGINS = 4
#: The part of the period before the first origin, where no ``horizon`` says it.
FIRST = 0.5
OPTIONS = ("origins", "horizon", "gap", "train")


@dataclass(frozen=True)
class Fold:
    """One origin.

    :param train: positions of the rows before it.
    :param test: positions of the rows after it, up to the next one.
    """

    origin: str
    end: str
    train: np.ndarray[Any, Any]
    test: np.ndarray[Any, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return it as it stands in the report."""
        return {"origin": self.origin, "end": self.end, "train": len(self.train), "test": len(self.test)}


def check(options: Any) -> dict[str, Any]:
    """Return the options of a backtest.

    :param options: ``{"origins": 4, "horizon": "28d", "gap": "30d", "train": "180d"}``, all of which may be left out.
    :raises SpecError: for anything else.
    """
    given = mapping(options, "backtest")
    unknown = sorted(set(given) - set(OPTIONS))
    if unknown:
        raise SpecError(f"backtest has no option {unknown[0]!r}; it takes: {', '.join(OPTIONS)}")
    try:
        count = int(given.get("origins", ORIGINS))
    except (TypeError, ValueError):
        count = 0
    if not 1 <= count <= 100:
        raise SpecError(f"backtest: origins is a whole number from 1 to 100, got {given.get('origins')!r}")
    for name in ("horizon", "gap", "train"):
        if given.get(name):
            parse_duration(given[name])
    return {**given, "origins": count}


def folds(times: pandas.Series, options: dict[str, Any], label_delay: Any) -> list[Fold]:
    """Return the origins, the earliest first, those without rows on both sides left out.

    :param times: instants, one a row.
    :param label_delay: rows so close before an origin had no label yet, and do not train; ``gap`` overrides it.
    :raises EmptyDataError: if no origin has rows on both sides.
    """
    import pandas

    first, last = times.min(), times.max()
    count = options["origins"]
    if pandas.isna(first) or first == last:
        raise EmptyDataError("a backtest needs rows of different times: all have one instant, or none")
    end = last + pandas.Timedelta(microseconds=1)
    horizon = parse_duration(options["horizon"]) if options.get("horizon") else (end - first) * (1 - FIRST) / count
    gap = parse_duration(options.get("gap") or label_delay or "0d")
    found = []
    for number in range(count, 0, -1):
        origin = end - number * horizon
        train = times < origin - gap
        if options.get("train"):
            train &= times >= origin - gap - parse_duration(options["train"])
        test = (times >= origin) & (times < origin + horizon)
        if train.any() and test.any():
            positions = [mask.to_numpy().nonzero()[0] for mask in (train, test)]
            found.append(Fold(origin.isoformat(), (origin + horizon).isoformat(), *positions))
    if not found:
        raise EmptyDataError(
            f"none of {count} origins has rows before and after it (horizon {horizon}, gap {gap}, rows from "
            f"{first.isoformat()} to {last.isoformat()}): give a shorter horizon, fewer origins or more data"
        )
    return found


def judge(evidence: Evidence, copy: ModelCopy, parts: list[Fold], scratch: Path, who: str) -> Judged:
    """Refit a model's recipe at each origin and predict what comes after it, each row once.

    What stands in the way is its problem, but for a server that does not answer.
    """
    import numpy as np

    positions = np.concatenate([part.test for part in parts])
    # The rows need not stand in the order of their time.
    order = np.argsort(positions)
    judged = Judged(copy=copy, rows=positions[order])
    scratch.mkdir()
    try:
        found = _refitted(evidence, copy, parts, scratch, who)
    except MlopsError as error:
        if error.retryable:
            raise
        judged.problem = error.message
        return judged
    take(judged, found.take(order), evidence.truth(judged.rows))
    return judged


def _refitted(evidence: Evidence, copy: ModelCopy, parts: list[Fold], scratch: Path, who: str) -> Predictions:
    training = copy.ref.training or {}
    split = {"by": "random", **(training.get("split") or {})}
    nullable = (training.get("recipe") or {}).get("nullable")
    said = []
    with recipes.opened(evidence.context.store, copy.ref, scratch) as recipe:
        for number, part in enumerate(parts, 1):
            before, after = (
                evidence.frame.iloc[positions].reset_index(drop=True) for positions in (part.train, part.test)
            )
            train = rows.part_of(before, evidence.dataset, evidence.target, copy.inputs, nullable)
            if train.y.nunique() < 2:
                raise SpecError(f"before the origin {part.origin} the target has one value only: nothing can be learnt")
            test = rows.part_of(after, evidence.dataset, evidence.target, train.raw.columns, nullable)
            evidence.context.log.info(
                "origin %d of %d, %s: refitting %s on %s rows", number, len(parts), part.origin, who, f"{len(train):,}"
            )
            fitted = recipe.fit(evidence.context.log, train, evidence.dataset, split)
            model = flavours.callable_model(packaging.assemble(recipe.features, fitted))
            said.append(predict(model, test.raw))
    return together(said)


def together(parts: list[Predictions]) -> Predictions:
    """Return the predictions of several refits as one; a class that one of them never saw has probability 0 there.

    :raises SpecError: if some refits give probabilities and others do not.
    """
    import numpy as np

    labels = np.concatenate([one.labels for one in parts])
    classes = None
    if all(one.classes is not None for one in parts):
        classes = sorted({c for one in parts for c in one.classes or []}, key=lambda c: (str(type(c)), c))
    for name in ("probabilities", "scores"):
        if len({getattr(one, name) is None for one in parts}) > 1:
            raise SpecError(f"some refits of the recipe give {name} and others do not: they cannot be judged as one")
    probabilities = scores = None
    if classes is not None and parts[0].probabilities is not None:
        probabilities = np.concatenate([_widened(one, classes) for one in parts])
    if parts[0].scores is not None:
        scores = np.concatenate([one.scores for one in parts])
    return Predictions(labels, probabilities, classes, scores)


def _widened(one: Predictions, classes: list[Any]) -> Any:
    import numpy as np

    assert one.probabilities is not None
    wide = np.zeros((len(one.labels), len(classes)))
    wide[:, [classes.index(c) for c in one.classes or []]] = one.probabilities
    return wide
